"""The messages surface against the real `anthropic` client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidding.errors import BadRequest
from bidding.market import Capability
from broker.wire.anthropic_messages import ANTHROPIC_MESSAGES
from broker.wire.needs import needs
from broker.wire.neutral import (
    Event,
    Finish,
    Image,
    Message,
    NeutralRequest,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
    Usage,
    collect,
)
from broker.wire.surface import ErrorBody, ReplyMeta

META = ReplyMeta(id="msg_1", created_s=1_700_000_000, model="claude-x")
SEEN: list[NeutralRequest] = []
ASK: list[Any] = [{"role": "user", "content": "What is two and two?"}]
TOOL: Any = {
    "name": "weather",
    "description": "now",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def client(events: Sequence[Event], error: ErrorBody | None = None) -> anthropic.Anthropic:
    def handle(http: httpx2.Request) -> httpx2.Response:
        if http.url.path.endswith("/count_tokens"):
            return httpx2.Response(200, content=ANTHROPIC_MESSAGES.count_tokens(http.content))
        request = ANTHROPIC_MESSAGES.decode(http.content)
        SEEN.append(request)
        if error is not None and not request.stream:
            return httpx2.Response(error.status, content=ANTHROPIC_MESSAGES.error(error))
        if not request.stream:
            return httpx2.Response(
                200, content=ANTHROPIC_MESSAGES.reply(request, collect(events), META)
            )
        stream = ANTHROPIC_MESSAGES.stream(request, META)
        body = stream.start() + b"".join(stream.event(e) for e in events)
        body += stream.end() if error is None else stream.error(error)
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    return anthropic.Anthropic(
        api_key="k",
        base_url="http://broker.test",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )


EVERYTHING: list[Event] = [
    ThinkingDelta("hm, "),
    ThinkingDelta("two"),
    ThinkingDelta(signature="sig"),
    TextDelta("Let me "),
    TextDelta("look.\n四"),
    ToolCallDelta(0, "toolu_1", "weather", ""),
    ToolCallDelta(0, arguments='{"city":'),
    ToolCallDelta(0, arguments='"Rome"}'),
    ToolCallDelta(1, "toolu_2", "weather", "{}"),
    Finish("tool_calls"),
    Usage(input_tokens=100, output_tokens=30, cached_tokens=60, written_tokens=10),
]
BLOCKS = [
    ("thinking", "hm, two", "sig"),
    ("text", "Let me look.\n四"),
    ("tool_use", "toolu_1", {"city": "Rome"}),
    ("tool_use", "toolu_2", {}),
]


def blocks(message: anthropic.types.Message) -> list[tuple[Any, ...]]:
    out: list[tuple[Any, ...]] = []
    for block in message.content:
        if block.type == "thinking":
            out.append(("thinking", block.thinking, block.signature))
        elif block.type == "text":
            out.append(("text", block.text))
        elif block.type == "tool_use":
            out.append(("tool_use", block.id, block.input))
    return out


THINK: Any = {"type": "enabled", "budget_tokens": 2000}


def test_a_whole_message_as_the_client_reads_it() -> None:
    message = client(EVERYTHING).messages.create(
        model="market", max_tokens=3000, messages=ASK, tools=[TOOL], thinking=THINK
    )
    assert blocks(message) == BLOCKS
    assert message.stop_reason == "tool_use"
    assert message.usage.input_tokens == 30
    assert message.usage.cache_read_input_tokens == 60
    assert message.usage.output_tokens == 30


def test_a_streamed_message_adds_up_to_the_same() -> None:
    with client(EVERYTHING).messages.stream(
        model="market", max_tokens=3000, messages=ASK, tools=[TOOL], thinking=THINK
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "Let me look.\n四"
    assert blocks(message) == BLOCKS
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens == 30
    assert message.usage.input_tokens == 30


def test_thinking_that_was_not_asked_for_is_not_shown() -> None:
    with client(EVERYTHING).messages.stream(model="m", max_tokens=9, messages=ASK) as stream:
        assert blocks(stream.get_final_message()) == BLOCKS[1:]


def test_stop_sequence_and_refusal() -> None:
    events: list[Event] = [TextDelta("a"), Finish("stop", 0, "END")]
    message = client(events).messages.create(model="m", max_tokens=9, messages=ASK)
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    events = [TextDelta("a"), Finish("content_filter")]
    with client(events).messages.stream(model="m", max_tokens=9, messages=ASK) as stream:
        assert stream.get_final_message().stop_reason == "refusal"


def test_tokens_are_counted() -> None:
    counted = client([]).messages.count_tokens(model="m", messages=ASK, system="Be brief.")
    assert 10 < counted.input_tokens < 40


def test_errors_are_raised_by_the_client_as_its_own() -> None:
    error = ErrorBody(status=429, kind="rate_limit_error", message="slow down")
    with pytest.raises(anthropic.RateLimitError, match="slow down"):
        client([], error).messages.create(model="m", max_tokens=9, messages=ASK)
    gone = ErrorBody(status=503, kind="server_error", message="gone")
    stream = client(EVERYTHING[3:5], gone).messages.create(
        model="m", max_tokens=9, messages=ASK, stream=True
    )
    with pytest.raises(anthropic.APIStatusError, match="gone"):
        list(stream)


def test_the_whole_conversation_survives_translation() -> None:
    body = {
        "model": "market",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Rules", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://x.test/a"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "42", "is_error": True},
                    {"type": "text", "text": "and?"},
                ],
            },
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "thinking": {"type": "adaptive"},
        "stop_sequences": ["X"],
        "metadata": {"user_id": "u"},
        "sla": {"quality": 0.9},
    }
    request = ANTHROPIC_MESSAGES.decode(json.dumps(body).encode())
    assert request.messages == (
        Message("system", (Text("Rules", cache=True),)),
        Message(
            "user", (Image(media_type="image/png", data="QUJD"), Image(url="https://x.test/a"))
        ),
        Message("assistant", (Thinking("hm", "s"), ToolCall("t1", "f", '{"a": 1}'))),
        Message("tool", (ToolResult("t1", (Text("42"),), is_error=True),)),
        Message("user", (Text("and?"),)),
    )
    assert request.tool_choice == ToolChoice("named", "weather")
    assert request.parallel_tool_calls is False
    assert request.effort == "medium"
    assert request.show_thinking
    assert Capability.REASONING in needs(request)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_token": 5}, "max_token"),
        ({"temperature": 1.5}, "temperature"),
        ({"sla": {"qualty": 1}}, "sla.qualty"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, None),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_result", "tool_use_id": "x"}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], path: str | None) -> None:
    body = {"model": "m", "max_tokens": 5, "messages": ASK, **change}
    with pytest.raises(BadRequest) as caught:
        ANTHROPIC_MESSAGES.decode(json.dumps(body).encode())
    assert path is None or caught.value.path == path


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_text_cannot_break_out_of_its_event(texts: list[str]) -> None:
    request = NeutralRequest(model="m", messages=(Message("user", (Text("x"),)),))
    stream = ANTHROPIC_MESSAGES.stream(request, META)
    body = b"".join(stream.event(TextDelta(t)) for t in texts)
    datas = [json.loads(x[6:]) for x in body.split(b"\n") if x.startswith(b"data: ")]
    shown = [d["delta"]["text"] for d in datas if d["type"] == "content_block_delta"]
    assert shown == [t for t in texts if t]
