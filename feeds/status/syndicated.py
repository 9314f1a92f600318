"""Status histories as Atom or RSS, of Statuspage, incident.io, Instatus, Better Stack and others.

There is no schema for what stands in an entry. What they share: the newest word stands first,
led by its stage in bold (`<strong>Resolved</strong> - …`, `<b>Status: Monitoring</b>`), and the
components stand in a list where they are told at all. Severity is seldom told; unless a word of
the title or of a component's state tells it, an incident counts as minor.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from feeds.status.document import feed_document
from feeds.status.incident import (
    MAX_TITLE,
    Incident,
    Severity,
    Stage,
    StatusSheet,
    Update,
    is_severity,
    is_stage,
    named,
    read_all,
    severity_of,
    stage_of,
    text_of,
    worst,
)

NAME = "feed"
_BOLD: Final = re.compile(
    r"<(?:strong|b)\b[^<>]{0,200}>([^<>]{1,80})</(?:strong|b)>", re.IGNORECASE
)
_BLOCK: Final = re.compile(r"<(?:p|li|div|small)\b[^<>]{0,200}>", re.IGNORECASE)
_LISTED: Final = re.compile(r"<li\b[^<>]{0,200}>([^<>()]{1,200})(?:\(([^<>()]{1,40})\))?\s*</li>")
_AFFECTED: Final = re.compile(r"affected\s+(?:components|services)\s*:?", re.IGNORECASE)
_WORDS: Final[tuple[tuple[str, Severity], ...]] = (
    ("maintenance", "maintenance"),
    ("major outage", "critical"),
    ("full outage", "critical"),
    ("complete outage", "critical"),
    ("unavailable", "critical"),
    ("outage", "major"),
    ("partial outage", "major"),
    ("down", "major"),
    ("elevated error", "major"),
    ("increased error", "major"),
)


def parse(body: bytes) -> StatusSheet:
    """The feed, Atom or RSS. Raises `BadRecord` when it is none."""
    found = feed_document(body, NAME)
    entries: list[tuple[str, Callable[[], Incident | None]]] = [
        (str(entry.get("id", entry.get("link", i))), partial(_incident, entry))
        for i, entry in enumerate(found.entries)
    ]
    incidents, n_skipped, skipped = read_all(entries, NAME)
    return StatusSheet(incidents=incidents, is_current=False, n_skipped=n_skipped, skipped=skipped)


def entry_times(entry: Any) -> tuple[int, int]:
    """When an entry was first and last written, µs. Raises `ValueError` when it tells neither."""
    published, updated = _moment(entry, "published"), _moment(entry, "updated")
    first = published if published is not None else updated
    last = updated if updated is not None else published
    if first is None or last is None:
        raise ValueError("no time")
    return min(first, last), max(first, last)


def entry_html(entry: Any) -> str:
    """What stands in an entry, however the format calls it."""
    content = entry.get("content")
    if content and isinstance(content[0].get("value"), str) and content[0]["value"]:
        return str(content[0]["value"])
    return str(entry.get("summary", ""))


def _incident(entry: Any) -> Incident:
    first_us, last_us = entry_times(entry)
    html = entry_html(entry)[:200_000]
    title = named(entry.get("title"), "title")
    stage = _stage(html, title)
    components, states = _affected(html)
    return Incident(
        id=named(entry.get("id") or entry.get("link"), "id"),
        title=title,
        severity=_severity(title, states),
        stage=stage,
        since_us=first_us,
        told_us=first_us,
        updated_us=last_us,
        until_us=last_us if stage == "resolved" else None,
        components=components,
        updates=(Update(at_us=last_us, stage=stage, text=text_of(html)),),
    )


def _stage(html: str, title: str) -> Stage:
    for word in _BOLD.findall(html):
        plain = word.partition(":")[2] or word
        if is_stage(plain):
            return stage_of(plain)
    leading = text_of(html, 200).replace("Status:", "").strip()
    for word in (leading.partition(" ")[0], title.partition(":")[0], title.rpartition(" - ")[2]):
        if is_stage(word):
            return stage_of(word)
    return "investigating"


def _affected(html: str) -> tuple[tuple[str, ...], list[Severity]]:
    found = _AFFECTED.search(html)
    if found is None:
        return (), []
    after = html[found.end() :]
    listed = _LISTED.findall(after)
    if listed:
        names = dict.fromkeys(text_of(name, MAX_TITLE) for name, _ in listed)
        return tuple(n for n in names if n), [
            severity_of(s, "none") for _, s in listed if is_severity(s)
        ]
    line = text_of(_BLOCK.split(after, maxsplit=1)[0], 500)
    return tuple(n.strip() for n in line.split(",") if n.strip()), []


def _severity(title: str, states: list[Severity]) -> Severity:
    told = worst(states)
    if told != "none":
        return told
    low = title.lower()
    return next((severity for word, severity in _WORDS if word in low), "minor")


def _moment(entry: Any, name: str) -> int | None:
    # Asked as of any dict: feedparser itself answers for an absent one with another's, warning.
    parsed = dict.get(entry, f"{name}_parsed")
    if parsed is None:
        return None
    year, month, day, hour, minute, second = parsed[:6]
    at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    if not 1970 <= at.year < 2100:
        raise ValueError(f"{name}: {at.year} is too far off")
    return int(at.timestamp()) * 1_000_000
