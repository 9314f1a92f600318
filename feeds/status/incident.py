"""What every status page says in its own words, in ours: incidents, their stage and severity.

Words of all the formats are read through two tables, so that a new wording is a row here. What
no table knows is taken for the mildest that still counts: a stage for an open one, a severity
for minor.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from feeds.errors import BadRecord

Severity = Literal["none", "minor", "major", "critical", "maintenance"]
Stage = Literal["scheduled", "investigating", "identified", "monitoring", "resolved"]
SEVERITIES: Final[tuple[Severity, ...]] = ("none", "maintenance", "minor", "major", "critical")
"""From mild to grave."""
MAX_TITLE: Final = 300
MAX_TEXT: Final = 2_000
MAX_INCIDENTS: Final = 5_000
_LATEST_US: Final = 4_102_444_800_000_000

_SEVERITY: Final[dict[str, Severity]] = {
    **{s: s for s in get_args(Severity)},
    "operational": "none",
    "up": "none",
    "available": "none",
    "notmonitored": "none",
    "serviceinformation": "none",
    "informational": "none",
    "informationalmessage": "none",
    "information": "none",
    "undermaintenance": "maintenance",
    "scheduledmaintenance": "maintenance",
    "degradedperformance": "minor",
    "degraded": "minor",
    "degradedavailability": "minor",
    "performanceissues": "minor",
    "minoroutage": "minor",
    "partialdegradation": "minor",
    "servicedegradation": "minor",
    "serviceimpact": "minor",
    "low": "minor",
    "warning": "minor",
    "partialoutage": "major",
    "servicedisruption": "major",
    "medium": "major",
    "error": "major",
    "majoroutage": "critical",
    "fulloutage": "critical",
    "serviceoutage": "critical",
    "downtime": "critical",
    "down": "critical",
    "high": "critical",
}
_STAGE: Final[dict[str, Stage]] = {
    **{s: s for s in get_args(Stage)},
    "notstartedyet": "scheduled",
    "upcoming": "scheduled",
    "inprogress": "identified",
    "verifying": "monitoring",
    "underinvestigation": "investigating",
    "investigation": "investigating",
    "active": "investigating",
    "new": "investigating",
    "open": "investigating",
    "update": "investigating",
    "serviceinformation": "investigating",
    "servicedisruption": "investigating",
    "serviceoutage": "investigating",
    "identifiedissue": "identified",
    "applyingmitigation": "identified",
    "mitigating": "identified",
    "mitigated": "monitoring",
    "watching": "monitoring",
    "recovering": "monitoring",
    "completed": "resolved",
    "closed": "resolved",
    "fixed": "resolved",
    "available": "resolved",
    "postmortem": "resolved",
    "servicerestored": "resolved",
    "falsealarm": "resolved",
}


class Update(Struct, frozen=True, kw_only=True):
    """One word of the provider on an incident."""

    at_us: int
    stage: Stage
    text: str = ""


class Incident(Struct, frozen=True, kw_only=True):
    """One incident of one provider, by the page's own id; `components` by the page's names.

    `since_us` is when the provider says it began; `told_us` when it first said so, as far as
    the page tells; `updates` newest first. `regions` are the provider's region codes, where it
    tells them.
    """

    id: str
    title: str
    severity: Severity
    stage: Stage
    since_us: int
    told_us: int
    updated_us: int
    until_us: int | None = None
    components: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    updates: tuple[Update, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it is said to be going on now."""
        return self.stage not in ("resolved", "scheduled")


class StatusSheet(Struct, frozen=True, kw_only=True):
    """A whole page. `is_current`: it lists all that is going on now, so that an incident it no
    longer has is over; a history merely drops its oldest. `components` are the names known.
    """

    incidents: list[Incident]
    is_current: bool
    components: list[str] = []
    n_skipped: int = 0
    skipped: list[str] = []


