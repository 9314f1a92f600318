"""Times and counts of one answer."""

from __future__ import annotations

import pytest

from broker.meter import Meter
from broker.wire.neutral import (
    Finish,
    Message,
    NeutralRequest,
    Started,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from broker.wire.tokens import estimate_text_tokens

MS = 1_000_000
REQUEST = NeutralRequest(model="m", messages=(Message("user", (Text("hi"),)),))


def test_the_first_token_is_the_first_visible_one() -> None:
    meter = Meter(REQUEST, sent_ns=0)
    meter.observe([Started()], 10 * MS)
    meter.observe([ThinkingDelta("hm"), TextDelta("")], 20 * MS)
    assert meter.ttft_ms is None
    meter.observe([TextDelta("four")], 50 * MS)
    meter.observe([TextDelta(" it is")], 90 * MS)
    meter.observe([Finish("stop")], 500 * MS)
    assert meter.ttft_ms == 50.0
    assert meter.tpot_ms(5) == 10.0
    assert meter.tpot_ms(1) is None


def test_what_follows_the_first_output_is_counted_in_tokens_not_in_events() -> None:
    meter = Meter(REQUEST, sent_ns=0)
    meter.observe([Started(), TextDelta("Well then, "), TextDelta("the answer")], 50 * MS)
    assert meter.n_tokens_since_first() == 0
    meter.observe([TextDelta(TEXT)], 90 * MS)
    n = estimate_text_tokens(TEXT)
    assert meter.n_tokens_since_first() == n > 200
    assert meter.n_tokens_since_first() == n
    meter.observe([TextDelta(TEXT)], 130 * MS)
    assert meter.n_tokens_since_first() == 2 * n


def test_thinking_that_is_shown_is_output() -> None:
    shown = NeutralRequest(model="m", messages=REQUEST.messages, show_thinking=True)
    meter = Meter(shown, sent_ns=0)
    meter.observe([ThinkingDelta("hm")], 20 * MS)
    assert meter.ttft_ms == 20.0


def test_a_tool_call_is_output() -> None:
    meter = Meter(REQUEST, sent_ns=0)
    meter.observe([ToolCallDelta(0, "c", "f")], 20 * MS)
    assert meter.ttft_ms == 20.0
    assert meter.counted_output_tokens() >= 1


TEXT = "The answer to the question is four, as everybody knows. " * 20


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        (Usage(input_tokens=100, output_tokens=250), True),
        (Usage(input_tokens=100, output_tokens=2500), False),
        (Usage(input_tokens=9000, output_tokens=250), False),
        (Usage(input_tokens=100, output_tokens=0), False),
        (Usage(input_tokens=100, output_tokens=2500, reasoning_tokens=2250), True),
        (None, False),
    ],
)
def test_a_bill_is_believed_if_it_is_plausible(told: Usage | None, believed: bool) -> None:
    meter = Meter(REQUEST, sent_ns=0)
    meter.observe([TextDelta(TEXT)], MS)
    if told is not None:
        meter.observe([told], MS)
    usage = meter.usage(100)
    assert usage.estimated is not believed
    if not believed:
        assert usage.input_tokens == 100
        assert 200 < usage.output_tokens < 320
