"""The shared state of one machine: a SQLite file in WAL mode, one thread a process.

Operations that come while a transaction runs are gathered into the next one, so two hundred
concurrent requests cost a handful of transactions, and each answer is exact: nothing is leased
out to a worker in advance. Commits are not synced to disk one by one (`synchronous=NORMAL`): they
survive the death of every process, and after a power cut the last few may be missing.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from broker.shared_state import (
    PERIOD_KEPT_US,
    SLOT_US,
    SWEPT_AT_ONCE,
    WINDOW_SLOTS,
    Reserved,
    StateSettings,
    StateUnavailable,
    Take,
    Taken,
    Wanted,
    fits,
    session_in,
)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS budget (
    period TEXT PRIMARY KEY, spent INTEGER NOT NULL, reserved INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS budget_end (
    period TEXT PRIMARY KEY, ends_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS budget_ends ON budget_end (ends_us);
CREATE TABLE IF NOT EXISTS reservation (
    id TEXT PRIMARY KEY, periods TEXT NOT NULL, nusd INTEGER NOT NULL, expires_us INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reservation_ends ON reservation (expires_us);
CREATE TABLE IF NOT EXISTS used (
    account TEXT, slot INTEGER, n INTEGER NOT NULL, PRIMARY KEY (account, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, at_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS session_age ON session (at_us);
CREATE TABLE IF NOT EXISTS revoked (
    key_id TEXT PRIMARY KEY, at_us INTEGER NOT NULL, by TEXT NOT NULL, untold INTEGER NOT NULL)
    WITHOUT ROWID;
"""
_MAX_BATCH: Final = 256
_SWEEP_US: Final = 10_000_000
_COUNT_EVERY: Final = 20


