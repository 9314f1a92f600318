"""Gemini `generateContent` and `streamGenerateContent`, the asking side: `GEMINI`.

Differences that matter to a buyer: turns are `contents` of role user or model, with system text
apart; a tool's result names the tool, not the call, so names are looked up in the calls before
it; arguments and results are JSON objects; a stream ends when the connection does. Images travel
inline. Google AI Studio and Vertex share all of it but the address and the key.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from broker.providers.base import Reader, Seat, WireCall, loose_json
from broker.providers.calling import wire_call
from broker.providers.failures import failed, read_error
from broker.providers.gemini_answers import StreamReader, WholeReader
from broker.providers.model_rules import ModelRules, led_by_user, rules_for, sampling
from broker.providers.quirks import quirks_of
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

BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
"""Our words for reasoning effort as Google's own OpenAI gateway maps them, in tokens."""
LEVELS = {"none": "minimal", "minimal": "minimal", "low": "low", "medium": "medium"}
SKIP_SIGNATURE = "skip_thought_signature_validator"
"""What the vendor documents for a call that comes from another model, without a signature."""
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}

_encode = msgspec.json.Encoder().encode


def build_body(request: NeutralRequest, seat: Seat) -> bytes:
    """The JSON body that asks for `request`."""
    rules = rules_for(seat)
    messages = request.messages if rules.system != "user" else led_by_user(request.messages)
    system = [
        {"text": p.text}
        for m in messages
        if m.role == "system"
        for p in m.parts
        if isinstance(p, Text) and p.text
    ]
    body: dict[str, Any] = {"contents": _contents(messages, rules)}
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declared(t) for t in request.tools]}]
        choice = request.tool_choice
        if choice is not None:
            calling: dict[str, Any] = {"mode": _MODES[choice.mode]}
            if choice.mode == "named":
                calling["allowedFunctionNames"] = [choice.name]
            body["toolConfig"] = {"functionCallingConfig": calling}
    config = _generation(request, rules, seat)
    if config:
        body["generationConfig"] = config
    return _encode(body)


def _declared(tool: Tool) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        declared["description"] = tool.description
    if tool.parameters is not None:
        declared["parametersJsonSchema"] = tool.parameters
    return declared


def _generation(request: NeutralRequest, rules: ModelRules, seat: Seat) -> dict[str, Any]:
    temperature, top_p = sampling(request, rules)
    config: dict[str, Any] = {
        "temperature": temperature,
        "topP": top_p,
        "topK": request.top_k,
        "maxOutputTokens": request.max_output_tokens,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "candidateCount": request.n if request.n > 1 else None,
    }
    config = {name: value for name, value in config.items() if value is not None}
    form = request.response_format
    if form is not None:
        config["responseMimeType"] = "application/json"
        if form.schema is not None:
            config["responseJsonSchema"] = form.schema
    thinking = _thinking(request, rules, seat)
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _thinking(request: NeutralRequest, rules: ModelRules, seat: Seat) -> dict[str, Any]:
    """How much to think; nothing to a model that does not reason, or where nothing was said."""
    asked = request.effort is not None or request.thinking_tokens
    if not asked or (seat.model is not None and "reasoning" not in seat.model.capabilities):
        return {}
    tokens = request.thinking_tokens or BUDGETS[request.effort or "none"]
    if rules.thinking == "level":
        by_budget = "low" if tokens <= 2048 else "medium" if tokens <= 8192 else "high"
        word = by_budget if request.effort is None else LEVELS.get(request.effort, "high")
        thinking: dict[str, Any] = {"thinkingLevel": word}
    else:
        thinking = {"thinkingBudget": tokens}
    if request.show_thinking and tokens:
        thinking["includeThoughts"] = True
    return thinking


def _contents(messages: tuple[Message, ...], rules: ModelRules) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, ToolCall):
                names[part.id] = part.name
            parts += _parts(part, names, rules)
        if not parts:
            continue
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _parts(part: Part, names: dict[str, str], rules: ModelRules) -> list[dict[str, Any]]:
    if isinstance(part, Text):
        return [{"text": part.text}] if part.text else []
    if isinstance(part, Image):
        return [_image(part)]
    if isinstance(part, ToolCall):
        call: dict[str, Any] = {"functionCall": {"name": part.name, "args": _arguments(part)}}
        if rules.skip_thought_signature:
            call["thoughtSignature"] = SKIP_SIGNATURE
        return [call]
    if isinstance(part, ToolResult):
        text = "\n".join(p.text for p in part.parts if isinstance(p, Text))
        said = {
            "name": names.get(part.call_id, part.call_id),
            "response": {"error": text} if part.is_error else _result(text),
        }
        images = [_image(p) for p in part.parts if isinstance(p, Image)]
        return [{"functionResponse": said}, *images]
    return []  # thinking: only its author could use it, and it needs no more than the calls


def _arguments(call: ToolCall) -> Any:
    found = loose_json(call.arguments.encode()) if call.arguments.strip() else {}
    return found if isinstance(found, dict) else {"arguments": call.arguments}


def _result(text: str) -> dict[str, Any]:
    found = loose_json(text.encode()) if text.startswith("{") else None
    return found if isinstance(found, dict) else {"result": text}


def _image(image: Image) -> dict[str, Any]:
    if image.data is not None:
        return {"inlineData": {"mimeType": image.media_type, "data": image.data}}
    return {"fileData": {"mimeType": media_type_of(image.url or ""), "fileUri": image.url}}


def media_type_of(url: str) -> str:
    """The kind of image an address ends in; JPEG where it does not say.

    Examples
    --------
    >>> media_type_of("https://x.test/a.png?s=1")
    'image/png'
    """
    ending = url.partition("?")[0].rpartition(".")[2].lower()
    return f"image/{ending}" if ending in ("png", "webp", "gif", "heic") else "image/jpeg"


def method(seat: Seat, *, stream: bool) -> str:
    """The last part of the address: the model and what is asked of it."""
    name = quote(seat.offer.wire_model, safe="")
    return f"{name}:streamGenerateContent?alt=sse" if stream else f"{name}:generateContent"


class GeminiDialect:
    """Google AI Studio's Gemini API."""

    name = "gemini"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        path = "/models/" + method(seat, stream=stream)
        body = build_body(request, seat)
        return wire_call(seat, quirks_of(seat.provider), path, body, stream=stream)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return StreamReader() if stream else WholeReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return failed(status, read_error(body), retry_after_s=retry_after_s)


GEMINI = GeminiDialect()
