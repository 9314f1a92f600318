"""What cannot be read: kept with its reason, unless there is so much of it that we are the fault.

Without that limit a faulty release would drain whole topics into `market.dead` and call it
success. Two rules (arroyo's, with its two bugs avoided): more than a share of the last minute's
messages of a topic, judged only once there are enough of them, so that a first bad message is not
100 %; and a run of bad ones in one partition, whatever the share.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

from msgspec import Meta, Struct

from feeds.clock import Clock
from feeds.errors import TooManyBad
from feeds.kafka import Partition
from feeds.records import DeadRecord

_BUCKET_NS = 1_000_000_000
MAX_PAYLOAD_BYTES = 256 * 1024


class DeadLetterSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Past these limits reading stops. A share is judged from `min_messages` in its window on."""

    max_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.2
    window_s: Annotated[int, Meta(ge=1)] = 60
    min_messages: Annotated[int, Meta(ge=1)] = 100
    max_in_a_row: Annotated[int, Meta(ge=1)] = 1_000


def dead_record(
    partition: Partition, offset: int, payload: bytes, reason: str, at_us: int
) -> DeadRecord:
    """The dead letter for a message; of a very long one only the beginning is kept."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        reason = f"{reason} (first {MAX_PAYLOAD_BYTES} of {len(payload)} bytes kept)"
        payload = payload[:MAX_PAYLOAD_BYTES]
    return DeadRecord(
        at_us=at_us,
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        reason=reason[:1_000],
        payload=payload,
    )


class DeadLetters:
    """Makes dead letters and judges their share.

    Parameters
    ----------
    settings : DeadLetterSettings
    clock : wall time stamps letters, monotonic time moves the window

    Attributes
    ----------
    n_dead : letters made so far
    """

    def __init__(self, settings: DeadLetterSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._runs: dict[Partition, int] = {}
        self.n_dead = 0

    def good(self, partition: Partition, n: int = 1) -> None:
        """`n` messages of a partition were readable; none at all end no run of bad ones."""
        if not n:
            return
        self._runs[partition] = 0
        self._window(partition.topic).add(self._clock.monotonic_ns(), n, 0)

    def bad(self, partition: Partition, offset: int, payload: bytes, reason: str) -> DeadRecord:
        """The letter for an unreadable message.

        Raises
        ------
        TooManyBad
            The limits are passed; nothing more should be read, or committed, before someone looks.
        """
        settings = self._settings
        run = self._runs[partition] = self._runs.get(partition, 0) + 1
        if run >= settings.max_in_a_row:
            raise TooManyBad(f"{partition.topic}/{partition.partition}: {run} in a row; {reason}")
        window = self._window(partition.topic)
        window.add(self._clock.monotonic_ns(), 0, 1)
        n_all = window.n_good + window.n_bad
        if n_all >= settings.min_messages and window.n_bad > settings.max_share * n_all:
            raise TooManyBad(
                f"{partition.topic}: {window.n_bad} of {n_all} in {settings.window_s} s,"
                f" more than {settings.max_share:.0%}; {reason}"
            )
        self.n_dead += 1
        return dead_record(partition, offset, payload, reason, self._clock.now_us())

    def forget(self, partition: Partition) -> None:
        """The partition is no longer ours; its run of bad messages goes with it."""
        self._runs.pop(partition, None)

    def _window(self, topic: str) -> _Window:
        window = self._windows.get(topic)
        if window is None:
            window = self._windows[topic] = _Window(self._settings.window_s)
        return window


class _Window:
    """Good and bad counts of the last `window_s` seconds, in buckets of one second."""

    def __init__(self, window_s: int) -> None:
        self._length = window_s
        self._buckets: deque[tuple[int, int, int]] = deque()
        self.n_good = 0
        self.n_bad = 0

    def add(self, now_ns: int, n_good: int, n_bad: int) -> None:
        bucket = now_ns // _BUCKET_NS
        while self._buckets and self._buckets[0][0] <= bucket - self._length:
            _, good, bad = self._buckets.popleft()
            self.n_good -= good
            self.n_bad -= bad
        if self._buckets and self._buckets[-1][0] == bucket:
            _, good, bad = self._buckets.pop()
            self._buckets.append((bucket, good + n_good, bad + n_bad))
        else:
            self._buckets.append((bucket, n_good, n_bad))
        self.n_good += n_good
        self.n_bad += n_bad
