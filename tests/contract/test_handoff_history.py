"""Reasoning that another family of models sealed is not shown to a seller that cannot read it."""

from __future__ import annotations

import contextlib

import msgspec
import pytest

from bidding.errors import MarketError
from bidding.market import Model
from broker.wire.neutral import Message, Text, Thinking
from tests.fakes.dispatching import market
from tests.fakes.scripted_seller import ScriptedSeller, streams

CLAUDE = Model(id="m", family="claude", context_window=100_000, max_output_tokens=4_096)
HISTORY = (
    Message("user", (Text("Think."),)),
    Message("assistant", (Thinking("hm", signature="sealed"), Text("Thought."))),
    Message("user", (Text("Go on."),)),
)


@pytest.mark.parametrize(
    ("family", "shown"), [("claude", True), (None, True), ("gpt", False), ("gemini", False)]
)
async def test_sealed_reasoning_goes_to_its_own_family_alone(
    family: str | None, shown: bool
) -> None:
    seller = ScriptedSeller(streams(["4"]))
    async with market(seller, wires=("anthropic",)) as m:
        m.seats = {o: msgspec.structs.replace(s, model=CLAUDE) for o, s in m.seats.items()}
        m.dispatcher._seats = m.seats.get
        order = m.order(max_output_tokens=9)
        order.request.messages = HISTORY
        order.history_family = family
        with contextlib.suppress(MarketError):  # what it answers is not Anthropic's format
            await m.dispatcher.run(order)
    sent = msgspec.json.encode(seller.calls[0]["body"]["messages"]).decode()
    assert ("sealed" in sent) == shown
    assert "Thought." in sent
