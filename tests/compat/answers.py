"""What a surface answered, read the way an app reads it: one form for whole and streamed."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct


class Read(Struct):
    """An answer. `finish` is the surface's own word; `ended` that a stream had its last event."""

    texts: list[str]
    calls: list[tuple[str, str]]
    finish: str = ""
    output_tokens: int = 0
    reasoning_tokens: int = 0
    ended: bool = True

    @property
    def text(self) -> str:
        return "".join(self.texts)


def events(raw: str) -> list[Any]:
    """The data of a stream of server-sent events; OpenAI's `[DONE]` as that string."""
    told = [line[6:] for line in raw.splitlines() if line.startswith("data: ")]
    return [text if text == "[DONE]" else json.loads(text) for text in told]


def read(surface: str, body: Any, *, streamed: bool) -> Read:
    """Raises `LookupError`, `TypeError` or `ValueError` where the answer is not well formed."""
    return _READERS[surface, streamed](body)


def _chat(body: Any) -> Read:
    choices = body["choices"]
    calls = choices[0]["message"].get("tool_calls") or []
    usage = body["usage"]
    return Read(
        [c["message"].get("content") or "" for c in choices],
        [(c["function"]["name"], c["function"]["arguments"]) for c in calls],
        choices[0]["finish_reason"],
        usage["completion_tokens"],
        (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0),
    )


def _chat_stream(told: list[Any]) -> Read:
    out = Read([""], [], ended=told[-1] == "[DONE]")
    for chunk in told[:-1]:
        if chunk.get("usage"):
            out.output_tokens = chunk["usage"]["completion_tokens"]
        for choice in chunk["choices"]:
            out.finish = choice.get("finish_reason") or out.finish
            out.texts.append(choice["delta"].get("content") or "")
            for call in choice["delta"].get("tool_calls") or []:
                if call["function"].get("name"):
                    out.calls.append((call["function"]["name"], ""))
                name, so_far = out.calls[call["index"]]
                out.calls[call["index"]] = (name, so_far + call["function"].get("arguments", ""))
    return out


def _responses(body: Any) -> Read:
    output, usage = body["output"], body["usage"]
    said = [item for item in output if item["type"] == "message"]
    why = (body.get("incomplete_details") or {}).get("reason", "")
    return Read(
        ["".join(part["text"] for part in item["content"]) for item in said],
        [(i["name"], i["arguments"]) for i in output if i["type"] == "function_call"],
        why or body["status"],
        usage["output_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
    )


def _responses_stream(told: list[Any]) -> Read:
    last = told[-1]
    out = _responses(last["response"])
    out.ended = last["type"] in ("response.completed", "response.incomplete")
    deltas = [e["delta"] for e in told if e["type"] == "response.output_text.delta"]
    out.ended = out.ended and "".join(deltas) == out.text
    return out


def _messages(body: Any) -> Read:
    blocks = body["content"]
    return Read(
        ["".join(b["text"] for b in blocks if b["type"] == "text")],
        [(b["name"], json.dumps(b["input"])) for b in blocks if b["type"] == "tool_use"],
        body["stop_reason"],
        body["usage"]["output_tokens"],
    )


def _messages_stream(told: list[Any]) -> Read:
    out = Read([""], [], ended=told[-1]["type"] == "message_stop")
    for event in told:
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            out.calls.append((event["content_block"]["name"], ""))
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            out.texts.append(delta.get("text", ""))
            if "partial_json" in delta:
                name, so_far = out.calls[-1]
                out.calls[-1] = (name, so_far + delta["partial_json"])
        elif event["type"] == "message_delta":
            out.finish = event["delta"]["stop_reason"]
            out.output_tokens = event["usage"]["output_tokens"]
    return out


def _embeddings(body: Any) -> Read:
    vectors = [json.dumps(one["embedding"]) for one in body["data"]]
    return Read(vectors, [], output_tokens=body["usage"]["prompt_tokens"])


_READERS: dict[tuple[str, bool], Any] = {
    ("chat", False): _chat,
    ("chat", True): _chat_stream,
    ("responses", False): _responses,
    ("responses", True): _responses_stream,
    ("messages", False): _messages,
    ("messages", True): _messages_stream,
    ("embeddings", False): _embeddings,
}