def severity_of(word: object, default: Severity = "minor") -> Severity:
    """Ours for a page's word.

    Examples
    --------
    >>> severity_of("MAJOROUTAGE"), severity_of("partial_outage"), severity_of("on fire")
    ('critical', 'major', 'minor')
    """
    return _SEVERITY.get(_plain(word), default)


def stage_of(word: object, default: Stage = "investigating") -> Stage:
    """Ours for a page's word; see `severity_of`."""
    return _STAGE.get(_plain(word), default)


def is_stage(word: object) -> bool:
    """Whether a word is one of a stage at all."""
    return _plain(word) in _STAGE


def is_severity(word: object) -> bool:
    """Whether a word is one of a severity at all."""
    return _plain(word) in _SEVERITY


def worst(severities: Iterable[Severity]) -> Severity:
    """The gravest; none of none."""
    return max(severities, key=SEVERITIES.index, default="none")


def time_us(value: object) -> int | None:
    """A page's moment: ISO 8601, RFC 822, or what JavaScript prints; None for nothing.

    Raises
    ------
    ValueError
        It is there and is no moment, or lies outside 1970 to 2100.

    Examples
    --------
    >>> time_us("2024-02-29T20:41:00Z") == time_us("Thu, 29 Feb 2024 12:41:00 -0800")
    True
    >>> time_us("Sat Jun 11 2022 18:55:50 GMT+0000 (Coordinated Universal Time)")
    1654973750000000
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 100:
        raise ValueError(f"{str(value)[:100]!r} is no time")
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        at = _other_time(value)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    found = round(at.timestamp() * 1e6)
    if not 0 <= found <= _LATEST_US:
        raise ValueError(f"{value!r} is too far off")
    return found


def _other_time(value: str) -> datetime:
    if " GMT" in value:
        return datetime.strptime(value.partition(" (")[0], "%a %b %d %Y %H:%M:%S GMT%z")
    try:
        # Names of American zones are not in RFC 822's own list of offsets for every parser.
        return parsedate_to_datetime(value)
    except (TypeError, IndexError) as error:
        raise ValueError(f"{value!r} is no time") from error


def text_of(value: object, most: int = MAX_TEXT) -> str:
    """A page's words on one line, tags and control characters out, cut at `most`."""
    if not isinstance(value, str):
        return ""
    plain = html.unescape(re.sub(r"<[^<>]{0,2000}>", " ", value[: 8 * most]))
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())[:most]


def named(value: object, what: str) -> str:
    """A name that must be there. Raises `ValueError` when it is not."""
    name = text_of(value, MAX_TITLE)
    if not name:
        raise ValueError(f"no {what}")
    return name


def read_all(
    entries: Iterable[tuple[str, Callable[[], Incident | None]]], what: str
) -> tuple[list[Incident], int, list[str]]:
    """Read each entry on its own, so that a broken one is named and spoils no other.

    Raises
    ------
    BadRecord
        There are more than anyone writes, or entries were there and none could be read.
    """
    incidents: list[Incident] = []
    skipped: list[str] = []
    n_skipped = n_seen = 0
    for name, read in entries:
        n_seen += 1
        if n_seen > MAX_INCIDENTS:
            raise BadRecord(f"{what}: more than {MAX_INCIDENTS} incidents")
        try:
            found = read()
        except (BadRecord, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            n_skipped += 1
            if len(skipped) < 100:
                skipped.append(f"{name[:200]}: {str(error)[:300]}")
            continue
        if found is not None:
            incidents.append(found)
    if n_skipped and not incidents:
        raise BadRecord(f"{what}: none of {n_skipped} incidents can be read: {skipped[0]}")
    return incidents, n_skipped, skipped


def _plain(word: object) -> str:
    return re.sub(r"[^a-z]", "", word.lower()) if isinstance(word, str) and len(word) < 200 else ""


def objects(value: Any, what: str) -> list[dict[str, Any]]:
    """The objects of a list; absent is empty. Raises `BadRecord` when it is something else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRecord(f"{what}: a {type(value).__name__} where a list was due")
    return [v for v in value if isinstance(v, dict)]
