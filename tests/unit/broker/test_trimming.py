"""Conversations shortened from their oldest turn, whole turns at a time."""

from __future__ import annotations

from broker.trimming import trimmed
from broker.wire.neutral import Message, NeutralRequest, Text, ToolCall, ToolResult
from broker.wire.tokens import estimate_tokens

WORDS = "A long sentence about flour, mills, rivers and bread. " * 20
SYSTEM = Message("system", (Text("Be brief."),))


def turn(n: int) -> tuple[Message, ...]:
    return (
        Message("user", (Text(f"{n} {WORDS}"),)),
        Message("assistant", (ToolCall(f"c{n}", "look", "{}"),)),
        Message("tool", (ToolResult(f"c{n}", (Text("found"),)),)),
        Message("assistant", (Text(f"Done {n}. {WORDS}"),)),
    )


LAST = Message("user", (Text("And now?"),))
REQUEST = NeutralRequest(model="market", messages=(SYSTEM, *turn(0), *turn(1), *turn(2), LAST))


def test_whole_turns_go_the_oldest_first_and_no_more_than_it_takes() -> None:
    whole = estimate_tokens(REQUEST)
    assert trimmed(REQUEST, whole) is None
    one = trimmed(REQUEST, whole - 1)
    assert one is not None
    assert one.request.messages == (SYSTEM, *turn(1), *turn(2), LAST)
    assert (one.n_messages, one.n_tokens) == (4, whole - estimate_tokens(one.request))
    all_but_last = trimmed(REQUEST, 40)
    assert all_but_last is not None
    assert all_but_last.request.messages == (SYSTEM, LAST)
    assert all_but_last.n_messages == 12
    for cut in (one, all_but_last):
        calls = {p.id for m in cut.request.messages for p in m.parts if isinstance(p, ToolCall)}
        results = {
            p.call_id for m in cut.request.messages for p in m.parts if isinstance(p, ToolResult)
        }
        assert calls == results


def test_what_cannot_be_made_to_fit_is_left() -> None:
    assert trimmed(REQUEST, 3) is None
    alone = NeutralRequest(model="market", messages=(SYSTEM, Message("user", (Text(WORDS),))))
    assert trimmed(alone, 50) is None
    headless = NeutralRequest(model="market", messages=(Message("assistant", (Text(WORDS),)), LAST))
    cut = trimmed(headless, 20)
    assert cut is not None
    assert cut.request.messages == (LAST,)
