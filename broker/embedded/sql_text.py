"""Where the parts of a ClickHouse statement lie in its text: pure, no meaning judged.

Three questions need the text rather than the engine: where does the SQL of an INSERT end and
its data begin (the data is not SQL and may be binary), which FORMAT does a query ask for, and
what can be wrapped in ``SELECT * FROM (...)``. A tokenizer that knows comments, quotes and
brackets answers them. Nothing here decides what is allowed: that is judged on the engine's own
parse (`guard`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?(?:\*/|\Z))
    | (?P<quoted>'(?:[^'\\]|\\.|'')*' | `(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*")
    | (?P<word>[^\W\d]\w*)
    | (?P<number>\d\w*)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)

#: How far into a body we look for the head of an INSERT before reading all of it. Its column list
#: is the longest thing there.
HEAD_BYTES: Final = 1 << 16


class Token(NamedTuple):
    """A token outside comments: its kind, text, place, and how many brackets enclose it."""

    kind: str
    text: str
    start: int
    end: int
    depth: int


class InsertText(NamedTuple):
    """An INSERT whose data follow it: table and columns, ``SETTINGS ...`` or "", format, data."""

    head: str
    settings: str
    format: str
    data_at: int


def tokens(sql: str) -> Iterator[Token]:
    """The tokens of `sql` in order, comments and white space left out."""
    depth = 0
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "mark"
        if kind == "space":
            continue
        text = match[0]
        if text in (")", "]", "}") and kind == "mark":
            depth -= 1
        yield Token(kind, text, match.start(), match.end(), depth)
        if text in ("(", "[", "{") and kind == "mark":
            depth += 1


def first_word(sql: str) -> str:
    """The first word in upper case (brackets skipped), "" when there is none."""
    for token in tokens(sql):
        if token.kind == "word":
            return token.text.upper()
        if token.text != "(":
            return ""
    return ""


def split_insert(body: bytes) -> InsertText | None:
    """Find the SQL of ``INSERT INTO ... FORMAT name`` at the start of `body`, data behind it.

    Returns
    -------
    None if this is no INSERT with a FORMAT (``VALUES``, ``SELECT`` and other statements are whole
    SQL). `data_at` is in bytes, one line break after the format's name skipped, as ClickHouse does.

    Examples
    --------
    >>> split_insert(b"INSERT INTO t (a) FORMAT CSV\\n1\\n")
    InsertText(head='INSERT INTO t (a) ', settings='', format='CSV', data_at=29)
    >>> split_insert(b"INSERT INTO t VALUES (1)") is None
    True
    """
    found = _split_insert(body[:HEAD_BYTES])
    return found if found is not None or len(body) <= HEAD_BYTES else _split_insert(body)


def _split_insert(body: bytes) -> InsertText | None:
    text = body.decode("latin-1")  # one byte is one character: places in text are places in bytes
    after_format = False
    format_at = settings_at = 0
    table_at = 2
    for place, token in enumerate(tokens(text)):
        word = token.text.upper() if token.kind == "word" else ""
        if place == 0 and word != "INSERT":
            return None
        if after_format:
            if token.kind != "word":
                return None
            head_end = settings_at or format_at
            return InsertText(
                body[:head_end].decode(),
                body[head_end:format_at].decode(),
                token.text,
                _skip_line_break(body, token.end),
            )
        if place == 2 and word == "TABLE":
            table_at = 3
        # A table may itself be called "format" or "values".
        if place > table_at and token.depth == 0:
            if word in ("VALUES", "SELECT", "WITH", "WATCH"):
                return None
            after_format = word == "FORMAT"
            format_at = token.start
            if word == "SETTINGS":
                settings_at = token.start
    return None


def _skip_line_break(body: bytes, at: int) -> int:
    if body[at : at + 1] == b";":
        at += 1
    while body[at : at + 1] in (b" ", b"\t", b"\f"):
        at += 1
    if body[at : at + 1] == b"\r":
        at += 1
    return at + 1 if body[at : at + 1] == b"\n" else at


class QueryText(NamedTuple):
    """A query without its FORMAT clause and closing semicolons, and the format it named or ""."""

    sql: str
    format: str


def split_format(sql: str) -> QueryText:
    """Cut ``FORMAT name`` (and a closing ``;``) off the end of a query.

    Examples
    --------
    >>> split_format("SELECT 1 -- one\\nFORMAT JSON ;")
    QueryText(sql='SELECT 1 -- one\\n', format='JSON')
    """
    kept = list(tokens(sql))
    while kept and kept[-1].text == ";":
        sql = sql[: kept.pop().start]
    if len(kept) >= 2 and kept[-1].kind == "word":
        before = kept[-2]
        if before.kind == "word" and before.depth == 0 and before.text.upper() == "FORMAT":
            return QueryText(sql[: before.start], kept[-1].text)
    return QueryText(sql, "")


def output_format(sql: str) -> str:
    """The last FORMAT named outside brackets, also before a SETTINGS clause, or ""."""
    name = ""
    previous: Token | None = None
    for token in tokens(sql):
        if (
            previous is not None
            and token.kind == previous.kind == "word"
            and previous.depth == 0
            and previous.text.upper() == "FORMAT"
        ):
            name = token.text
        previous = token
    return name