class SqliteState:
    """See `SharedState`; one an event loop."""

    def __init__(self, path: Path, settings: StateSettings | None = None) -> None:
        self._path = path
        self._settings = settings or StateSettings()
        self._work: queue.SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: sqlite3.Connection | None = None
        self._swept_us = 0
        self._uncounted = 0

    async def start(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="state", daemon=True)
        self._thread.start()
        await opened
        # Reads of one row go past the thread: some 10 µs, and in WAL mode no writer holds them up.
        self._reader = sqlite3.connect(self._path, isolation_level=None, timeout=0.0)
        self._reader.execute("PRAGMA query_only=1")

    async def close(self) -> None:
        if self._thread is not None:
            self._work.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def reserve(self, wanted: Wanted) -> Reserved:
        return await self._do(lambda db: _reserve(db, wanted))

    async def settle(self, reservation: str, spent_nusd: int) -> None:
        await self._do(lambda db: _settle(db, reservation, spent_nusd))

    async def spent(self, periods: Sequence[str]) -> list[tuple[int, int]]:
        return await self._do(lambda db: [_level(db, period) for period in periods])

    async def take(self, takes: Sequence[Take], now_us: int) -> list[Taken]:
        return await self._do(lambda db: _take(db, takes, now_us))

    async def give(self, account: str, n: int, now_us: int) -> None:
        await self._do(lambda db: _use(db, account, now_us // SLOT_US, -n))

    async def session(self, key: str, now_us: int) -> bytes | None:
        oldest = now_us - round(self._settings.session_ttl_s * 1e6)
        if self._reader is None:
            raise StateUnavailable("the shared state is closed")
        try:
            row = self._reader.execute(
                "SELECT value FROM session WHERE key = ? AND at_us > ?", (key, oldest)
            ).fetchone()
        except sqlite3.Error as error:
            raise StateUnavailable(f"{self._path}: {error}") from error
        return None if row is None else bytes(row[0])

    async def keep_sessions(self, sessions: Sequence[tuple[str, bytes]], now_us: int) -> None:
        rows = [(key, value, now_us) for key, value in sessions]
        settings = self._settings

        def keep(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO session VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET value = excluded.value, at_us = excluded.at_us",
                rows,
            )
            self._uncounted += len(rows)
            if now_us - self._swept_us > _SWEEP_US:
                self._swept_us = now_us
                oldest = now_us - round(settings.session_ttl_s * 1e6)
                db.execute("DELETE FROM session WHERE at_us < ?", (oldest,))
            if self._uncounted > settings.max_sessions // _COUNT_EVERY:
                # Counting reads them all, so it is not done at every sweep.
                self._uncounted = 0
                (n,) = db.execute("SELECT count(*) FROM session").fetchone()
                if n > settings.max_sessions:
                    db.execute(
                        "DELETE FROM session WHERE key IN "
                        "(SELECT key FROM session ORDER BY at_us LIMIT ?)",
                        (n - settings.max_sessions,),
                    )

        await self._do(keep)

    async def forget_sessions(self, sessions: frozenset[str]) -> int:
        def forget(db: sqlite3.Connection) -> int:
            rows = db.execute("SELECT key, value FROM session").fetchall()
            mine = [(key,) for key, value in rows if session_in(bytes(value)) in sessions]
            db.executemany("DELETE FROM session WHERE key = ?", mine)
            return len(mine)

        return await self._do(forget)

    async def revoke(self, key_id: str, at_us: int, by: str) -> None:
        await self._do(
            lambda db: (
                db.execute(
                    "INSERT OR IGNORE INTO revoked VALUES (?, ?, ?, 1)", (key_id, at_us, by)
                ).rowcount
            )
        )

    async def revoked(self) -> dict[str, int]:
        return await self._do(lambda db: dict(db.execute("SELECT key_id, at_us FROM revoked")))

    async def claim_untold(self) -> list[tuple[str, int, str]]:
        def claim(db: sqlite3.Connection) -> list[tuple[str, int, str]]:
            found = db.execute("SELECT key_id, at_us, by FROM revoked WHERE untold = 1").fetchall()
            if found:
                db.execute("UPDATE revoked SET untold = 0 WHERE untold = 1")
            return found

        return await self._do(claim)

    async def untell(self, key_id: str) -> None:
        await self._do(
            lambda db: (
                db.execute("UPDATE revoked SET untold = 0 WHERE key_id = ?", (key_id,)).rowcount
            )
        )

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = self._loop
        if loop is None or self._thread is None:
            raise StateUnavailable("the shared state is closed")
        future: asyncio.Future[T] = loop.create_future()
        self._work.put((work, future))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await future
        except TimeoutError as error:
            raise StateUnavailable(f"{self._path} did not answer in time") from error

    def _run(self, opened: asyncio.Future[None]) -> None:
        """The thread: open, then batch after batch until told to end."""
        try:
            db = sqlite3.connect(self._path, isolation_level=None, timeout=self._settings.timeout_s)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._tell([(opened, None, StateUnavailable(f"{self._path}: {error}"))])
            return
        self._tell([(opened, None, None)])
        while True:
            first = self._work.get()
            if first is None:
                break
            batch = [first]
            while len(batch) < _MAX_BATCH and not self._work.empty():
                more = self._work.get()
                if more is None:
                    self._work.put(None)
                    break
                batch.append(more)
            self._tell(_batch(db, batch))
        db.close()

    def _tell(self, ends: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return

        def tell() -> None:
            for future, value, error in ends:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)

        loop.call_soon_threadsafe(tell)


def _batch(
    db: sqlite3.Connection, batch: list[tuple[Work, asyncio.Future[Any]]]
) -> list[tuple[asyncio.Future[Any], Any, Exception | None]]:
    """All of a batch in one transaction, or none of it."""
    ends: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
    try:
        db.execute("BEGIN IMMEDIATE")
        # Whoever gave up waiting has gone on without it: it must not happen behind their back.
        ends = [(future, work(db), None) for work, future in batch if not future.cancelled()]
        db.execute("COMMIT")
        return ends
    except sqlite3.Error as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        failed = StateUnavailable(f"the shared state failed: {error}")
        return [(future, None, failed) for _, future in batch]


def _level(db: sqlite3.Connection, period: str) -> tuple[int, int]:
    row = db.execute("SELECT spent, reserved FROM budget WHERE period = ?", (period,)).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def _reserve(db: sqlite3.Connection, wanted: Wanted) -> Reserved:
    for (lost,) in db.execute(
        "SELECT id FROM reservation WHERE expires_us < ?", (wanted.now_us,)
    ).fetchall():
        _settle(db, lost, None)
    _forget_periods(db, wanted.now_us - PERIOD_KEPT_US)
    tightest, left, tied = "", 1 << 62, 0
    for cap in wanted.caps:
        spent, reserved = _level(db, cap.period)
        here = cap.cap_nusd - spent - reserved
        if here < left:
            tightest, left, tied = cap.period, here, reserved
    amount = wanted.worst_nusd if wanted.worst_nusd <= wanted.worst_share * left else 0
    if not amount and wanted.likely_nusd <= left:
        amount = wanted.likely_nusd
    if amount:
        periods = [cap.period for cap in wanted.caps]
        for cap in wanted.caps:
            db.execute(
                "INSERT INTO budget VALUES (?, 0, ?) "
                "ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved",
                (cap.period, amount),
            )
            if cap.ends_us:
                db.execute(
                    "INSERT OR IGNORE INTO budget_end VALUES (?, ?)", (cap.period, cap.ends_us)
                )
        db.execute(
            "INSERT INTO reservation VALUES (?, ?, ?, ?)",
            (wanted.id, msgspec.json.encode(periods).decode(), amount, wanted.expires_us),
        )
    return Reserved(amount, left - amount, tied, tightest)


def _forget_periods(db: sqlite3.Connection, ended_us: int) -> None:
    """Drop some of the periods that ended before `ended_us`."""
    over = db.execute(
        "SELECT period FROM budget_end WHERE ends_us < ? LIMIT ?", (ended_us, SWEPT_AT_ONCE)
    ).fetchall()
    db.executemany("DELETE FROM budget WHERE period = ?", over)
    db.executemany("DELETE FROM budget_end WHERE period = ?", over)


def _settle(db: sqlite3.Connection, reservation: str, spent_nusd: int | None) -> None:
    """None: it was never told what was spent, so all of it counts."""
    row = db.execute(
        "DELETE FROM reservation WHERE id = ? RETURNING periods, nusd", (reservation,)
    ).fetchone()
    if row is None:
        return
    periods, nusd = msgspec.json.decode(row[0], type=list[str]), row[1]
    for period in periods:
        db.execute(
            "UPDATE budget SET spent = spent + ?, reserved = reserved - ? WHERE period = ?",
            (nusd if spent_nusd is None else spent_nusd, nusd, period),
        )


def _use(db: sqlite3.Connection, account: str, slot: int, n: int) -> None:
    db.execute(
        "INSERT INTO used VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
        (account, slot, n),
    )


def _take(db: sqlite3.Connection, takes: Sequence[Take], now_us: int) -> list[Taken]:
    slot = now_us // SLOT_US
    taken: list[Taken] = []
    for take in takes:
        db.execute(
            "DELETE FROM used WHERE account = ? AND slot <= ?", (take.account, slot - WINDOW_SLOTS)
        )
        slots = db.execute(
            "SELECT slot, n FROM used WHERE account = ? ORDER BY slot", (take.account,)
        ).fetchall()
        taken.append(fits(take, slots, now_us))
    if all(t.ok for t in taken):
        for take in takes:
            _use(db, take.account, slot, take.n)
    return taken
