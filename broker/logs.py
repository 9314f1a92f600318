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
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

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


class BriefHeads(logging.Filter):
    """One line, and no trace, for each request whose head is no HTTP, or whose body is not what
    its head says: its sender's doing.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, web.RequestPayloadError):
            error = error.__cause__
        if isinstance(error, HttpProcessingError):
            words = " ".join(str(error.message or type(error).__name__).split())[:200]
            sender = record.args[0] if isinstance(record.args, tuple) and record.args else "-"
            record.msg, record.args = "no HTTP from %s: %s", (sender, words)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def configure(level: str = "info") -> None:
    """Log JSON lines to stderr from `level` up."""
    formatter = JsonFormatter()
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    served = logging.getLogger("aiohttp.server")
    if not any(isinstance(f, BriefHeads) for f in served.filters):
        served.addFilter(BriefHeads())
    for noisy in ("aiokafka", "aiohttp.access", "clickhouse_connect"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
