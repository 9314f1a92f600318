"""Structured logs: one JSON object a line, secrets masked whatever the caller passes.

Prompts and answers are never logged. What looks like a key of ours or of a provider is masked
in the final text, so that a secret inside an exception's message does not leak either.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Final

import msgspec

_SECRET: Final = re.compile(
    r"(?i)(mmb_[a-z]*_?[A-Za-z0-9_-]{6})[A-Za-z0-9_-]+|\b(sk|xai|gsk|key)-[A-Za-z0-9_-]{8,}"
    r"|(bearer\s+)[A-Za-z0-9._~+/=-]{8,}"
)
_encoder = msgspec.json.Encoder()


def masked(text: str) -> str:
    """`text` with everything that looks like a key replaced.

    Examples
    --------
    >>> masked("Authorization: Bearer abcdefghijklmnop")
    'Authorization: Bearer ***'
    """

    def replace(match: re.Match[str]) -> str:
        if match.group(1):
            return match.group(1) + "***"
        return (match.group(3) or "") + "***"

    return _SECRET.sub(replace, text)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; newlines in values are escaped by the encoding."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"] = masked(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
            entry["trace"] = masked(self.formatException(record.exc_info))
        return _encoder.encode(entry).decode()


def configure(level: str = "info") -> None:
    """Log JSON lines to stderr from `level` up."""
    formatter = JsonFormatter()
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("aiokafka", "aiohttp.access", "clickhouse_connect"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
