"""Times an answer and counts its tokens, on the monotonic clock.

The first token is the first *visible* output: headers, roles and keep-alives are not. Time per
token is measured from there, over the tokens that followed. Tokens are counted from the text
as it passes, so that there is a figure when the seller sends none, nonsense, or a figure far
beyond what it wrote.
"""

from __future__ import annotations

from broker.wire.neutral import (
    Event,
    NeutralRequest,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
    Vector,
    is_visible,
)
from broker.wire.tokens import estimate_text_tokens

IMPLAUSIBLE = 3.0
"""A bill more than this factor above our own count is not believed; tokenizers differ by less."""
SLACK_TOKENS = 64


class Meter:
    """Of one attempt. `observe` every batch of events; all times are monotonic ns."""

    __slots__ = (
        "_n_texts_counted",
        "_n_tokens_since_first",
        "_request",
        "_texts",
        "_thinking_chars",
        "_usage",
        "first_ns",
        "last_ns",
        "n_events",
        "sent_ns",
    )

    def __init__(self, request: NeutralRequest, sent_ns: int) -> None:
        self._request = request
        self._texts: list[str] = []
        self._n_texts_counted = self._n_tokens_since_first = 0
        self._thinking_chars = 0
        self._usage: Usage | None = None
        self.sent_ns = sent_ns
        self.first_ns: int | None = None
        self.last_ns = sent_ns
        self.n_events = 0

    def observe(self, events: list[Event], now_ns: int) -> None:
        """Events that came together, at `now_ns`."""
        waiting = self.first_ns is None
        for event in events:
            if isinstance(event, TextDelta | RefusalDelta):
                self._texts.append(event.text)
            elif isinstance(event, ToolCallDelta):
                self._texts.append(event.arguments or event.name or "")
            elif isinstance(event, ThinkingDelta):
                self._thinking_chars += len(event.text)
                if not waiting:
                    self._n_tokens_since_first += estimate_text_tokens(event.text)
            elif isinstance(event, Vector):
                pass
            elif isinstance(event, Usage):
                self._usage = event
                continue
            else:
                continue
            self.n_events += 1
            self.last_ns = now_ns
            if self.first_ns is None and is_visible(event, self._request):
                self.first_ns = now_ns
        if waiting:
            self._n_texts_counted = len(self._texts)

    def n_tokens_since_first(self) -> int:
        """Our own count of the text that came after the first visible output and what came with
        it. Each text is counted once, however often this is asked.
        """
        new = self._texts[self._n_texts_counted :]
        self._n_texts_counted = len(self._texts)
        self._n_tokens_since_first += sum(map(estimate_text_tokens, new))
        return self._n_tokens_since_first

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds from the call to the first visible output; None if none came."""
        return None if self.first_ns is None else (self.first_ns - self.sent_ns) * 1e-6

    def tpot_ms(self, n_output_tokens: int) -> float | None:
        """Milliseconds a token after the first; None with fewer than two."""
        if self.first_ns is None or n_output_tokens < 2:
            return None
        return (self.last_ns - self.first_ns) * 1e-6 / (n_output_tokens - 1)

    def counted_output_tokens(self) -> int:
        """Our own count of what was written, thinking included."""
        return estimate_text_tokens("".join(self._texts)) + self._thinking_chars // 4

    def usage(self, input_tokens: int) -> Usage:
        """What to bill: the seller's figures if they are plausible, else ours, marked so.

        Parameters
        ----------
        input_tokens : int
            Our estimate of the prompt.

        Notes
        -----
        Reasoning that is billed but not shown is the seller's word; it is left out of the
        comparison as far as the seller says how much it was.
        """
        told = self._usage
        counted = self.counted_output_tokens()
        if told is None:
            return Usage(input_tokens=input_tokens, output_tokens=counted, estimated=True)
        shown = told.output_tokens - told.reasoning_tokens
        hidden = told.reasoning_tokens > 0 or self._request.effort is not None
        too_many = not hidden and shown > IMPLAUSIBLE * counted + SLACK_TOKENS
        too_few = counted > IMPLAUSIBLE * told.output_tokens + SLACK_TOKENS
        absurd_input = told.input_tokens > IMPLAUSIBLE * input_tokens + 10 * SLACK_TOKENS
        if too_many or absurd_input or (too_few and told.output_tokens == 0):
            return Usage(input_tokens=input_tokens, output_tokens=counted, estimated=True)
        return told
