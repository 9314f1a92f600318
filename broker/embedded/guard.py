"""What the analyst may ask, judged on the engine's own parse of the very text that will run.

`readonly=1` alone is not enough on an embedded engine: measured, it still lets a SELECT read
``file('/proc/self/environ')``, write with ``INTO OUTFILE``, and fetch ``url(...)`` through
DESCRIBE. So a query is taken apart here, and everything not known to be harmless is refused:

1. One statement (the engine counts; ``EXPLAIN AST x; y`` would run ``y``), FORMAT cut off.
2. Wrapped as ``SELECT * FROM (...)``, which takes no OUTFILE, no DDL, no SHOW.
3. ``EXPLAIN AST`` of the wrapped text with its parameters filled in: every node of a known kind,
   every function and table function on its list, every table in an allowed database.

A few statements that tools send (SHOW TABLES, SHOW DATABASES, DESCRIBE) become such SELECTs
first. Behind this stand the connection's own limits and `readonly=1`, and the process's
`sandbox`.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from broker.embedded import allowed
from broker.embedded.accounts import AnalystLimits
from broker.embedded.engine import Session, identifier, literal
from broker.embedded.errors import Refused
from broker.embedded.sql_text import first_word, split_format, tokens

#: Longest query text taken; a person or tool writes less, and parsing is not interruptible.
MAX_SQL_CHARS: Final = 1 << 17


_CATALOGUE: Final = frozenset({"system", "information_schema"})
_IN_FUNCTION: Final = re.compile(r"(?:global)?(?:not)?(?:null)?in(?:ignoreset)?", re.IGNORECASE)
_COMBINATOR: Final = re.compile(
    r"(?:If|Array|Map|SimpleState|MergeState|State|Merge|ForEach|Distinct|OrDefault|OrNull"
    r"|Resample|ArgMin|ArgMax|Null)$"
)


class Approved(NamedTuple):
    """A query that may run: the exact text judged, and the format to answer in."""

    sql: str
    format: str


class _Node(NamedTuple):
    depth: int
    kind: str
    name: str


def approve(
    session: Session,
    sql: str,
    *,
    params: dict[str, str],
    default_format: str,
    limits: AnalystLimits,
) -> Approved:
    """Judge a query of the analyst's.

    Parameters
    ----------
    session : the connection it will run on, already read-only
    sql, params, default_format : as sent
    limits : which databases and tables may be read

    Raises
    ------
    Refused : names the part that is not allowed
    QueryFailed : the engine cannot parse it
    """
    if len(sql) > MAX_SQL_CHARS:
        raise Refused(f"the query is longer than {MAX_SQL_CHARS} characters.")
    if "\0" in sql:
        raise Refused("the query contains a NUL character.")
    text = split_format(sql)
    format_ = text.format or default_format
    if not allowed.FORMATS.fullmatch(format_):
        raise Refused(f"format {format_!r}.")
    _check_words(text.sql)
    body = _as_select(text.sql, limits)
    wrapped = f"SELECT * FROM (\n{body}\n)"  # noqa: S608 - an analyst's own text, judged below as it stands
    if session.n_statements(wrapped) > 1:
        raise Refused("more than one statement; send them one by one.")
    tree = session.query("EXPLAIN AST " + wrapped, "TabSeparatedRaw", params).data.decode()
    _check_tree(_parse(tree), limits)
    return Approved(wrapped, format_)


def row_filters(limits: AnalystLimits) -> str:
    """The value of `additional_table_filters`: catalogue rows of what may be read, no others."""
    databases = ", ".join(literal(name) for name in limits.databases)
    hidden = [literal(_as_like(pattern)) for pattern in limits.hidden_tables]

    def rule(database: str, table: str) -> str:
        terms = [f"{database} IN ({databases})", *(f"{table} NOT LIKE {like}" for like in hidden)]
        return " AND ".join(terms)

    filters = {
        "system.columns": rule("database", "`table`"),
        "system.tables": rule("database", "name"),
        "system.databases": f"name IN ({databases})",
    }
    pairs = (f"{literal(table)}: {literal(terms)}" for table, terms in filters.items())
    return "{" + ", ".join(pairs) + "}"


def _as_like(pattern: str) -> str:
    escaped = re.sub(r"[\\%_]", r"\\\g<0>", pattern)
    return escaped.replace("*", "%").replace("?", "_")


def _check_words(sql: str) -> None:
    """What must not reach the parse: it would run at once, or hide in the lines we read."""
    first = first_word(sql)
    if first not in ("SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC"):
        raise Refused(f"{first or 'this'} is no query; one SELECT can be asked.")
    previous = ""
    for token in tokens(sql):
        if (previous, token.text.upper()) == ("INTO", "OUTFILE"):
            raise Refused("INTO OUTFILE.")
        previous = token.text.upper() if token.kind == "word" else ""
        if token.depth < 0:
            raise Refused("a bracket closes that was never opened.")
        if token.text == ";":
            raise Refused("more than one statement; send them one by one.")
        if token.kind == "quoted" and token.text[0] != "'" and not token.text.isprintable():
            raise Refused("a quoted name with an unprintable character.")


def _as_select(sql: str, limits: AnalystLimits) -> str:
    """SHOW TABLES, SHOW DATABASES and DESCRIBE as SELECTs; any other text as it is."""
    words = [token.text for token in tokens(sql)]
    match [word.upper() for word in words]:
        case ["SHOW", "DATABASES"]:
            return "SELECT schema_name AS name FROM information_schema.schemata ORDER BY name"
        case ["SHOW", "TABLES"] | ["SHOW", "TABLES", "FROM" | "IN", _]:
            database = _bare(words[3]) if len(words) == 4 else limits.databases[0]
            return (
                "SELECT table_name AS name FROM information_schema.tables "  # noqa: S608 - literal() quotes
                f"WHERE table_schema = {literal(database)} ORDER BY name"
            )
        case ["DESCRIBE" | "DESC", *rest]:
            names = words[-len(rest) :] if rest else []
            if len(names) in (2, 4) and names[0].upper() == "TABLE":
                names = names[1:]
            if len(names) == 3 and names[1] == ".":
                return _describe(_bare(names[0]), _bare(names[2]))
            if len(names) == 1:
                return _describe(limits.databases[0], _bare(names[0]))
            raise Refused("DESCRIBE of anything but a table.")
        case ["SHOW", *_]:
            raise Refused("SHOW of anything but TABLES and DATABASES.")
        case _:
            return sql


def _describe(database: str, table: str) -> str:
    return (
        "SELECT name, type, default_kind AS default_type, "  # noqa: S608 - literal() quotes
        "default_expression, comment, "
        "'' AS codec_expression, '' AS ttl_expression FROM system.columns "
        f"WHERE database = {literal(database)} AND {identifier('table')} = {literal(table)} "
        "ORDER BY position"
    )


def _bare(name: str) -> str:
    if not re.fullmatch(r"\w+|`\w+`|\"\w+\"", name):
        raise Refused(f"{name} is no plain name.")
    return name.strip('`"')


_LINE: Final = re.compile(
    r"(?P<indent> *)(?P<kind>[\w:]+)(?: (?P<name>.*?))??(?: \(alias .*)?(?: \(children \d+\))?"
)


def _parse(tree: str) -> list[_Node]:
    nodes = []
    for line in tree.splitlines():
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refused(f"a part that cannot be told apart: {line.strip()[:80]!r}.")
        nodes.append(_Node(len(found["indent"]), found["kind"], found["name"] or ""))
    return nodes


def _check_tree(nodes: list[_Node], limits: AnalystLimits) -> None:
    for i, node in enumerate(nodes):
        match node.kind:
            case "TableIdentifier":
                _check_table(node.name, limits)
            case "Function":
                if nodes[i - 1].kind == "TableExpression":
                    if node.name.lower() not in allowed.TABLE_FUNCTIONS:
                        raise Refused(f"table function {node.name!r}.")
                elif _IN_FUNCTION.fullmatch(node.name):
                    _check_in(nodes, i, limits)
                else:
                    _check_function(node.name)
            case "Identifier":
                _check_identifier(node.name)
            case "Set":
                raise Refused("a SETTINGS clause.")
            case kind if kind not in allowed.NODES:
                raise Refused(f"a clause of kind {kind}.")


def _check_table(name: str, limits: AnalystLimits) -> None:
    database, dot, table = name.partition(".")
    if not dot:
        database, table = limits.databases[0], name  # or a WITH name, which is narrower still
    if f"{database}.{table}".lower() in allowed.SYSTEM_TABLES:
        return
    if database not in limits.databases or any(
        fnmatchcase(table, pattern) for pattern in limits.hidden_tables
    ):
        raise Refused(f"table {name!r}; tables of {', '.join(limits.databases)} may be read.")


def _check_in(nodes: list[_Node], at: int, limits: AnalystLimits) -> None:
    """``x IN name`` reads a table called `name`; the parse shows it as a plain identifier."""
    argument_depth = nodes[at].depth + 2
    n_arguments = 0
    for node in nodes[at + 1 :]:
        if node.depth <= nodes[at].depth:
            break
        if node.depth == argument_depth:
            n_arguments += 1
            if n_arguments == 2 and node.kind == "Identifier":
                _check_table(node.name, limits)


def _check_identifier(name: str) -> None:
    """A column; but none that could be a table of the catalogue by its full name."""
    parts = name.lower().split(".")
    if (
        len(parts) > 1
        and parts[0] in _CATALOGUE
        and ".".join(parts[:2]) not in allowed.SYSTEM_TABLES
    ):
        raise Refused(f"{name!r} of the engine's own tables.")


def _check_function(name: str) -> None:
    known = allowed.functions()
    base = name
    while base.lower() not in known:
        shorter = _COMBINATOR.sub("", base)
        if shorter == base:
            raise Refused(f"function {name!r}.")
        base = shorter
