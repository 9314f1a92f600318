"""Draws that depend on names alone, so that the same question has the same luck everywhere."""

from __future__ import annotations

from hashlib import blake2b
from statistics import NormalDist

_NORMAL = NormalDist()


def uniform(*parts: object) -> float:
    """A number in (0, 1), a pure function of `parts`.

    Examples
    --------
    >>> uniform("a", 1) == uniform("a", 1) != uniform("a", 2)
    True
    """
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11 | 1) / (1 << 53)


def normal(*parts: object) -> float:
    """A standard normal number, a pure function of `parts`."""
    return _NORMAL.inv_cdf(uniform(*parts))
