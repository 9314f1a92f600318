"""What one seller delivers, once it has won a request: read on to its end, or to where it breaks.

From here on there is no other seller: an answer that breaks off says so, and is never finished
silently by somebody else.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from broker.attempt import Attempt
from broker.wire.neutral import Answer, Event, Failed, Usage


class Delivery:
    """What one seller delivers. Iterate for batches of events; leaving it ends the call."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.seat = attempt.seat
        self.answer: Answer | None = None

    @property
    def failed(self) -> Failed | None:
        """How the answer broke off after it had begun; None while it has not."""
        return self._attempt.failed

    @property
    def usage(self) -> Usage:
        """What is billed, once it has ended."""
        return self._attempt.usage or Usage()

    @property
    def ttft_ms(self) -> float | None:
        """From this seller's call to its first visible output."""
        return self._attempt.meter.ttft_ms

    @property
    def first_ns(self) -> int | None:
        """Monotonic moment of the first visible output."""
        return self._attempt.meter.first_ns

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Event]:
        events = await self._attempt.more()
        if not events:
            raise StopAsyncIteration
        return events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._attempt.hang_up()
