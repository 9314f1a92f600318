"""Real providers' incidents of years ago, told again word by word at the pace of a clock.

Reads `status/incidents.jsonl.gz` of the data folder, which is not part of the broker. A page
shows what its owner had written by then and nothing that came later: an incident appears with
its first update and is resolved with its last.
"""

from __future__ import annotations

import gzip
from bisect import bisect_right
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from broker.paper.errors import BadControl
from broker.paper.status_shapes import Impact, Page, iso

_IMPACT: Final[tuple[Impact, ...]] = ("none", "minor", "major", "critical", "maintenance")


class _Update(Struct):
    status: str
    at: datetime
    body: str = ""


class _Incident(Struct):
    id: str
    provider: str
    name: str
    impact_level: int
    started_at: datetime
    closed_at: datetime
    components: list[str] = []
    updates: list[_Update] = []


class StatusHistory:
    """What the pages of some providers showed, at any moment of the record's time.

    Parameters
    ----------
    path : `incidents.jsonl.gz`
    begins : moment of the record that `at_s` is
    at_s : wall clock at which the record begins to run
    speed : seconds of the record per second of the clock
    """

    def __init__(self, path: Path, *, begins: datetime, at_s: float, speed: float = 1.0) -> None:
        try:
            lines = gzip.decompress(path.read_bytes()).splitlines()
            told = [msgspec.json.decode(line, type=_Incident) for line in lines]
        except (OSError, msgspec.DecodeError, EOFError) as error:
            raise BadControl(f"{path}: no history of incidents: {error}") from error
        self._begins_s = begins.replace(tzinfo=begins.tzinfo or UTC).timestamp()
        self._at_s = at_s
        self._speed = speed
        self._told: dict[str, list[_Incident]] = {}
        for incident in sorted(told, key=lambda i: i.started_at):
            if incident.updates:
                incident.updates.sort(key=lambda u: u.at)
                self._told.setdefault(incident.provider, []).append(incident)

    @property
    def providers(self) -> list[str]:
        """Ids of the providers with a history."""
        return sorted(self._told)

    def moment_s(self, now_s: float) -> float:
        """The record's time at wall clock `now_s`."""
        return self._begins_s + (now_s - self._at_s) * self._speed

    def page(self, provider: str, now_s: float) -> Page:
        """A provider's page at wall clock `now_s`. Raises `BadControl` on an unknown one."""
        told = self._told.get(provider)
        if told is None:
            raise BadControl(f"no history of {provider!r}; there is one of {self.providers}")
        moment_s = self.moment_s(now_s)
        components = sorted({c for incident in told for c in incident.components})
        seen = [i for i in told if i.updates[0].at.timestamp() <= moment_s]
        incidents = [_shown(i, moment_s) for i in seen]
        told_s = [u.at.timestamp() for i in seen for u in i.updates if u.at.timestamp() <= moment_s]
        return Page(provider, provider, components, incidents, max(told_s, default=0.0))


def _shown(incident: _Incident, moment_s: float) -> dict[str, Any]:
    n_told = bisect_right([u.at.timestamp() for u in incident.updates], moment_s)
    told = incident.updates[:n_told]
    over = told[-1].status in ("resolved", "postmortem")
    return {
        "id": incident.id,
        "name": incident.name,
        "status": told[-1].status,
        "impact": _IMPACT[incident.impact_level] if 0 <= incident.impact_level <= 4 else "minor",
        "created_at": iso(told[0].at.timestamp()),
        "started_at": iso(min(incident.started_at, told[0].at).timestamp()),
        "updated_at": iso(told[-1].at.timestamp()),
        "resolved_at": iso(told[-1].at.timestamp()) if over else None,
        "components": [{"name": c} for c in incident.components],
        "incident_updates": [
            {
                "status": u.status,
                "body": u.body,
                "created_at": iso(u.at.timestamp()),
                "updated_at": iso(u.at.timestamp()),
            }
            for u in reversed(told)
        ],
    }
