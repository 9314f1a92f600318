"""What OpenAI's surfaces share: names, images in line, the error object."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from bidding.errors import BadRequest
from broker.wire.neutral import Image
from broker.wire.surface import ErrorBody

Name = Annotated[str, Meta(min_length=1, max_length=256)]
PositiveInt = Annotated[int, Meta(ge=1, le=100_000_000)]


def image_from_data_url(
    url: str, path: str, *, detail: str | None = None, cache: bool = False
) -> Image:
    """The inline image in a `data:` URL. Raises `BadRequest` at `path`."""
    head, comma, data = url[5:].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or encoding != "base64" or not media_type.startswith("image/"):
        raise BadRequest(
            "an image's data URL is not base64 of an image",
            path=path,
            remedy="send data:image/png;base64,…",
        )
    return Image(media_type=media_type, data=data, detail=detail, cache=cache)


class ErrorOut(Struct):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


def error_object(error: ErrorBody) -> dict[str, ErrorOut]:
    """OpenAI's error body, shared by its three surfaces."""
    return {"error": ErrorOut(error.message, error.kind, error.param, error.code)}
