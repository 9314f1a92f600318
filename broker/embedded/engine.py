"""The ClickHouse engine in this process: one call in, one answer out. Blocking; run it in threads.

Every call gets a chDB connection of its own (0.3 ms; several run at once on one engine), so
settings, ``USE`` and ``SET`` of one caller never reach another. Data of an INSERT are pushed
through chDB's streaming insert: measured on 490-byte JSONEachRow with a rollup view,
250,000-300,000 rows/s against 200,000 through a temporary file and INFILE and 130,000 inside
the SQL text. Pushed in one piece it is one block and so one part, which is what makes
`insert_deduplication_token` cover the whole batch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from broker.embedded.errors import SUPPORT_IS_DISABLED, QueryFailed, from_engine
from broker.embedded.sql_text import output_format, split_insert

#: What a caller asks that would make "acknowledged" mean less than "on disk".
_FORCED: Final = {"async_insert": "0"}
_NEEDS_ESCAPE: Final = re.compile(r"[\\']")


class Answer(msgspec.Struct, frozen=True):
    """What a statement returned: `data` in `format`, and what was read and written for it."""

    data: bytes
    format: str
    n_rows: int = 0
    n_rows_read: int = 0
    n_bytes_read: int = 0
    n_rows_written: int = 0
    n_bytes_written: int = 0
    elapsed_s: float = 0.0


class Engine:
    """chDB over a data directory. One per process: chDB keeps its state in globals."""

    def __init__(self, data_dir: Path) -> None:
        # chdb's package imports these for data frames, which cost 0.4 s and are not used here.
        for name in ("pandas", "pyarrow"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        from chdb import _chdb  # 0.3 s and 300 MB: nothing else in this process needs it

        self._connect: Callable[[str], Any] = getattr(_chdb, "connect")  # noqa: B009 - not in its stubs
        self._path = str(data_dir)
        self._root = self._connect(self._path)  # keeps the engine open between calls
        self.version, self.timezone = self._two_words("SELECT version(), timezone()")

    def session(self, database: str, settings: dict[str, str]) -> Session:
        """A connection with these settings; a context manager.

        Raises
        ------
        QueryFailed : unknown database or setting
        """
        session = Session(self._connect(self._path))
        try:
            if database:
                session.query(f"USE {identifier(database)}")
            session.set(settings)
        except QueryFailed:
            session.close()
            raise
        return session

    def run(
        self,
        sql: bytes,
        *,
        params: dict[str, str],
        settings: dict[str, str],
        database: str,
        default_format: str,
    ) -> Answer:
        """Run any one statement, with the data that follow it, as the writer."""
        insert = split_insert(sql)
        with self.session(database, settings | _FORCED) as session:
            if insert is None:
                return session.query(sql.decode(), default_format, params)
            if params:
                raise QueryFailed(
                    SUPPORT_IS_DISABLED,
                    "SUPPORT_IS_DISABLED",
                    "query parameters in an INSERT with a FORMAT are not offered by the embedded "
                    "server; use INSERT ... VALUES, or name the table and columns in the SQL.",
                )
            return session.insert(insert.head, insert.format, sql[insert.data_at :])

    def close(self) -> None:
        """Close the engine; parts being merged are given up, which loses nothing."""
        self._root.close()

    def _two_words(self, sql: str) -> tuple[str, str]:
        first, second = Session(self._root).query(sql).data.decode().split()
        return first, second


class Session:
    """One chDB connection, used by one thread, closed at the end of the call."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def set(self, settings: dict[str, str]) -> None:
        """Apply settings to this connection; names must already be identifiers."""
        if settings:
            pairs = (f"{name} = {literal(value)}" for name, value in settings.items())
            self.query("SET " + ", ".join(pairs))

    def query(
        self, sql: str, default_format: str = "TabSeparated", params: dict[str, str] | None = None
    ) -> Answer:
        """Run SQL; the whole result is in memory when this returns.

        Raises
        ------
        QueryFailed : the engine's error
        """
        try:
            result = self._connection.query(sql, default_format, params=params or {})
        except RuntimeError as error:
            raise from_engine(str(error)) from error
        return Answer(
            # A copy: chDB's own buffer dies with the connection, whoever still holds a view of it.
            data=result.bytes(),
            format=output_format(sql) or default_format,
            n_rows=result.rows_read(),
            n_rows_read=result.storage_rows_read(),
            n_bytes_read=result.storage_bytes_read(),
            n_rows_written=result.rows_written(),
            n_bytes_written=result.bytes_written(),
            elapsed_s=result.elapsed(),
        )

    def insert(self, head: str, format_: str, data: bytes) -> Answer:
        """Insert `data` in `format_` by the INSERT statement `head`, as one block up to 1 M rows.

        A row that cannot be read fails the whole block, and nothing of it is stored.
        """
        try:
            handle = self._connection.send_insert(head, format_)
            if data:
                self._connection.insert_append(handle, data)
            result = self._connection.insert_done(handle)
        except RuntimeError as error:
            raise from_engine(str(error)) from error
        return Answer(
            data=b"",
            format=format_,
            n_rows_written=result.rows_written(),
            n_bytes_written=result.bytes_written(),
            elapsed_s=result.elapsed(),
        )

    def n_statements(self, sql: str) -> int:
        """How many statements the engine's parser sees; 0 if it cannot read them. Runs nothing."""
        count: int = self._connection.classify_query(sql)["statement_count"]
        return count


def literal(text: str) -> str:
    """`text` as a ClickHouse string literal."""
    return "'" + _NEEDS_ESCAPE.sub(r"\\\g<0>", text) + "'"


def identifier(name: str) -> str:
    """`name` as a quoted ClickHouse identifier."""
    return "`" + re.sub(r"[\\`]", r"\\\g<0>", name) + "`"
