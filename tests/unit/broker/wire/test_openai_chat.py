"""The chat surface against the real `openai` client, and against bodies no client would send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from bidding.errors import BadRequest
from bidding.market import Capability
from broker.wire.json_guard import json_depth
from broker.wire.needs import needs
from broker.wire.neutral import (
    Choice,
    Event,
    Finish,
    Image,
    NeutralRequest,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
    Usage,
    collect,
)
from broker.wire.openai_chat import OPENAI_CHAT
from broker.wire.surface import ErrorBody, ReplyMeta

META = ReplyMeta(id="chatcmpl-1", created_s=1_700_000_000, model="gpt-x")
SEEN: list[NeutralRequest] = []
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "now",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def client(events: Sequence[Event], error: ErrorBody | None = None) -> openai.OpenAI:
    """The real client against the surface, without sockets."""

    def handle(http: httpx2.Request) -> httpx2.Response:
        request = OPENAI_CHAT.decode(http.content)
        SEEN.append(request)
        if not request.stream:
            return httpx2.Response(200, content=OPENAI_CHAT.reply(request, collect(events), META))
        stream = OPENAI_CHAT.stream(request, META)
        body = stream.start() + b"".join(stream.event(e) for e in events)
        body += stream.end() if error is None else stream.error(error)
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    return openai.OpenAI(
        api_key="k",
        base_url="http://broker.test/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )


TEXT: list[Event] = [
    Started("x", "m"),
    TextDelta("Four"),
    TextDelta(', "really" 四\n'),
    Finish("stop"),
    Usage(input_tokens=9, output_tokens=4, cached_tokens=3, reasoning_tokens=1),
]
CALLS: list[Event] = [
    ToolCallDelta(0, "call_1", "weather", ""),
    ToolCallDelta(0, arguments='{"city":'),
    ToolCallDelta(0, arguments='"Rome"}'),
    ToolCallDelta(1, "call_2", "weather", '{"city":"Oslo"}'),
    Finish("tool_calls"),
    Usage(input_tokens=9, output_tokens=4),
]
ASK: list[Any] = [{"role": "user", "content": "What is two and two?"}]


def test_a_whole_answer_as_the_client_reads_it() -> None:
    reply = client(TEXT).chat.completions.create(model="market", messages=ASK)
    assert reply.choices[0].message.content == 'Four, "really" 四\n'
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == "gpt-x"
    assert reply.usage is not None
    assert reply.usage.total_tokens == 13
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 3
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == 1


def test_a_stream_as_the_client_reads_it() -> None:
    chunks = list(
        client(TEXT).chat.completions.create(
            model="market", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == 'Four, "really" 四\n'
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert all(c.usage is None for c in chunks[:-1])


def test_a_stream_without_usage_asked_for_has_none() -> None:
    chunks = list(client(TEXT).chat.completions.create(model="market", messages=ASK, stream=True))
    assert all(c.choices for c in chunks)


def test_tool_calls_whole_and_streamed() -> None:
    make = client(CALLS).chat.completions.create
    whole = make(model="market", messages=ASK, tools=[TOOL])
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert [(c.id, c.function.arguments) for c in calls if c.type == "function"] == [
        ("call_1", '{"city":"Rome"}'),
        ("call_2", '{"city":"Oslo"}'),
    ]
    assert whole.choices[0].message.content is None
    with client(CALLS).chat.completions.stream(
        model="market",
        messages=ASK,
        tools=[TOOL],
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls
    assert streamed is not None
    assert [c.function.arguments for c in streamed] == ['{"city":"Rome"}', '{"city":"Oslo"}']


def test_structured_output_is_parsed_by_the_client() -> None:
    class Sum(pydantic.BaseModel):
        total: int

    events: list[Event] = [TextDelta('{"total": 4}'), Finish("stop")]
    reply = client(events).chat.completions.parse(model="market", messages=ASK, response_format=Sum)
    assert reply.choices[0].message.parsed == Sum(total=4)
    fmt = SEEN[-1].response_format
    assert fmt is not None
    assert fmt.kind == "json_schema"
    assert fmt.schema is not None
    assert json.loads(bytes(fmt.schema))["required"] == ["total"]
    assert Capability.JSON_SCHEMA in needs(SEEN[-1])


def test_an_error_in_mid_stream_is_raised_by_the_client() -> None:
    error = ErrorBody(status=503, kind="server_error", message="gone", code="sellers_failed")
    stream = client(TEXT[:2], error).chat.completions.create(
        model="market", messages=ASK, stream=True
    )
    with pytest.raises(openai.APIError, match="gone") as caught:
        list(stream)
    assert caught.value.code == "sellers_failed"


def test_refusals_thinking_and_several_choices() -> None:
    events: list[Event] = [
        ThinkingDelta("hm"),
        RefusalDelta("I will not"),
        Finish("stop"),
        TextDelta("yes", 1),
        Finish("length", 1),
    ]
    reply = client(events).chat.completions.create(model="m", messages=ASK, n=2)
    first, second = reply.choices
    assert (first.message.refusal, first.message.content) == ("I will not", None)
    assert first.message.model_extra == {"reasoning_content": "hm"}
    assert (second.message.content, second.finish_reason) == ("yes", "length")


def test_the_whole_conversation_survives_translation() -> None:
    body = {
        "model": "market:math",
        "models": ["a", "b/c@eu"],
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                    {
                        "type": "image_url",
                        "image_url": {"url": "https://x.test/a", "detail": "low"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
                "annotations": [],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "max_tokens": 7,
        "stop": "END",
        "seed": 1,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "low",
        "metadata": {"a": "b"},
        "user": "u",
        "sla": {"quality": 0.9, "compliance": {"regions": ["eu"]}},
    }
    request = OPENAI_CHAT.decode(json.dumps(body).encode())
    system, user, assistant, tool = request.messages
    assert (system.role, system.parts) == ("system", (Text("Be brief."),))
    assert user.name == "ann"
    assert user.parts == (
        Text("Look", cache=True),
        Image(media_type="image/png", data="QUJD"),
        Image(url="https://x.test/a", detail="low"),
    )
    assert assistant.parts == (ToolCall("c1", "f", "{}"),)
    assert tool.parts == (ToolResult("c1", (Text("42"),)),)
    assert request.tool_choice == ToolChoice("named", "weather")
    assert request.stop == ("END",)
    assert request.models == ("a", "b/c@eu")
    assert request.sla is not None
    assert list(request.sla.compliance.regions) == ["eu"]
    wanted = needs(request)
    for bit in ("TOOLS", "VISION", "LOGPROBS", "N_CHOICES", "SEED", "REASONING"):
        assert Capability[bit] in wanted


def broken(**change: Any) -> bytes:
    return json.dumps({"model": "market", "messages": ASK, **change}).encode()


@pytest.mark.parametrize(
    ("body", "path", "word"),
    [
        (broken(sla={"qualty": 0.9}), "sla.qualty", "quality"),
        (broken(sla={"quality": "high"}), "sla.quality", "float"),
        (broken(sla={"quality": 2}), "sla.quality", "1.0"),
        (broken(sla={"compliance": {"regoins": []}}), "sla.compliance.regoins", "regions"),
        (broken(temprature=1), "temprature", "temperature"),
        (broken(temperature=9), "temperature", "2.0"),
        (broken(messages=[]), "messages", "1"),
        (broken(messages=[{"role": "bard", "content": "x"}]), "messages[0].role", "bard"),
        (broken(messages=[{"role": "user"}]), "messages[0].content", "add"),
        (broken(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id", "id"),
        (
            broken(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]),
            "messages[0].content[0]",
            "text",
        ),
        (
            broken(
                messages=[
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}],
                    }
                ]
            ),
            "messages[0].content[0].image_url.url",
            "https",
        ),
        (broken(audio={"voice": "x"}), "audio", "text"),
        (broken(functions=[]), "functions", "tools"),
        (broken(store=True), "store", "false"),
        (broken(service_tier="priority"), "service_tier", "offers"),
        (broken(modalities=["audio"]), "modalities", "text"),
        (broken(top_logprobs=3), "top_logprobs", "logprobs"),
        (broken(tool_choice="auto"), "tool_choice", "tools"),
        (broken(stop=list("abcde")), "stop", "4"),
        (json.dumps({"messages": ASK}).encode(), "model", "add"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(body: bytes, path: str, word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        OPENAI_CHAT.decode(body)
    assert caught.value.path == path
    assert word in f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'{"model":"m","messages":' + b"[" * 100_000,
        b'{"model":"m","x":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}",
        b'{"model":"\xff","messages":[]}',
        broken(temperature=0)[:-1],
        broken()[:-1] + b',"seed":' + b"9" * 4000 + b"}",
        broken()[:-1] + b',"temperature":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
    ],
)
def test_bodies_no_client_would_send_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        OPENAI_CHAT.decode(body)


def test_depth_is_measured_outside_strings_and_cannot_be_made_slow() -> None:
    assert json_depth(b'{"a":"[[[\\"[[","b":[{}]}') == 3
    assert json_depth(b'"' + b'\\"' * 500_000) == 0


def refused_or_read(body: bytes) -> NeutralRequest | None:
    """The request, or None where it was refused; any other error is the test's failure."""
    try:
        return OPENAI_CHAT.decode(body)
    except BadRequest:
        return None


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    request = refused_or_read(body)
    assert request is None or request.messages


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "name", "function", "quality", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(sorted(OPENAI_CHAT.decode(broken()).__struct_fields__)), _JSON)
)
def test_any_json_is_refused_or_read(change: dict[str, Any]) -> None:
    request = refused_or_read(broken(**change))
    assert request is None or request.messages


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_text_cannot_break_out_of_its_event(texts: list[str]) -> None:
    request = OPENAI_CHAT.decode(broken(stream=True))
    stream = OPENAI_CHAT.stream(request, META)
    body = b"".join(stream.event(TextDelta(t)) for t in texts)
    assert body.count(b"\n\n") == len(texts)
    lines = [line for line in body.split(b"\n") if line]
    assert [json.loads(x[6:])["choices"][0]["delta"]["content"] for x in lines] == texts


def test_logprobs_pass_through() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    raw = Raw(json.dumps({"content": [token], "refusal": None}).encode())
    events: list[Event] = [TextDelta("a", 0, raw), TextDelta("b", 0, raw), Finish("stop")]
    whole = client(events).chat.completions.create(model="m", messages=ASK, logprobs=True)
    assert whole.choices[0].logprobs is not None
    assert [t.token for t in whole.choices[0].logprobs.content or []] == ["a", "a"]
    chunks = client(events).chat.completions.create(
        model="m", messages=ASK, logprobs=True, stream=True
    )
    found = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].logprobs]
    assert len(found) == 2


def test_collecting_orders_choices_and_keeps_each_apart() -> None:
    answer = collect([TextDelta("b", 1), TextDelta("a", 0), Finish("stop", 1), Finish("stop", 0)])
    assert answer.choices == (Choice(text="a"), Choice(text="b"))
