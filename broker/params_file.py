"""Numbers of the params as a file states them: TOML or JSON, in groups or by path."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from bidding.errors import BadParams


def numbers_in(path: Path) -> dict[str, float]:
    """Every number that a file states, by path; a version is passed over.

    Raises
    ------
    BadParams
        It cannot be read, or holds something else than numbers.
    """
    try:
        text = path.read_bytes()
        told = (
            msgspec.json.decode(text) if text.lstrip()[:1] == b"{" else tomllib.loads(text.decode())
        )
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise BadParams(f"{path}: {error}") from error
    return {p: v for p, v in _paths(told, "") if p != "version"}


def _paths(told: Any, prefix: str) -> list[tuple[str, float]]:
    if isinstance(told, dict):
        return [one for key, below in told.items() for one in _paths(below, f"{prefix}{key}.")]
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise BadParams(f"{prefix.rstrip('.')}: {told!r} is not a number", path=prefix.rstrip("."))
    return [(prefix.rstrip("."), told)]
