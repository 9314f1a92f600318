"""Secrets out of what sellers say: the key we sent, and whatever looks like one."""

from __future__ import annotations

import re

import msgspec

from broker.wire.neutral import Failed

MASK = "***"
MIN_CHARS = 6
"""Shorter parts of a key are words: masking them would garble plain text."""
_SHAPES = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|key|r8|hf|nvapi|pplx|csk|fw|tgp|glpat|ghp|gho)[-_][A-Za-z0-9_\-]{12,}"
    r"|\bAIza[A-Za-z0-9_\-]{20,}|\bya29\.[A-Za-z0-9_\-.]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]{8,}"
    r"|(?i:bearer|signature=|api[-_ ]?key[=:])\s*[A-Za-z0-9_\-./+=]{12,}"
)


def masked_text(text: str, key: str | None) -> str:
    """`text` without `key` (or its parts, of a pair) and without what looks like a key.

    Examples
    --------
    >>> masked_text("Incorrect API key provided: sk-proj-abcdefghijkl.", None)
    'Incorrect API key provided: ***.'
    >>> masked_text("no user secret-1 here", "AKIDPAPER:secret-1")
    'no user *** here'
    """
    for part in (key, *key.split(":")) if key else ():
        if len(part) >= MIN_CHARS:
            text = text.replace(part, MASK)
    return _SHAPES.sub(MASK, text)


def masked(failed: Failed, key: str | None) -> Failed:
    """`failed` as it may be shown and recorded."""
    message = masked_text(failed.message, key) if failed.message else ""
    reason = masked_text(failed.reason, key) if failed.reason else ""
    if message == failed.message and reason == failed.reason:
        return failed
    return msgspec.structs.replace(failed, message=message, reason=reason)
