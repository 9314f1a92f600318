"""AWS Bedrock `Converse` and `ConverseStream`, the asking side: `BEDROCK`.

Differences that matter to a buyer: every block is an object with one field that names its kind;
tool results are the user's; a schema is JSON text; images travel inline, named by format. What
Converse has no word for (n, seed, penalties, tool choice `none`, JSON mode) its offers lack.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from bidding.errors import BadRequest
from broker.providers.anthropic import EFFORTS, thinking_budget
from broker.providers.aws_signature import signed
from broker.providers.base import Reader, Seat, WireCall, loose_json
from broker.providers.bedrock_answers import StreamReader, WholeReader
from broker.providers.failures import failed, read_error
from broker.providers.model_rules import ModelRules, bare, led_by_user, rules_for, sampling
from broker.wire.neutral import (
    Failed,
    Image,
    Message,
    NeutralRequest,
    Part,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')
_CACHE = {"cachePoint": {"type": "default"}}
_encode = msgspec.json.Encoder().encode


def build_body(request: NeutralRequest, seat: Seat) -> bytes:
    """The JSON body that asks for `request`. Raises `BadRequest`."""
    rules = rules_for(seat)
    messages = request.messages if rules.system != "user" else led_by_user(request.messages)
    system, turns = _turns(messages)
    if not turns:
        raise BadRequest(
            "no user message", path="messages", remedy="add at least one message of role user"
        )
    body: dict[str, Any] = {"messages": turns}
    if system:
        body["system"] = system
    if request.tools:
        body["toolConfig"] = _tools(request)
    form = request.response_format
    if form is not None and form.schema is not None:
        schema: dict[str, Any] = {"schema": bytes(form.schema).decode(), "name": form.name}
        if form.description is not None:
            schema["description"] = form.description
        structure = {"jsonSchema": schema}
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    config = _inference(request, rules)
    extra = _thinking(request, rules, seat, config)
    if extra:
        body["additionalModelRequestFields"] = extra
    if config:
        body["inferenceConfig"] = config
    return _encode(body)


def _inference(request: NeutralRequest, rules: ModelRules) -> dict[str, Any]:
    temperature, top_p = sampling(request, rules, most=1.0)
    config: dict[str, Any] = {
        "maxTokens": request.max_output_tokens,
        "temperature": temperature,
        "topP": top_p,
        "stopSequences": list(request.stop) or None,
    }
    return {name: value for name, value in config.items() if value is not None}


def _thinking(
    request: NeutralRequest, rules: ModelRules, seat: Seat, config: dict[str, Any]
) -> dict[str, Any]:
    """How much to think, in the model's own words; only Claude's are known here. Raises
    `BadRequest`.
    """
    asked = thinking_budget(request)
    if not asked or not bare(seat.offer.wire_model).startswith("claude"):
        return {}
    config.pop("temperature", None)
    if rules.thinking == "adaptive":
        effort = EFFORTS.get(request.effort or "", "high")
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    answer = config.get("maxTokens", 4096)
    cap = seat.model.max_output_tokens if seat.model is not None else asked + answer
    config["maxTokens"] = asked + max(min(answer, cap - asked), 1)
    return {"thinking": {"type": "enabled", "budget_tokens": asked}}


def _tools(request: NeutralRequest) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        tools.append({"toolSpec": _spec(tool)})
        if tool.cache:
            tools.append(_CACHE)
    config: dict[str, Any] = {"tools": tools}
    choice = request.tool_choice
    if choice is not None and choice.mode != "none":
        named = {"tool": {"name": choice.name}}
        config["toolChoice"] = {"auto": {"auto": {}}, "required": {"any": {}}}.get(
            choice.mode, named
        )
    return config


def _spec(tool: Tool) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    spec["inputSchema"] = {"json": _EMPTY_SCHEMA if tool.parameters is None else tool.parameters}
    if tool.strict:
        spec["strict"] = True
    return spec


def _turns(messages: tuple[Message, ...]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """System blocks, and turns in which user and assistant alternate."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        content: list[dict[str, Any]] = []
        for part in message.parts:
            content += _blocks(part)
        if not content:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if message.role == "system":
            system += content
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += content
        else:
            turns.append({"role": role, "content": content})
    return system, turns


def _blocks(part: Part) -> list[dict[str, Any]]:
    block: dict[str, Any]
    if isinstance(part, Text):
        if not part.text.strip():
            return []
        block = {"text": part.text}
    elif isinstance(part, Image):
        block = _image(part)
    elif isinstance(part, ToolCall):
        arguments = loose_json(part.arguments.encode()) if part.arguments.strip() else {}
        if not isinstance(arguments, dict):
            arguments = {"arguments": part.arguments}
        return [{"toolUse": {"toolUseId": part.id, "name": part.name, "input": arguments}}]
    elif isinstance(part, ToolResult):
        inner = [b for p in part.parts for b in _blocks(p) if "cachePoint" not in b]
        result: dict[str, Any] = {"toolUseId": part.call_id, "content": inner or [{"text": " "}]}
        if part.is_error:
            result["status"] = "error"
        block = {"toolResult": result}
    elif part.redacted is not None:
        return [{"reasoningContent": {"redactedContent": part.redacted}}]
    elif part.signature is None:
        return []
    else:
        text = {"text": part.text, "signature": part.signature}
        return [{"reasoningContent": {"reasoningText": text}}]
    return [block, _CACHE] if part.cache else [block]


def _image(image: Image) -> dict[str, Any]:
    kind = FORMATS.get(image.media_type or "")
    if image.data is None or kind is None:
        raise BadRequest(
            f"images of kind {image.media_type!r} by address are not read here",
            path="messages",
            remedy="send png, jpeg, gif or webp inline, as a data: URL",
        )
    return {"image": {"format": kind, "source": {"bytes": image.data}}}


class BedrockDialect:
    """The Converse API."""

    name = "bedrock"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        verb = "converse-stream" if stream else "converse"
        return bedrock_call(seat, verb, build_body(request, seat), stream=stream)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return StreamReader() if stream else WholeReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return failed(status, read_error(body), retry_after_s=retry_after_s)


def bedrock_call(seat: Seat, verb: str, body: bytes, *, stream: bool) -> WireCall:
    """A signed call of one of the runtime's operations on the model of `seat`."""
    base = seat.provider.base_url.rstrip("/")
    accept = "application/vnd.amazon.eventstream" if stream else "application/json"
    call = WireCall(
        url=f"{base}/model/{quote(seat.offer.wire_model, safe='')}/{verb}",
        headers={"Content-Type": "application/json", "Accept": accept},
        body=body,
    )
    return signed(call, seat.provider, seat.key)


BEDROCK = BedrockDialect()
