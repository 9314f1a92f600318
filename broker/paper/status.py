"""A provider's status page, on which incidents are opened and moved on by control."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from broker.paper.errors import BadControl
from broker.paper.status_shapes import Impact, Page, iso

Stage = Literal["investigating", "identified", "monitoring", "resolved"]


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
        at = iso(now_s)
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
        at = iso(now_s)
        self._updated_s = now_s
        incident |= {"status": patch.status, "updated_at": at}
        if patch.status == "resolved":
            incident["resolved_at"] = at
        incident["incident_updates"].insert(
            0, {"status": patch.status, "body": patch.body, "created_at": at, "updated_at": at}
        )

    def now(self) -> Page:
        """The page in all the shapes it is published in."""
        return Page(
            self._id,
            self._name,
            self._components,
            list(self._incidents.values()),
            self._updated_s,
        )

    def summary(self) -> dict[str, Any]:
        """The page as `/api/v2/summary.json`."""
        return self.now().summary()
