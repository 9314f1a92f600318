"""Each record once, although the log may hold it twice.

A writer sends again what was not acknowledged, and the log may have taken it the first time. The
spool numbers its records and never lets a later one overtake an earlier one of the same partition,
so within a partition one number per writer's start tells: a record whose `seq` is not above the
highest seen from its `boot` is a repeat. (Kafka's idempotent producer does this for the life of one
producer; this also covers restarts of the writer, and logs that refuse idempotence.)

A reader that takes a partition over first looks at the messages just before its beginning, so its
verdicts are those of a reader that was there all along.
"""

from __future__ import annotations

from feeds.records import Written

LOOK_BACK_MESSAGES = 10_000  # a slow send holds some 9,000 records; 30 ms to decode


class Repeats:
    """Highest `seq` per `boot` of one partition; the writers silent longest are forgotten.

    Examples
    --------
    >>> from feeds.control_records import ParamsRecord
    >>> r = ParamsRecord(scope="", version=1, at_us=0, by="", why="", params="", boot="b", seq=7)
    >>> repeats = Repeats()
    >>> repeats.is_repeat(r), repeats.is_repeat(r)
    (False, True)
    """

    def __init__(self, max_writers: int = 4_096) -> None:
        self._highest: dict[str, int] = {}
        self._max_writers = max_writers

    def is_repeat(self, record: Written) -> bool:
        """Whether `record` came before; it counts as seen from now on. Unnumbered ones never do."""
        boot, seq = record.boot, record.seq
        if not boot or not seq:
            return False
        highest = self._highest.pop(boot, 0)
        self._highest[boot] = max(highest, seq)  # and so moves to the end
        if len(self._highest) > self._max_writers:
            del self._highest[next(iter(self._highest))]
        return seq <= highest
