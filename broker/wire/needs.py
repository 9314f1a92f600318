"""What a request needs of an offer, in the market's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bidding.market import Capability
from broker.wire.neutral import Image, Message, NeutralRequest, Part, Text, ToolResult

_FEW_STOPS: Final = 4
"""As many as OpenAI takes, and every seller with it."""


def needs(request: NeutralRequest) -> Capability:
    """What an offer must be able to do to serve `request` whole; nothing is silently dropped."""
    embedding = request.embedding
    if embedding is not None:
        mask = Capability.EMBEDDINGS
        if embedding.dimensions is not None:
            mask |= Capability.DIMENSIONS
        if any(not isinstance(x, str) for x in embedding.inputs):
            mask |= Capability.TOKEN_INPUT
        if len(embedding.inputs) > 1:
            mask |= Capability.BATCH_INPUT
        return mask
    mask = Capability.CHAT
    if request.tools:
        mask |= Capability.TOOLS | _tool_needs(request)
    form = request.response_format
    if form is not None:
        schema = form.kind == "json_schema"
        mask |= Capability.JSON_SCHEMA if schema else Capability.JSON_OBJECT
    if request.effort not in (None, "none") or request.thinking_tokens:
        mask |= Capability.REASONING
    if request.stream:
        mask |= Capability.STREAMING
    if request.verbosity not in (None, "medium"):
        mask |= Capability.VERBOSITY
    mask |= _opening(request.messages)
    if request.logprobs:
        mask |= Capability.LOGPROBS
    if request.n > 1:
        mask |= Capability.N_CHOICES
    if request.seed is not None:
        mask |= Capability.SEED
    if request.stop:
        mask |= Capability.STOP | _stop_needs(request.stop)
    if request.top_k is not None:
        mask |= Capability.TOP_K
    if request.logit_bias:
        mask |= Capability.LOGIT_BIAS
    if request.presence_penalty or request.frequency_penalty:
        mask |= Capability.PENALTIES
    images = [i for m in request.messages for i in _images(m.parts)]
    if images:
        mask |= Capability.VISION
        if any(i.url is not None for i in images):
            mask |= Capability.IMAGE_URL
    return mask


def _tool_needs(request: NeutralRequest) -> Capability:
    mask = Capability(0)
    if request.parallel_tool_calls is False:
        mask |= Capability.SERIAL_TOOLS
    if any(tool.strict for tool in request.tools):
        mask |= Capability.STRICT_TOOLS
    mode = request.tool_choice.mode if request.tool_choice is not None else "auto"
    if mode == "none":
        return mask | Capability.NO_TOOL
    if mode == "named":
        return mask | Capability.NAMED_TOOL | Capability.FORCED_TOOL
    return mask | Capability.FORCED_TOOL if mode == "required" else mask


def _stop_needs(stop: tuple[str, ...]) -> Capability:
    mask = Capability.MANY_STOPS if len(stop) > _FEW_STOPS else Capability(0)
    return mask | Capability.BLANK_STOP if any(not s or s.isspace() for s in stop) else mask


def _opening(messages: tuple[Message, ...]) -> Capability:
    """What it takes to be spoken to like this: by nobody but the system, by an assistant first."""
    for message in messages:
        if message.role == "assistant":
            return Capability.ASSISTANT_FIRST
        if message.role != "system":
            blank = all(_is_blank(part) for part in message.parts)
            return Capability.NO_USER if blank else Capability(0)
    return Capability.NO_USER


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text) and (not part.text or part.text.isspace())


def _images(parts: tuple[Part, ...]) -> Iterator[Image]:
    for part in parts:
        if isinstance(part, Image):
            yield part
        elif isinstance(part, ToolResult):
            yield from _images(part.parts)
