"""A provider's status page in the shape of Statuspage v2 (`/api/v2/summary.json`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from broker.paper.errors import BadControl

Impact = Literal["none", "minor", "major", "critical", "maintenance"]
Stage = Literal["investigating", "identified", "monitoring", "resolved"]
_RANK: tuple[Impact, ...] = ("none", "maintenance", "minor", "major", "critical")
_DESCRIPTION = {
    "none": "All Systems Operational",
    "maintenance": "Service Under Maintenance",
    "minor": "Partially Degraded Service",
    "major": "Partial System Outage",
    "critical": "Major Service Outage",
}
_COMPONENT = {
    "none": "operational",
    "maintenance": "under_maintenance",
    "minor": "degraded_performance",
    "major": "partial_outage",
    "critical": "major_outage",
}


class IncidentSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An incident to open; `components` are names on the page, all if empty."""

    name: str
    impact: Impact = "major"
    body: str = "We are investigating."
    components: list[str] = []


class IncidentPatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An update of an incident; `resolved` closes it."""

    status: Stage
    body: str = ""


class StatusPage:
    """One provider's page: a component for its API and one per model."""

    def __init__(self, provider_id: str, name: str, models: list[str]) -> None:
        self._id = provider_id
        self._name = name
        self._components = ["API", *models]
        self._incidents: dict[str, dict[str, Any]] = {}
        self._updated_s = 0.0

    def open(self, spec: IncidentSpec, now_s: float) -> str:
        """Open an incident; its id. Raises `BadControl` on an unknown component."""
        unknown = sorted(set(spec.components) - set(self._components))
        if unknown:
            raise BadControl(f"no such components {unknown}; there are {self._components}")
        incident_id = f"{self._id}-{len(self._incidents) + 1}"
        at = _iso(now_s)
        self._updated_s = now_s
        self._incidents[incident_id] = {
            "id": incident_id,
            "name": spec.name,
            "status": "investigating",
            "impact": spec.impact,
            "created_at": at,
            "started_at": at,
            "updated_at": at,
            "resolved_at": None,
            "components": [{"name": c} for c in spec.components or self._components],
            "incident_updates": [
                {"status": "investigating", "body": spec.body, "created_at": at, "updated_at": at}
            ],
        }
        return incident_id

    def update(self, incident_id: str, patch: IncidentPatch, now_s: float) -> None:
        """Move an incident on. Raises `BadControl` when there is no such incident."""
        incident = self._incidents.get(incident_id)
        if incident is None:
            raise BadControl(f"no incident {incident_id!r}; there are {list(self._incidents)}")
        at = _iso(now_s)
        self._updated_s = now_s
        incident |= {"status": patch.status, "updated_at": at}
        if patch.status == "resolved":
            incident["resolved_at"] = at
        incident["incident_updates"].insert(
            0, {"status": patch.status, "body": patch.body, "created_at": at, "updated_at": at}
        )

    def summary(self) -> dict[str, Any]:
        """The page; resolved incidents are no longer on it, as on the real ones."""
        unresolved = [i for i in self._incidents.values() if i["status"] != "resolved"]
        worst: Impact = max((i["impact"] for i in unresolved), key=_RANK.index, default="none")
        components = []
        for name in self._components:
            hits = [
                i["impact"] for i in unresolved if any(c["name"] == name for c in i["components"])
            ]
            impact = max(hits, key=_RANK.index, default="none")
            component_id = f"{self._id}:{name}"
            components.append(
                {
                    "id": component_id,
                    "name": name,
                    "status": _COMPONENT[impact],
                    "updated_at": _iso(self._updated_s),
                }
            )
        return {
            "page": {
                "id": self._id,
                "name": self._name,
                "time_zone": "Etc/UTC",
                "updated_at": _iso(self._updated_s),
            },
            "status": {"indicator": worst, "description": _DESCRIPTION[worst]},
            "components": components,
            "incidents": unresolved,
            "scheduled_maintenances": [],
        }


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
