"""Records of one partition, gathered until there are enough of them or enough time has passed.

A batch keeps the bytes each record came in beside the decoded record, because history stores the
original JSON, and the first and last offset of everything it read, dead letters included:
that range is its identity (the token of its insert), and the next batch begins after it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from bidding.quote import Position
from feeds.codec import Record
from feeds.kafka import Partition
from feeds.records import DeadRecord


class BatchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch closes at whichever bound comes first. `max_wait_ms` 0: whatever a poll brought."""

    max_records: Annotated[int, Meta(ge=1)] = 10_000
    max_bytes: Annotated[int, Meta(ge=1)] = 8 * 1024 * 1024
    max_wait_ms: Annotated[int, Meta(ge=0)] = 200


class Batch(Struct):
    """Consecutive messages of one partition.

    `records`, `offsets` and `payloads` run in parallel; `dead` holds what could not be read.
    `first_at_us` is the log's own time of the first message, so it is the same at every reading.
    """

    log: str
    partition: Partition
    first_offset: int
    last_offset: int
    first_at_us: int
    records: list[Record] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    dead: list[DeadRecord] = field(default_factory=list)
    n_bytes: int = 0

    def position(self, i: int = -1) -> Position:
        """Where record `i` is on the log; without `i`, the batch's last message."""
        offset = self.last_offset if i < 0 else self.offsets[i]
        return Position(self.log, self.partition.topic, self.partition.partition, offset)


class Batcher:
    """Gathers one partition's messages; `through` makes the first batch end exactly there.

    `through` is how a batch that may have been stored by halves is read again with the same
    borders: no other bound closes it.
    """

    def __init__(
        self, log: str, partition: Partition, settings: BatchSettings, *, through: int | None = None
    ) -> None:
        self._log = log
        self._partition = partition
        self._settings = settings
        self._through = through
        self._batch: Batch | None = None
        self._opened_ns = 0

    @property
    def n_bytes(self) -> int:
        """Bytes gathered and not yet handed on."""
        return 0 if self._batch is None else self._batch.n_bytes

    def add(
        self,
        offset: int,
        at_us: int,
        payload: bytes,
        now_ns: int,
        *,
        record: Record | None = None,
        dead: DeadRecord | None = None,
    ) -> list[Batch]:
        """Take in a message: as a record, as a dead letter, or (neither) as one to pass over.

        Returns
        -------
        list of Batch
            Those it closed: none as a rule, two when it is beyond `through` and large.
        """
        closed = []
        if self._through is not None and offset > self._through:
            # The range's last messages are gone from the log (compacted away).
            closed += self.close()
        batch = self._batch
        if batch is None:
            batch = Batch(self._log, self._partition, offset, offset, at_us)
            self._batch, self._opened_ns = batch, now_ns
        batch.last_offset = offset
        batch.n_bytes += len(payload)
        if record is not None:
            batch.records.append(record)
            batch.offsets.append(offset)
            batch.payloads.append(payload)
        if dead is not None:
            batch.dead.append(dead)
        if self._is_full(batch):
            closed += self.close()
        return closed

    def due(self, now_ns: int) -> list[Batch]:
        """The open batch, if it has waited long enough; else nothing."""
        if self._batch is None or self._through is not None:
            return []
        waited_ns = now_ns - self._opened_ns
        return self.close() if waited_ns >= self._settings.max_wait_ms * 1_000_000 else []

    def _is_full(self, batch: Batch) -> bool:
        if self._through is not None:
            return batch.last_offset >= self._through
        return (
            batch.last_offset - batch.first_offset + 1 >= self._settings.max_records
            or batch.n_bytes >= self._settings.max_bytes
        )

    def close(self) -> list[Batch]:
        """Hand over what is open, whatever its size."""
        self._through = None
        batch, self._batch = self._batch, None
        return [] if batch is None else [batch]
