"""The ClickHouse engine in this process: one call in, one answer out. Blocking; run it in threads.

Every call gets a chDB connection of its own (0.3 ms; several run at once on one engine), so
settings, ``USE`` and ``SET`` of one caller never reach another. Data of an INSERT are read by the
engine FROM INFILE out of a file in memory: one block and so one part, which is what makes
`insert_deduplication_token` cover the whole batch. chDB's own streaming insert is as fast, but
acknowledges what then fails at the commit (measured: a view that throws, too many parts).
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from broker.embedded.errors import SUPPORT_IS_DISABLED, QueryFailed, from_engine
from broker.embedded.sql_text import InsertText, output_format, split_insert

#: What a caller asks that would make "acknowledged" mean less than "on disk".
_FORCED: Final = {"async_insert": "0"}
#: Rows in the order of the bytes, and as many to a block as the squashing allows.
_ONE_BLOCK: Final = {"input_format_parallel_parsing": "0"}
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
        # None there means "not to be found", which the type of `sys.modules` does not tell.
        loaded: dict[str, Any] = sys.modules
        for name in ("pandas", "pyarrow"):
            loaded.setdefault(name, None)
        chdb = importlib.import_module("chdb._chdb")  # 0.3 s and 300 MB, needed here alone
        self._connect: Callable[[str], Any] = chdb.connect
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
            return session.insert(insert, sql[insert.data_at :])

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

    def insert(self, insert: InsertText, data: bytes) -> Answer:
        """Insert `data` as one block up to 1 M rows.

        A row that cannot be read fails the whole block, and nothing of it is stored.

        Raises
        ------
        QueryFailed : the engine's error, that of a view behind the table among them
        """
        self.set(_ONE_BLOCK)
        file = os.memfd_create("insert")
        try:
            with open(file, "wb", closefd=False) as out:
                out.write(data)
            source = f"FROM INFILE '/proc/self/fd/{file}'"
            written = self.query(f"{insert.head} {source} {insert.settings} FORMAT {insert.format}")
        finally:
            os.close(file)
        return Answer(
            data=b"",
            format=insert.format,
            n_rows_written=written.n_rows_written,
            n_bytes_written=written.n_bytes_written,
            elapsed_s=written.elapsed_s,
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
