"""Calls that were not ours, as others tell of them: `POST /v1/telemetry`, NDJSON in, records out.

Sellers, other gateways and apps push what their own calls delivered. A line becomes an attempt of
source `pushed`, marked with who pushed it and what its word weighs; what that may move is the
estimators' business (`bidding/trust.py`). A line that cannot be used becomes a dead letter with
its reason and the rest is kept. Bodies are worked through in pieces of some hundred lines, so
that requests served by the same worker do not wait for a large one; they are decoded a piece at
a time, and line by line only where a piece holds a bad one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from bidding.errors import MarketError
from bidding.market import Catalogue
from bidding.outcome import FailureClass
from broker.auth import Caller
from broker.error_answers import body_for
from broker.errors import Shed
from broker.journal import Journal
from broker.offer_names import OfferNames
from broker.wire.json_guard import decode_strictly
from feeds.clock import Clock
from feeds.records import AttemptRecord
from feeds.told import TelemetryLine, Told

ROUTE: Final = "http:/v1/telemetry"
PIECE_BYTES: Final = 32 * 1024
MAX_WAITING: Final = 30_000
"""Pushed events owed to the log beyond which no more are taken."""
MAX_AGE_US: Final = 3_600 * 10**6
MAX_AHEAD_US: Final = 60 * 10**6
_MAX_DEAD: Final = 100
_MAX_TOLD: Final = 20
PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.01


class Pushed(Struct, kw_only=True):
    """What became of a body. `errors` tells of the first refused lines only."""

    accepted: int = 0
    refused: int = 0
    errors: list[dict[str, Any]] = []


_decoder = msgspec.json.Decoder(TelemetryLine)


class Intake:
    """Takes pushed bodies in, for one worker."""

    def __init__(self, catalogue: Catalogue, journal: Journal, clock: Clock) -> None:
        self._names = OfferNames(catalogue)
        self._sold = self._names.sold
        self._journal = journal
        self._clock = clock
        self._boot = secrets.token_hex(8)
        self._n = 0

    async def take(self, body: bytes, caller: Caller) -> Pushed:
        """Take in the lines of a body.

        Raises
        ------
        Shed
            So much is owed to the log already that none of it could be taken.
        """
        told = Pushed(errors=[])
        n_lines = 0
        for piece in pieces(body):
            if not await self._room():
                if not told.accepted:
                    raise Shed("the log is behind with pushed telemetry", retry_after_s=2.0)
                n_left = sum(1 for line in body.splitlines() if line.strip()) - n_lines
                told.refused += n_left
                told.errors.append({"line": n_lines, "message": "the log is behind; send again"})
                break
            n_lines += self._piece(piece, caller, told, n_lines)
            await asyncio.sleep(0)
        self._journal.told_by(source_of(caller), told.accepted, told.refused)
        return told

    async def take_told(self, told: Told, caller: Caller) -> tuple[int, str]:
        """Take in calls read out of another format; how many were refused, and why the last was.

        Raises
        ------
        Shed
            So much is owed to the log already that none of it could be taken.
        """
        if not await self._room():
            raise Shed("the log is behind with pushed telemetry", retry_after_s=2.0)
        now_us, source = self._clock.now_us(), source_of(caller)
        n_refused, why = 0, ""
        for i, line in enumerate(told.lines):
            fault = self.accept(line, caller, source, now_us)
            if fault:
                n_refused, why = n_refused + 1, fault
                if n_refused <= _MAX_DEAD:
                    self._journal.dead(ROUTE, msgspec.json.encode(line), fault)
            if i % 256 == 255:
                await asyncio.sleep(0)
        n_taken = len(told.lines) - n_refused
        self._journal.told_by(source, n_taken, n_refused + told.n_rejected)
        return n_refused, why

    def accept(self, line: TelemetryLine, caller: Caller, source: str, now_us: int) -> str:
        """Write a call down; or say why it cannot be used."""
        offer = line.offer
        sold = self._sold.get(offer)
        if sold is None:
            found = None if offer else self._names.find(line.provider, line.model)
            if found is None:
                meant = offer or f"{line.provider}/{line.model}"
                return f"offer {meant[:80]!r} is not in the catalogue"
            offer, sold = found, self._sold[found]
        at_us = now_us if line.at_us is None else line.at_us
        if not -MAX_AGE_US <= at_us - now_us <= MAX_AHEAD_US:
            return f"at_us {at_us} is more than an hour ago or a minute ahead"
        took_ms = line.latency_ms if line.latency_ms is not None else line.waited_ms or 0.0
        self._n += 1
        self._journal.pushed(
            AttemptRecord(
                attempt_id=f"push-{self._boot}-{self._n}",
                decision_id="",
                n=1,
                offer=offer,
                provider=sold[0],
                model=sold[1],
                task=line.task,
                tenant=caller.tenant,
                sla_class="",
                source="pushed",
                at_us=at_us,
                started_at_us=max(at_us - round(took_ms * 1e3), 0),
                failure=line.error,
                streaming=line.streaming,
                ttft_ms=line.ttft_ms,
                total_ms=line.latency_ms if line.error is FailureClass.OK else None,
                waited_ms=line.waited_ms,
                input_tokens=line.input_tokens,
                output_tokens=line.output_tokens,
                cached_tokens=line.cached_tokens,
                http_status=line.http_status,
                trust=caller.policy.trust,
                pusher=source,
            )
        )
        return ""

    def _piece(self, piece: bytes, caller: Caller, told: Pushed, first: int) -> int:
        """Take in a piece of a body; how many lines it held."""
        now_us, source = self._clock.now_us(), source_of(caller)
        lines = [line for line in piece.split(b"\n") if line.strip()]
        try:
            decoded = _decoder.decode_lines(piece)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            decoded = []
        if len(decoded) != len(lines):
            return self._one_by_one(lines, caller, told, first, now_us)
        for i, line in enumerate(decoded):
            fault = self.accept(line, caller, source, now_us)
            if fault:
                self._refuse(told, first + i, lines[i], fault)
            else:
                told.accepted += 1
        return len(lines)

    def _one_by_one(
        self, lines: list[bytes], caller: Caller, told: Pushed, first: int, now_us: int
    ) -> int:
        source = source_of(caller)
        for i, raw in enumerate(lines):
            try:
                line = decode_strictly(raw, _decoder, TelemetryLine.__struct_fields__)
            except MarketError as error:
                self._refuse(told, first + i, raw, str(error), body_for(error)["error"])
                continue
            fault = self.accept(line, caller, source, now_us)
            if fault:
                self._refuse(told, first + i, raw, fault)
            else:
                told.accepted += 1
        return len(lines)

    def _refuse(
        self, told: Pushed, i: int, line: bytes, fault: str, error: dict[str, Any] | None = None
    ) -> None:
        told.refused += 1
        if len(told.errors) < _MAX_TOLD:
            told.errors.append({"line": i, **(error or {"message": fault})})
        if told.refused <= _MAX_DEAD:
            self._journal.dead(ROUTE, line, fault)
        elif told.refused == _MAX_DEAD + 1:
            self._journal.dead(ROUTE, b"", f"more than {_MAX_DEAD} bad lines in one body")

    async def _room(self) -> bool:
        """Wait until the log has caught up with what was pushed; False if that takes too long."""
        waited_s = 0.0
        while self._journal.n_pushed_waiting > MAX_WAITING:
            if waited_s >= PATIENCE_S:
                return False
            await asyncio.sleep(_PAUSE_S)
            waited_s += _PAUSE_S
        return True


def source_of(caller: Caller) -> str:
    """Under which name a caller's telemetry is known."""
    return caller.policy.source or caller.tenant


def pieces(body: bytes) -> Iterator[bytes]:
    """A body in pieces of whole lines, each `PIECE_BYTES` or one line long.

    Examples
    --------
    >>> b"".join(pieces(b"{}\\n{}\\n"))
    b'{}\\n{}\\n'
    """
    start, end = 0, len(body)
    while start < end:
        stop = min(start + PIECE_BYTES, end)
        if stop < end:
            cut = body.rfind(b"\n", start, stop)
            if cut < 0:
                cut = body.find(b"\n", stop)
            stop = end if cut < 0 else cut + 1
        yield body[start:stop]
        start = stop
