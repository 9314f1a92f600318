"""Named reports over HTTP: `GET /v1/reports`, `GET /v1/reports/{name}?since=24h&format=csv`.

Asked as the read-only analyst, never as the writer, a few at a time, so that people looking at
the market page cannot starve the recorder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from analytics import reports
from analytics.errors import StoreUnavailable
from analytics.store import Store, StoreSettings
from bidding.errors import BadRequest
from broker.errors import Shed

_AT_ONCE: Final = 4
_WAITING: Final = 64
MEDIA_TYPES: Final[dict[str, str]] = {
    "csv": "text/csv",
    "json": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}


class AnalystDesk:
    """The analyst's way in, opened at the first question and again after a failure."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._n_asked = 0

    async def run(self, name: str, given: Mapping[str, str]) -> dict[str, Any]:
        """A report's answer as columns, types and rows.

        Raises
        ------
        UnknownReport, BadParameter, StoreUnavailable, StoreRejected
        Shed
            Too many questions wait already.
        """
        async with _Place(self):
            result = await reports.run(await self._open(), name, given)
        return {
            "object": "report",
            "report": result.report,
            "columns": result.columns,
            "types": result.types,
            "rows": result.rows,
            "parameters": result.parameters,
        }

    async def export(self, name: str, given: Mapping[str, str], fmt: str) -> bytes:
        """A report's answer as a file. Raises as `run`, and `BadRequest` on another format."""
        if fmt not in MEDIA_TYPES:
            known = ", ".join(get_args(reports.Format))
            raise BadRequest(f"unknown format {fmt!r}", path="format", remedy=f"choose {known}")
        async with _Place(self):
            kind = msgspec.convert(fmt, reports.Format)
            return await reports.export(await self._open(), name, given, fmt=kind)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._store is not None:
            await self._store.close()

    async def _open(self) -> Store:
        async with self._opening:
            if self._store is None:
                self._store = await Store.open(self._settings)
            return self._store

    async def forget(self) -> None:
        """Open anew at the next question: the store was gone."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()


class _Place:
    """One of the few questions asked at a time, or a place in the short queue for it."""

    def __init__(self, desk: AnalystDesk) -> None:
        self._desk = desk

    async def __aenter__(self) -> None:
        desk = self._desk
        if desk._n_asked >= _WAITING:
            raise Shed("too many reports are being made", retry_after_s=2.0)
        desk._n_asked += 1
        try:
            await desk._slots.acquire()
        except BaseException:
            desk._n_asked -= 1
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        desk = self._desk
        desk._slots.release()
        desk._n_asked -= 1
        if kind is not None and issubclass(kind, StoreUnavailable):
            await desk.forget()


def catalogue() -> dict[str, Any]:
    """All reports with their questions, grain, cost and parameters."""
    return {
        "object": "list",
        "data": [
            {
                "report": r.name,
                "question": r.question,
                "grain": r.grain,
                "cost": r.cost,
                "parameters": msgspec.to_builtins(r.parameters),
            }
            for r in reports.list_reports()
        ],
    }
