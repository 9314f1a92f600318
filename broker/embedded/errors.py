"""What goes wrong while running the embedded log and store.

EmbeddedError (MarketError)
├── StartFailed      a child process did not become healthy; carries the last it said
├── NotRunning       asked something of a part that is not up
└── QueryFailed      ClickHouse's own kind of error: code, name and text, as sent to the client
    └── Refused      the analyst's account may not do this (code 497, ACCESS_DENIED)

A `QueryFailed` never leaves the server process as a Python exception: it becomes an HTTP answer
with `X-ClickHouse-Exception-Code`, which clickhouse-connect turns into its own `DatabaseError`.
"""

from __future__ import annotations

import re
from typing import Final

from bidding.errors import MarketError

ACCESS_DENIED: Final = 497
AUTHENTICATION_FAILED: Final = 516
BAD_ARGUMENTS: Final = 36
NOT_IMPLEMENTED: Final = 48
SUPPORT_IS_DISABLED: Final = 344
TOO_MANY_ROWS_OR_BYTES: Final = 396
TOO_MANY_SIMULTANEOUS_QUERIES: Final = 202
REQUEST_TOO_LARGE: Final = 307  # TOO_MANY_BYTES

#: ``Code: 62. DB::Exception: Syntax error: ... (SYNTAX_ERROR) (version 26.9.2.1)``
_MESSAGE = re.compile(
    r"Code: (?P<code>\d+)\. DB::(?:Net|)Exception: (?P<text>.*?)"
    r"(?: \((?P<name>[A-Z][A-Z0-9_]+)\))?(?: \(version [^)]*\))?\s*$",
    re.DOTALL,
)


class EmbeddedError(MarketError):
    """Root of the embedded parts' errors."""


class StartFailed(EmbeddedError):
    """A child process did not become healthy in time; the message ends with what it printed."""


class NotRunning(EmbeddedError):
    """The part was asked for something that only exists while it runs."""


class QueryFailed(EmbeddedError):
    """A ClickHouse error: numeric `code`, symbolic `name`, plain `text`."""

    def __init__(self, code: int, name: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.name = name
        self.text = text

    def body(self, version: str) -> str:
        """The line a ClickHouse server of `version` would send for this error."""
        return f"Code: {self.code}. DB::Exception: {self.text} ({self.name}) (version {version})\n"


class Refused(QueryFailed):
    """The analyst's account may not do this; the text says which part of the query is at fault."""

    def __init__(self, text: str) -> None:
        super().__init__(ACCESS_DENIED, "ACCESS_DENIED", f"Not allowed for analysts: {text}")


def from_engine(message: str) -> QueryFailed:
    """The `QueryFailed` in chDB's exception text (code 1001, STD_EXCEPTION, if it has no code)."""
    found = _MESSAGE.search(message)
    if found is None:
        return QueryFailed(1001, "STD_EXCEPTION", message.strip())
    return QueryFailed(int(found["code"]), found["name"] or "UNKNOWN", found["text"].strip())
