"""The RSS feeds of AWS Health and of Azure, whose items are updates or bare notices.

AWS writes an item per update, newest first; those of one event share the guid up to its time,
or at least the subject. The words before the colon of a title are the severity
(`Service degradation: Increased Error Rates`), `[RESOLVED]` its end. Azure lists only what is
going on; an item that has gone is over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
    is_stage,
    named,
    read_all,
    severity_of,
    stage_of,
    text_of,
    worst,
)
from feeds.status.syndicated import entry_html, entry_times

AWS: Final = "aws-health"
AZURE: Final = "azure"
_RESOLVED: Final = re.compile(r"\[resolved\]|^service is operating normally", re.IGNORECASE)
_REGION: Final = re.compile(r"\b([a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d)\b")
_EVENT_GAP_US: Final = 24 * 3600 * 1_000_000


def parse_aws(body: bytes) -> StatusSheet:
    """The feed of one service in one region. Raises `BadRecord` when it is none."""
    found = feed_document(body, AWS, ("rss",))
    words: dict[str, list[tuple[int, str, str, str]]] = {}
    n_skipped = 0
    skipped: list[str] = []
    for entry in found.entries:
        try:
            at_us = entry_times(entry)[0]
            title = named(entry.get("title"), "title")
        except (ValueError, TypeError) as error:
            n_skipped += 1
            skipped = [*skipped, str(error)][:100]
            continue
        guid = str(entry.get("id", ""))
        subject = _RESOLVED.sub("", title.partition(": ")[2] or title).strip(" :-") or title
        where = guid.partition("#")[2].rpartition("_")[0]
        words.setdefault(f"{where}:{subject.lower()}", []).append(
            (at_us, title, text_of(entry_html(entry)), where)
        )
    entries: list[tuple[str, Callable[[], Incident | None]]] = []
    for key, told in words.items():
        entries += [(key, partial(_aws_incident, event)) for event in _events(sorted(told))]
    service = text_of(getattr(found.feed, "title", ""), MAX_TITLE).removesuffix(" Service Status")
    incidents, n_more, more = read_all(entries, AWS)
    return StatusSheet(
        incidents=sorted(incidents, key=lambda i: -i.updated_us),
        is_current=False,
        components=[service] if service else [],
        n_skipped=n_skipped + n_more,
        skipped=[*skipped, *more][:100],
    )


def _events(told: list[tuple[int, str, str, str]]) -> list[list[tuple[int, str, str, str]]]:
    """Words of one subject, cut where a day of silence or a resolution lies between."""
    events: list[list[tuple[int, str, str, str]]] = []
    for word in told:
        before = events[-1][-1] if events else None
        ended = before is not None and _RESOLVED.search(before[1]) is not None
        if before is None or ended or word[0] - before[0] > _EVENT_GAP_US:
            events.append([])
        events[-1].append(word)
    return events


def _aws_incident(told: list[tuple[int, str, str, str]]) -> Incident:
    first_us, last_us = told[0][0], told[-1][0]
    where = told[-1][3]
    stages: list[Stage] = [
        "resolved" if _RESOLVED.search(title) else "investigating" for _, title, _, _ in told
    ]
    severities: list[Severity] = [severity_of(title.partition(":")[0]) for _, title, _, _ in told]
    region = _REGION.search(where) or _REGION.search(told[-1][1])
    service = where[: region.start()].strip("-") if region and where else where
    subject = told[-1][1].partition(": ")[2] or told[-1][1]
    return Incident(
        id=f"{where or 'aws'}:{first_us // 1_000_000}",
        title=_RESOLVED.sub("", subject).strip(" :-") or subject,
        severity=worst(severities) if stages[-1] == "resolved" else _open(severities),
        stage=stages[-1],
        since_us=first_us,
        told_us=first_us,
        updated_us=last_us,
        until_us=last_us if stages[-1] == "resolved" else None,
        components=(service,) if service else (),
        regions=(region.group(1),) if region else (),
        updates=tuple(
            Update(at_us=at_us, stage=stage, text=text)
            for (at_us, _, text, _), stage in zip(reversed(told), reversed(stages), strict=True)
        ),
    )


def _open(severities: list[Severity]) -> Severity:
    return severities[-1] if severities[-1] != "none" else worst(severities)


def parse_azure(body: bytes) -> StatusSheet:
    """The feed of what is going on. Raises `BadRecord` when it is none."""
    found = feed_document(body, AZURE, ("rss",))
    entries: list[tuple[str, Callable[[], Incident | None]]] = [
        (str(e.get("id", i)), partial(_azure_incident, e)) for i, e in enumerate(found.entries)
    ]
    incidents, n_skipped, skipped = read_all(entries, AZURE)
    return StatusSheet(incidents=incidents, is_current=True, n_skipped=n_skipped, skipped=skipped)


def _azure_incident(entry: Any) -> Incident:
    first_us, last_us = entry_times(entry)
    title = named(entry.get("title"), "title")
    parts = [p.strip() for p in title.split(" - ")]
    stage = stage_of(parts[-1]) if is_stage(parts[-1]) else "investigating"
    tags = [text_of(t.get("term"), MAX_TITLE) for t in entry.get("tags", [])]
    services = [t for t in tags if t] or parts[:1]
    named_parts = parts[1:-1] if is_stage(parts[-1]) else parts[1:]
    regions = [re.sub(r"[^a-z0-9]", "", p.lower()) for p in named_parts[:1]]
    return Incident(
        id=named(entry.get("id") or entry.get("link"), "id"),
        title=title,
        severity="major",
        stage=stage,
        since_us=first_us,
        told_us=first_us,
        updated_us=last_us,
        until_us=last_us if stage == "resolved" else None,
        components=tuple(services),
        regions=tuple(r for r in regions if r and "multi" not in r and "global" not in r),
        updates=(Update(at_us=last_us, stage=stage, text=text_of(entry_html(entry))),),
    )
