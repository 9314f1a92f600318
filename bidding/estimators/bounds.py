"""How a live-tunable number of an estimator states its bounds, unit and meaning."""

from __future__ import annotations

from msgspec import Meta


def number(ge: float, le: float, unit: str, meaning: str) -> Meta:
    """Annotation of a number between `ge` and `le`, in `unit`."""
    return Meta(ge=ge, le=le, description=meaning, extra={"unit": unit})
