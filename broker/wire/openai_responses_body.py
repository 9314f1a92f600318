"""The body of `POST /v1/responses` as we accept it, and what of it we refuse or pass over."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from bidding.request import Sla
from broker.wire.json_guard import ABSENT
from broker.wire.neutral import Effort
from broker.wire.openai_shared import Name, PositiveInt

REFUSED: dict[str, str] = {
    "previous_response_id": "responses are not stored here; send the whole conversation as input",
    "conversation": "conversations are not stored here; send the whole of it as input",
    "prompt": "prompts are not stored here; send its text as instructions and input",
    "moderation": "moderation is not traded here; call your provider for it",
    "context_management": "nothing is compacted here; shorten the input yourself",
    "prompt_cache_options": "use prompt_cache_key",
}
"""Parameters we know and refuse, with what to do instead."""

IGNORED = frozenset(
    {"service_tier", "prompt_cache_retention", "safety_identifier", "stream_options"}
    | {"max_tool_calls"}
)
"""Hints that change no answer. (`max_tool_calls` counts tools that run at OpenAI; none do here.)"""


class Breakpoint(Struct):
    mode: str = "explicit"


class Words(Struct, tag_field="type", tag="input_text"):
    text: str
    prompt_cache_breakpoint: Breakpoint | None = None


class Said(Struct, tag_field="type", tag="output_text"):
    text: str


class Refusal(Struct, tag_field="type", tag="refusal"):
    refusal: str


class Picture(Struct, tag_field="type", tag="input_image"):
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: Breakpoint | None = None


class File(Struct, tag_field="type", tag="input_file"):
    pass


class Audio(Struct, tag_field="type", tag="input_audio"):
    pass


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    text: str


Content = Words | Said | Refusal | Picture | File | Audio | ReasoningText


class Summary(Struct):
    text: str
    type: str = "summary_text"


class Item(Struct):
    """Any item: which fields it needs follows from its `type`."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Content] | None = None
    summary: list[Summary] | None = None
    encrypted_content: str | None = None


class GivenTool(Struct):
    type: str
    name: Name | None = None
    description: str | None = None
    parameters: Raw = ABSENT
    strict: bool | None = None


class GivenToolChoice(Struct):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[GivenTool] | None = None


class FormatText(Struct, tag_field="type", tag="text"):
    pass


class FormatObject(Struct, tag_field="type", tag="json_object"):
    pass


class FormatSchema(Struct, tag_field="type", tag="json_schema"):
    name: Name
    schema: Raw = ABSENT
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct, forbid_unknown_fields=True):
    format: FormatText | FormatObject | FormatSchema | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningConfig(Struct, forbid_unknown_fields=True):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a response as we accept it."""

    model: Name
    input: str | Annotated[list[Item], Meta(min_length=1)]
    sla: Sla | None = None
    models: list[Name] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    max_output_tokens: PositiveInt | None = None
    max_tool_calls: PositiveInt | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    tools: list[GivenTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | GivenToolChoice | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: Raw = ABSENT
    conversation: Raw = ABSENT
    prompt: Raw = ABSENT
    moderation: Raw = ABSENT
    context_management: Raw = ABSENT
    prompt_cache_options: Raw = ABSENT
