"""Parts of a turn as OpenAI writes them, and Cohere after it."""

from __future__ import annotations

from typing import Any

from broker.wire.neutral import Image, Part, Text, ToolResult


def tool_results(parts: tuple[Part, ...], out: list[dict[str, Any]]) -> None:
    """One `tool` message a result. Images, which may not stand there, follow as the user's."""
    images: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, ToolResult):
            continue
        text = "\n".join(p.text for p in part.parts if isinstance(p, Text))
        out.append({"role": "tool", "tool_call_id": part.call_id, "content": text})
        images.extend(content_part(p) for p in part.parts if isinstance(p, Image))
    if images:
        out.append({"role": "user", "content": images})


def content_part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    image: dict[str, Any] = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}
