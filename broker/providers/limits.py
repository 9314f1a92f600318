"""What a seller's headers say is left of our quota there, by the names its entry gives them.

Of all that a seller sends, only the headers named here and `Retry-After` are looked at; none is
handed on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from bidding.market import Provider
from broker.providers.quirks import quirks_of

MAX_RESET_S = 86_400.0
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class QuotaLeft(Struct, frozen=True, kw_only=True):
    """Requests and tokens of a window, how many are left, and when it starts anew (seconds)."""

    requests_limit: float | None = None
    requests_left: float | None = None
    requests_reset_s: float | None = None
    tokens_limit: float | None = None
    tokens_left: float | None = None
    tokens_reset_s: float | None = None


def quota_left(headers: Mapping[str, str], provider: Provider, now_s: float) -> QuotaLeft | None:
    """What `provider` tells; None where it tells nothing.

    Parameters
    ----------
    headers : mapping
        Case-insensitive, as aiohttp gives them.
    now_s : float
        Wall clock, seconds since the epoch, for resets told as moments.
    """
    names = quirks_of(provider).limits

    def number(name: str | None) -> float | None:
        return None if name is None else _number(headers.get(name))

    def reset(name: str | None) -> float | None:
        return None if name is None else reset_s(headers.get(name), now_s)

    found = QuotaLeft(
        requests_limit=number(names.requests_limit),
        requests_left=number(names.requests_left),
        requests_reset_s=reset(names.requests_reset),
        tokens_limit=number(names.tokens_limit),
        tokens_left=number(names.tokens_left),
        tokens_reset_s=reset(names.tokens_reset),
    )
    return None if found == QuotaLeft() else found


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "")[:32])
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def reset_s(text: str | None, now_s: float) -> float | None:
    """Seconds until a window starts anew, told as a span (`6m0s`, `60ms`, `12`), as seconds or
    milliseconds since the epoch, or as an RFC 3339 moment.

    Examples
    --------
    >>> reset_s("1m30s", 0.0), reset_s("60ms", 0.0), reset_s("12", 0.0)
    (90.0, 0.06, 12.0)
    >>> reset_s("1700000060000", 1_700_000_000.0), reset_s("2023-11-14T22:13:30Z", 1.7e9)
    (60.0, 10.0)
    """
    if not text:
        return None
    text = text[:40].strip()
    value = _number(text)
    if value is not None:
        if value > 1e11:
            value = value / 1000.0 - now_s
        elif value > 1e9:
            value -= now_s
        return min(max(value, 0.0), MAX_RESET_S)
    spans = _SPAN.findall(text)
    if spans and "".join(n + unit for n, unit in spans) == text:
        return min(sum(float(n) * _UNIT_S[unit] for n, unit in spans), MAX_RESET_S)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    return min(max(at.timestamp() - now_s, 0.0), MAX_RESET_S)
