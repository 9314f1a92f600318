"""A response's input, a list of items, as turns.

A model's words, its reasoning and each of its tool calls are items of their own, and so is each
tool's result; what stands together becomes one turn.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from bidding.errors import BadRequest
from broker.wire.neutral import Image, Message, Part, Text, Thinking, ToolCall, ToolResult
from broker.wire.openai_responses_body import (
    Audio,
    Content,
    Item,
    Picture,
    ReasoningText,
    Refusal,
    Said,
    Words,
)
from broker.wire.openai_responses_out import Sealed
from broker.wire.openai_shared import image_from_data_url

_JOINED = ("assistant", "tool")
_unseal = msgspec.json.Decoder(Sealed)


def turns(items: list[Item]) -> list[Message]:
    """Items as turns: what the model said and called, and what tools returned, stay together."""
    made: list[Message] = []
    for i, item in enumerate(items):
        message = _message(f"input[{i}]", item)
        last = made[-1] if made else None
        if last is not None and last.role == message.role and message.role in _JOINED:
            made[-1] = Message(last.role, last.parts + message.parts)
        else:
            made.append(message)
    return made


def _message(path: str, item: Item) -> Message:
    kind = item.type
    if kind == "message":
        if item.role is None:
            raise BadRequest(f"{path} has no role", path=f"{path}.role", remedy="add it")
        role = "system" if item.role == "developer" else item.role
        return Message(role, _parts(f"{path}.content", item.content))
    if kind == "function_call":
        if item.call_id is None or item.name is None:
            raise BadRequest(
                f"{path} lacks call_id or name", path=path, remedy="send the call as it came"
            )
        return Message("assistant", (ToolCall(item.call_id, item.name, item.arguments or ""),))
    if kind == "function_call_output":
        if item.call_id is None:
            raise BadRequest(
                f"{path} answers no call", path=f"{path}.call_id", remedy="give the call's call_id"
            )
        parts = _parts(f"{path}.output", item.output if item.output is not None else "")
        kept = tuple(p for p in parts if isinstance(p, Text | Image))
        return Message("tool", (ToolResult(item.call_id, kept),))
    if kind == "reasoning":
        return Message("assistant", (_thinking(item),))
    remedy = "send messages, function calls, their outputs and reasoning only"
    if kind == "item_reference":
        remedy = "nothing is stored here; send the item itself"
    raise BadRequest(f"{path} is of type {kind!r}", path=f"{path}.type", remedy=remedy)


def _parts(path: str, content: str | list[Content] | None) -> tuple[Part, ...]:
    if content is None:
        raise BadRequest(f"{path} is missing", path=path, remedy="add it")
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Part] = []
    for j, part in enumerate(content):
        at = f"{path}[{j}]"
        if isinstance(part, Words):
            parts.append(Text(part.text, part.prompt_cache_breakpoint is not None))
        elif isinstance(part, Said):
            parts.append(Text(part.text))
        elif isinstance(part, Refusal):
            parts.append(Text(part.refusal))
        elif isinstance(part, Picture):
            parts.append(_image(at, part))
        else:
            kind = "audio" if isinstance(part, Audio) else "files"
            raise BadRequest(
                f"{kind} in {at} cannot be sent to the market",
                path=at,
                remedy="send text and images only",
            )
    return tuple(parts)


def _image(path: str, part: Picture) -> Image:
    cache = part.prompt_cache_breakpoint is not None
    detail = None if part.detail == "auto" else part.detail
    url = part.image_url
    if url is None:
        raise BadRequest(
            "files are not stored here", path=f"{path}.image_url", remedy="send image_url"
        )
    if url.startswith("data:"):
        return image_from_data_url(url, f"{path}.image_url", detail=detail, cache=cache)
    if not url.startswith(("https://", "http://")):
        raise BadRequest(
            "an image is neither a web address nor a data URL",
            path=f"{path}.image_url",
            remedy="send https://… or data:image/png;base64,…",
        )
    return Image(url=url, detail=detail, cache=cache)


def _thinking(item: Item) -> Thinking:
    """Reasoning handed back; what another sealed is beyond us and left out."""
    text = "".join(s.text for s in item.summary or ())
    if not text and isinstance(item.content, list):
        text = "".join(p.text for p in item.content if isinstance(p, ReasoningText))
    if item.encrypted_content is None:
        return Thinking(text)
    try:
        sealed = _unseal.decode(base64.b64decode(item.encrypted_content, validate=True))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, binascii.Error, ValueError):
        return Thinking(text)
    return Thinking(text, sealed.signature, sealed.redacted)
