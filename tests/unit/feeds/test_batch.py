"""Batches: their borders, their ranges, and the batch that must end exactly where it did before."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.batch import Batch, Batcher, BatchSettings
from feeds.dead_letter import dead_record
from feeds.kafka import Partition
from tests.fakes.log_rig import feedback

P = Partition("market.feedback", 3)
RECORD = feedback(1)
MS = 1_000_000


def batcher(through: int | None = None, **bounds: int) -> Batcher:
    return Batcher("log", P, BatchSettings(**bounds), through=through)


def add(to: Batcher, offset: int, *, n_bytes: int = 10, now_ns: int = 0) -> list[Batch]:
    return to.add(offset, offset * 1_000, b"x" * n_bytes, now_ns, record=RECORD)


def test_closes_by_count() -> None:
    gathering = batcher(max_records=3)
    assert [add(gathering, o) for o in (5, 6)] == [[], []]
    (batch,) = add(gathering, 7)
    assert (batch.first_offset, batch.last_offset, batch.offsets) == (5, 7, [5, 6, 7])
    assert batch.payloads == [b"x" * 10] * 3
    assert batch.n_bytes == 30
    assert batch.first_at_us == 5_000
    assert gathering.n_bytes == 0


def test_closes_by_bytes() -> None:
    gathering = batcher(max_bytes=25)
    assert [len(add(gathering, o)) for o in range(6)] == [0, 0, 1, 0, 0, 1]


def test_closes_by_time_since_its_first_message() -> None:
    gathering = batcher(max_wait_ms=200)
    add(gathering, 1, now_ns=1_000 * MS)
    add(gathering, 2, now_ns=1_150 * MS)
    assert gathering.due(1_199 * MS) == []
    (batch,) = gathering.due(1_200 * MS)
    assert batch.last_offset == 2
    assert gathering.due(9_999 * MS) == []


def test_what_is_not_stored_still_belongs_to_the_range() -> None:
    gathering = batcher(max_records=3)
    add(gathering, 1)
    dead = dead_record(P, 2, b"?", "unreadable", 0)
    gathering.add(2, 0, b"?", 0, dead=dead)
    (batch,) = gathering.add(3, 0, b"", 0)
    assert (batch.first_offset, batch.last_offset) == (1, 3)
    assert batch.offsets == [1]
    assert batch.dead == [dead]


def test_positions() -> None:
    gathering = batcher(max_records=2)
    add(gathering, 8)
    (batch,) = add(gathering, 9)
    assert batch.position(0).offset == 8
    assert (batch.position().log, batch.position().partition, batch.position().offset) == (
        "log",
        3,
        9,
    )


def test_the_first_batch_ends_at_through_whatever_the_bounds() -> None:
    gathering = batcher(through=12, max_records=2, max_bytes=1, max_wait_ms=0)
    for offset in range(10, 12):
        assert add(gathering, offset) == []
    assert gathering.due(10**12) == []
    (batch,) = add(gathering, 12)
    assert (batch.first_offset, batch.last_offset) == (10, 12)
    (after,) = add(gathering, 13)
    assert (after.first_offset, after.last_offset) == (13, 13)


def test_through_may_be_gone_from_a_compacted_log() -> None:
    gathering = batcher(through=12, max_records=1)
    assert add(gathering, 10) == []
    before, after = add(gathering, 20)
    assert (before.first_offset, before.last_offset) == (10, 10)
    assert (after.first_offset, after.last_offset) == (20, 20)


@given(
    sizes=st.lists(st.integers(0, 50), max_size=60),
    gaps=st.lists(st.integers(1, 3), min_size=60, max_size=60),
    max_records=st.integers(1, 9),
    max_bytes=st.integers(1, 120),
    through=st.none() | st.integers(0, 100),
)
def test_no_message_is_lost_doubled_or_moved(
    sizes: list[int], gaps: list[int], max_records: int, max_bytes: int, through: int | None
) -> None:
    gathering = batcher(through, max_records=max_records, max_bytes=max_bytes)
    offset, offsets, batches = 0, [], []
    for size, gap in zip(sizes, gaps, strict=False):
        offset += gap
        offsets.append(offset)
        batches += add(gathering, offset, n_bytes=size)
    batches += gathering.close()
    assert [o for b in batches for o in b.offsets] == offsets
    for batch in batches:
        assert batch.first_offset == batch.offsets[0]
        assert batch.last_offset == batch.offsets[-1]
    for batch in batches[1:]:
        assert len(batch.offsets) <= max_records
    assert all(a.last_offset < b.first_offset for a, b in pairwise(batches))


def test_settings_refuse_an_unknown_key() -> None:
    with pytest.raises(TypeError):
        BatchSettings(max_recrods=1)
