"""The spool's disk: chunks of messages in one SQLite file, oldest first, within a bound.

Every call blocks and belongs on the spool's own thread. What is acknowledged is remembered in
memory first and deleted when the disk allows: on a full disk even a deletion can fail, and then
must not send the messages again.

WAL with `synchronous=NORMAL`: a committed chunk survives the death of the process, not the loss of
power. One process per file; a second one is refused at once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from feeds.errors import SpoolBroken
from feeds.kafka import Message

_RECREATE_BYTES: Final = 8 * 1024 * 1024
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    n_records INTEGER NOT NULL,
    n_bytes INTEGER NOT NULL,
    messages BLOB NOT NULL
)"""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, bytes, bytes]])


class SpoolFile:
    """Chunks on disk.

    Parameters
    ----------
    path : the SQLite file; made, with its folder, when absent
    max_bytes : bound on the chunks' bytes

    Attributes
    ----------
    n_records, n_bytes : held and not acknowledged
    n_dropped : dropped so far because the bound was reached or the file was unreadable
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._acked = 0
        self._rows: dict[int, tuple[int, int]] = {}  # id to records and bytes, oldest first
        self._db: sqlite3.Connection | None = None
        self.n_records = 0
        self.n_bytes = 0
        self.n_dropped = 0

    def open(self) -> None:
        """Open the file, or put an unreadable one aside and begin a new one.

        Raises
        ------
        SpoolBroken
            In use by another process, or the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connect()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._set_aside()
                self._connect()
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise SpoolBroken(f"spool {self._path}: {error}") from error

    def append(
        self, chunks: Sequence[Sequence[Message]], *, keep: int, keep_first: bool = False
    ) -> list[int]:
        """Write chunks behind what is there, making room among the oldest; their ids, rising.

        Parameters
        ----------
        keep, keep_first : chunks up to this id, and the first of these chunks, are being sent and
            are not dropped to make room

        Raises
        ------
        SpoolBroken
            Nothing was written.
        """
        blobs = [_encoder.encode(chunk) for chunk in chunks]
        new: dict[int, tuple[int, int]] = {}
        with self._transaction() as db:
            for chunk, blob in zip(chunks, blobs, strict=True):
                row = (len(chunk), len(blob))
                cursor = db.execute(
                    "INSERT INTO chunks (n_records, n_bytes, messages) VALUES (?, ?, ?)",
                    (*row, blob),
                )
                new[int(cursor.lastrowid or 0)] = row
            excess = self._excess(new, next(iter(new)) if keep_first else keep)
            if excess:
                db.execute("DELETE FROM chunks WHERE id BETWEEN ? AND ?", (excess[0], excess[-1]))
        self._rows |= new
        self.n_records += sum(n for n, _ in new.values())
        self.n_bytes += sum(n for _, n in new.values())
        self.n_dropped += self._forget(excess)
        return list(new)

    def oldest(self, max_bytes: int) -> tuple[list[int], list[Message]]:
        """The oldest unacknowledged chunks up to `max_bytes`, at least one if there is any.

        Raises
        ------
        SpoolBroken
            The disk could not be read; if the file is damaged it is put aside and a new one begun.
        """
        ids: list[int] = []
        messages: list[Message] = []
        with self._transaction() as db:
            n_bytes = 0
            for id_, size, blob in db.execute(
                "SELECT id, n_bytes, messages FROM chunks WHERE id > ? ORDER BY id", (self._acked,)
            ):
                if ids and n_bytes + size > max_bytes:
                    break
                n_bytes += size
                ids.append(id_)
                messages += [Message(*m) for m in _decoder.decode(blob)]
        return ids, messages

    def acknowledge(self, through: int) -> None:
        """Chunks up to this id are on the log. Deleting them may have to wait for the disk.

        Raises
        ------
        SpoolBroken
            They could not be deleted now. They will not be handed out again by this process.
        """
        self._acked = max(self._acked, through)
        self._forget([id_ for id_ in self._rows if id_ <= through])
        with self._transaction() as db:
            db.execute("DELETE FROM chunks WHERE id <= ?", (self._acked,))
        if not self._rows and self._file_bytes() > _RECREATE_BYTES:
            self._recreate()

    def close(self) -> None:
        """Close; chunks stay for the next process."""
        self._disconnect()

    def _transaction(self) -> _Transaction:
        if self._db is None:
            self.open()
        assert self._db is not None
        return _Transaction(self, self._db)

    def _connect(self) -> None:
        db = sqlite3.connect(self._path, timeout=0.0, isolation_level=None, check_same_thread=False)
        self._db = db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.execute(_SCHEMA)
        self._rows = {
            id_: (n_records, n_bytes)
            for id_, n_records, n_bytes in db.execute(
                "SELECT id, n_records, n_bytes FROM chunks WHERE id > ? ORDER BY id", (self._acked,)
            )
        }
        self.n_records = sum(n for n, _ in self._rows.values())
        self.n_bytes = sum(n for _, n in self._rows.values())

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _excess(self, new: dict[int, tuple[int, int]], keep: int) -> list[int]:
        """The oldest chunks that must go, so that these fit as well; up to `keep` they stay."""
        excess = self.n_bytes + sum(n for _, n in new.values()) - self._max_bytes
        ids = []
        for id_, (_, n_bytes) in chain(self._rows.items(), new.items()):
            if excess <= 0:
                break
            if id_ > keep:
                ids.append(id_)
                excess -= n_bytes
        return ids

    def _forget(self, ids: Sequence[int]) -> int:
        """Count these chunks no longer; how many records they held."""
        n_forgotten = 0
        for id_ in ids:
            n_records, n_bytes = self._rows.pop(id_)
            self.n_records -= n_records
            self.n_bytes -= n_bytes
            n_forgotten += n_records
        return n_forgotten

    def _file_bytes(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _recreate(self) -> None:
        """Give an emptied file's space back: SQLite would keep it."""
        self._disconnect()
        for path in self._files():
            path.unlink(missing_ok=True)
        self._acked = 0
        self.open()

    def _set_aside(self) -> None:
        """Move a damaged file out of the way, for a person to look at."""
        self.n_dropped += self._forget(list(self._rows))
        self._disconnect()
        for path in self._files():
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.damaged"))
        self._acked = 0

    def _files(self) -> list[Path]:
        return [self._path.with_name(self._path.name + end) for end in ("", "-wal", "-shm")]

    def broke(self, error: sqlite3.Error) -> None:
        """Close after an error; put the file aside if it is the file that is at fault."""
        damaged = not isinstance(error, sqlite3.OperationalError)
        if damaged:
            self._set_aside()
        else:
            self._disconnect()


class _Transaction:
    """BEGIN, then COMMIT or nothing; SQLite's errors leave as `SpoolBroken`."""

    def __init__(self, file: SpoolFile, db: sqlite3.Connection) -> None:
        self._file = file
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._attempt("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._attempt("COMMIT")
        elif isinstance(error, (sqlite3.Error, msgspec.DecodeError)):
            self._fail(error)
        else:
            self._db.execute("ROLLBACK")

    def _attempt(self, statement: str) -> None:
        try:
            self._db.execute(statement)
        except sqlite3.Error as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        # Closing rolls back whatever state SQLite was left in.
        cause = error if isinstance(error, sqlite3.Error) else sqlite3.DatabaseError(str(error))
        self._file.broke(cause)
        raise SpoolBroken(f"spool's disk: {error}") from error
