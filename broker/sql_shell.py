"""`broker sql`: the market's history by hand, as the read-only analyst.

One query by `-q`, as a table or a file on stdout; or a shell that reads statements, each ended by
`;`, from the terminal or a pipe. What an analyst may not do is refused by the store itself, in
its words; nothing is judged here.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.table import Table

from analytics.errors import StoreError
from analytics.reports import FORMATS, Format
from analytics.store import DRIVER_ERRORS, mapped
from bidding.errors import BadRequest

MOST_ROWS_SHOWN: Final = 1_000
_CHUNK_BYTES: Final = 1 << 16
_PROMPT: Final = "market> "
_PROMPT_MORE: Final = "     -> "
#: A line that takes back what was typed of a statement.
_CLEARED: Final = "\x03"
_HELP: Final = """Statements end with ;
  SHOW TABLES;                 the views
  DESCRIBE TABLE decisions;    a view's columns, with their meaning
  exit                         or Ctrl-D
Named questions: broker report"""
_BINARY: Final = frozenset({"parquet"})


def checked_format(fmt: str) -> str:
    """`fmt`, if it is one. Raises `BadRequest`."""
    known = ("table", *FORMATS)
    if fmt not in known:
        raise BadRequest(f"unknown format {fmt!r}", remedy=f"choose {', '.join(known)}")
    if fmt in _BINARY and sys.stdout.isatty():
        raise BadRequest(f"{fmt} is no text for a terminal", remedy="redirect it to a file")
    return fmt


def answer(client: Client, sql: str, fmt: str, console: Console, out: IO[bytes]) -> None:
    """Ask one query and print what comes: a table on `console`, or the file's bytes on `out`.

    Raises
    ------
    StoreRejected, StoreUnavailable
        With ClickHouse's own words.
    """
    try:
        if fmt == "table":
            result = client.query(sql)
            console.print(
                _table(result.column_names, result.result_rows), highlight=False, markup=False
            )
            return
        with client.raw_stream(sql, fmt=FORMATS[msgspec.convert(fmt, Format)]) as stream:
            while piece := stream.read(_CHUNK_BYTES):
                out.write(piece)
        out.flush()
    except DRIVER_ERRORS as error:
        raise mapped(error, " ".join(sql.split())[:80]) from error


def run_shell(client: Client, fmt: str, lines: Iterator[str], console: Console) -> bool:
    """Answer each statement of `lines`; whether all went well. A refusal does not end it."""
    all_well = True
    for sql in statements(lines):
        if sql == "help":
            console.print(_HELP, highlight=False)
            continue
        try:
            answer(client, sql, fmt, console, sys.stdout.buffer)
        except StoreError as error:
            all_well = False
            Console(stderr=True).print(str(error), style="red", highlight=False, markup=False)
        except KeyboardInterrupt:
            console.print("stopped")
    return all_well


def statements(lines: Iterator[str]) -> Iterator[str]:
    """The statements in `lines`: each ends with a line that ends with `;`, the last with the input.

    `help` on a line of its own comes as it is; `exit` and `quit` end the input.

    Examples
    --------
    >>> list(statements(iter(["SELECT 1", "  + 2;", "help", "exit", "SELECT 3;"])))
    ['SELECT 1\\n  + 2', 'help']
    """
    gathered: list[str] = []
    for line in lines:
        if line == _CLEARED:
            gathered = []
            continue
        word = line.strip().rstrip(";").lower()
        if not gathered and word in ("", "help", "\\h", "?"):
            if word:
                yield "help"
            continue
        if not gathered and word in ("exit", "quit", "\\q"):
            return
        ended = line.rstrip().endswith(";")
        gathered.append(line.rstrip().rstrip(";") if ended else line.rstrip("\n"))
        if ended:
            yield "\n".join(gathered)
            gathered = []
    if sql := "\n".join(gathered).strip():
        yield sql


def typed_lines() -> Iterator[str]:
    """Lines as somebody types them, with history and editing where the terminal can."""
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # `input` uses it once it is there

    prompt = _PROMPT
    while True:
        try:
            line = input(prompt)
        except EOFError:
            return
        except KeyboardInterrupt:
            line = _CLEARED
        yield line
        ended = line == _CLEARED or line.rstrip().endswith(";") or not line.strip()
        prompt = _PROMPT if ended else _PROMPT_MORE


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(*names)
    for row in rows[:MOST_ROWS_SHOWN]:
        table.add_row(*("" if value is None else str(value) for value in row))
    if len(rows) > MOST_ROWS_SHOWN:
        table.caption = (
            f"{len(rows) - MOST_ROWS_SHOWN:,} more rows; --format csv, json or parquet gives all"
        )
    return table
