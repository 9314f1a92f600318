"""An answer spelled out and collected again is the answer."""

from __future__ import annotations

from msgspec import Raw

from broker.wire.neutral import (
    Answer,
    Choice,
    Thinking,
    ToolCall,
    Usage,
    Vector,
    collect,
)
from broker.wire.spelled import events_of


def test_what_is_spelled_out_is_collected_again() -> None:
    answers = [
        Answer(
            choices=(
                Choice(text="42", thinking=(Thinking("hm", "sig"), Thinking("so"))),
                Choice(
                    tool_calls=(ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "g", "")),
                    finish="tool_calls",
                ),
                Choice(refusal="No.", finish="content_filter"),
                Choice(text="ab", logprobs=(Raw(b"{}"), Raw(b"[]")), stop_sequence="x"),
            ),
            usage=Usage(input_tokens=3, output_tokens=4),
            id="a",
            model="m",
        ),
        Answer(choices=(), vectors=(Vector(0, (1.0, 2.0)), Vector(1, (3.0, 4.0)))),
    ]
    for answer in answers:
        assert collect(events_of(answer)) == answer
