"""The responses surface against the real `openai` client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2
import msgspec
import openai
import pydantic
import pytest

from bidding.errors import BadRequest
from bidding.market import Capability
from broker.wire.needs import needs
from broker.wire.neutral import (
    Event,
    Finish,
    Image,
    Message,
    NeutralRequest,
    RefusalDelta,
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
from broker.wire.openai_responses import OPENAI_RESPONSES
from broker.wire.openai_responses_body import IGNORED, REFUSED, ResponsesRequest
from broker.wire.surface import ErrorBody, ReplyMeta

META = ReplyMeta(id="resp_1", created_s=1_700_000_000, model="gpt-x")
SEEN: list[NeutralRequest] = []
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


def client(events: Sequence[Event], error: ErrorBody | None = None) -> openai.OpenAI:
    """The real client against the surface, without sockets."""

    def handle(http: httpx2.Request) -> httpx2.Response:
        request = OPENAI_RESPONSES.decode(http.content)
        SEEN.append(request)
        if not request.stream:
            body = OPENAI_RESPONSES.reply(request, collect(events), META)
            return httpx2.Response(200, content=body)
        stream = OPENAI_RESPONSES.stream(request, META)
        body = stream.start() + b"".join(stream.event(e) for e in events)
        body += stream.end() if error is None else stream.error(error)
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    return openai.OpenAI(
        api_key="k",
        base_url="http://broker.test/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )


def neutral(**body: Any) -> NeutralRequest:
    return OPENAI_RESPONSES.decode(msgspec.json.encode({"model": "m", "input": "hi", **body}))


USAGE = Usage(
    input_tokens=9, output_tokens=4, cached_tokens=3, written_tokens=2, reasoning_tokens=1
)
TEXT: list[Event] = [TextDelta("Four"), TextDelta(", 四\n"), Finish("stop"), USAGE]
ALL: list[Event] = [
    ThinkingDelta("Let me "),
    ThinkingDelta("see", signature="sig"),
    TextDelta("I ask."),
    ToolCallDelta(0, "call_1", "weather", '{"city":'),
    ToolCallDelta(1, "call_2", "weather", ""),
    ToolCallDelta(0, arguments='"Rome"}'),
    ToolCallDelta(1, arguments='{"city":"Oslo"}'),
    Finish("tool_calls"),
    USAGE,
]


def test_a_whole_answer_as_the_client_reads_it() -> None:
    reply = client(TEXT).responses.create(model="market", input="What is two and two?")
    assert reply.output_text == "Four, 四\n"
    assert (reply.id, reply.status, reply.model, reply.store) == (
        "resp_1",
        "completed",
        "gpt-x",
        False,
    )
    assert reply.usage is not None
    assert reply.usage.total_tokens == 13
    assert reply.usage.input_tokens_details.cached_tokens == 3
    assert reply.usage.input_tokens_details.cache_write_tokens == 2
    assert reply.usage.output_tokens_details.reasoning_tokens == 1
    assert SEEN[-1].messages == (Message("user", (Text("What is two and two?"),)),)


def test_events_come_in_the_documented_order() -> None:
    events = list(
        client(ALL).responses.create(
            model="market", input="hi", tools=[TOOL], reasoning={"summary": "auto"}, stream=True
        )
    )
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert [e.type.removeprefix("response.") for e in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


@pytest.mark.parametrize("events", [TEXT, ALL, [Finish("stop"), USAGE]])
def test_a_stream_ends_in_what_a_whole_answer_says(events: list[Event]) -> None:
    asked: Any = {
        "model": "market",
        "input": "hi",
        "tools": [TOOL],
        "reasoning": {"summary": "auto"},
    }
    whole = client(events).responses.create(**asked)
    with client(events).responses.stream(**asked) as stream:
        streamed = stream.get_final_response()
    assert streamed.output_text == whole.output_text
    plain = {"id", "parsed", "parsed_arguments", "content"}
    for a, b in zip(streamed.output, whole.output, strict=True):
        assert a.model_dump(exclude=plain) == b.model_dump(exclude=plain)
        assert a.id == b.id
    assert streamed.usage == whole.usage
    assert (streamed.status, streamed.tools) == (whole.status, whole.tools)


def test_structured_output_is_parsed_by_the_client() -> None:
    class Sum(pydantic.BaseModel):
        total: int

    events: list[Event] = [TextDelta('{"total": 4}'), Finish("stop"), USAGE]
    parsed = client(events).responses.parse(model="m", input="2+2?", text_format=Sum)
    assert parsed.output_parsed == Sum(total=4)
    fmt = SEEN[-1].response_format
    assert fmt is not None
    assert (fmt.kind, fmt.name, fmt.strict) == ("json_schema", "Sum", True)


def test_what_was_cut_short_says_so() -> None:
    cut: list[Event] = [TextDelta("Fo"), Finish("length"), USAGE]
    whole = client(cut).responses.create(model="m", input="hi")
    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    last = list(client(cut).responses.create(model="m", input="hi", stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == "Fo"


def test_a_stream_that_breaks_fails_with_what_was_delivered() -> None:
    error = ErrorBody(status=503, kind="server_error", message="no seller delivered")
    events = list(
        client([TextDelta("Fo")], error).responses.create(model="m", input="hi", stream=True)
    )
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "no seller delivered"
    assert last.response.output_text == "Fo"


def test_a_refusal_is_kept_apart() -> None:
    events: list[Event] = [RefusalDelta("I "), RefusalDelta("won't"), Finish("stop"), USAGE]
    streamed = list(client(events).responses.create(model="m", input="hi", stream=True))
    assert [e.type for e in streamed].count("response.refusal.delta") == 2
    for reply in (client(events).responses.create(model="m", input="hi"), streamed[-1].response):
        assert reply.output[0].content[0].refusal == "I won't"


def test_a_conversation_goes_in_as_turns() -> None:
    request = neutral(
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "In French."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "See"},
                    {
                        "type": "input_image",
                        "image_url": "data:image/png;base64,AA==",
                        "detail": "low",
                    },
                ],
            },
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm"}]},
            {
                "type": "message",
                "id": "msg",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I look", "annotations": []}],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc"},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "2"}],
            },
            {"role": "user", "content": "And?"},
        ],
    )
    assert request.messages == (
        Message("system", (Text("Be brief."),)),
        Message("system", (Text("In French."),)),
        Message("user", (Text("See"), Image(media_type="image/png", data="AA==", detail="low"))),
        Message(
            "assistant",
            (Thinking("Hm"), Text("I look"), ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}")),
        ),
        Message("tool", (ToolResult("c1", (Text("1"),)), ToolResult("c2", (Text("2"),)))),
        Message("user", (Text("And?"),)),
    )


def test_sealed_reasoning_comes_back_to_its_seller() -> None:
    asked = {"model": "m", "input": "hi", "include": ["reasoning.encrypted_content"]}
    events: list[Event] = [
        ThinkingDelta("Hm", signature="sig"),
        ThinkingDelta(redacted="secret"),
        TextDelta("4"),
        Finish("stop"),
        USAGE,
    ]
    reply = client(events).responses.create(**asked)
    back = neutral(input=[item.to_dict() for item in reply.output])
    assert back.messages[0].parts == (
        Thinking("Hm", "sig"),
        Thinking("", None, "secret"),
        Text("4"),
    )
    others = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "gAAAA_x"}
    assert neutral(input=[others]).messages[0].parts == (Thinking(""),)


def test_parameters_become_needs() -> None:
    assert needs(neutral()) == Capability.CHAT
    asked = neutral(
        tools=[TOOL],
        parallel_tool_calls=False,
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        reasoning={"effort": "low"},
        include=["message.output_text.logprobs"],
        stream=True,
    )
    assert needs(asked) == (
        Capability.CHAT
        | Capability.TOOLS
        | Capability.SERIAL_TOOLS
        | Capability.JSON_OBJECT
        | Capability.REASONING
        | Capability.LOGPROBS
        | Capability.STREAMING
        | Capability.VERBOSITY
    )


def test_tool_choices() -> None:
    other = {**TOOL, "name": "time"}
    named = neutral(tools=[TOOL, other], tool_choice={"type": "function", "name": "time"})
    assert named.tool_choice == ToolChoice("named", "time")
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "time"}],
    }
    limited = neutral(tools=[TOOL, other], tool_choice=allowed)
    assert limited.tool_choice == ToolChoice("required")
    assert [t.name for t in limited.tools] == ["time"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"conversation": {"id": "c"}}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"include": ["web_search_call.results"]}, "include[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"temprature": 1}, "temprature"),
        ({"sla": {"qualty": 1}}, "sla.qualty"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(body: dict[str, Any], path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        neutral(**body)
    assert caught.value.path == path
    assert caught.value.remedy


def test_every_parameter_of_the_client_is_known() -> None:
    from openai.types.responses import response_create_params

    documented = set(response_create_params.ResponseCreateParamsBase.__annotations__) | {"stream"}
    known = set(ResponsesRequest.__struct_fields__)
    assert documented - known == set()
    assert REFUSED.keys() <= known
    assert known >= IGNORED
