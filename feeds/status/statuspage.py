"""Statuspage v2 JSON: `/api/v2/summary.json` and `/api/v2/incidents.json`.

incident.io serves the same two addresses in the same shape, with fewer fields: what is missing
is worked out from what is there. A component that is not well without an incident that says so
becomes one, under the component's own id.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from feeds.errors import BadRecord
from feeds.status.document import json_page
from feeds.status.incident import (
    MAX_TITLE,
    Incident,
    Severity,
    StatusSheet,
    Update,
    named,
    objects,
    read_all,
    severity_of,
    stage_of,
    text_of,
    time_us,
    worst,
)

NAME = "statuspage"


def parse(body: bytes) -> StatusSheet:
    """The page. Raises `BadRecord` when it is none."""
    page = json_page(body, NAME)
    if not isinstance(page.get("page"), dict):
        raise BadRecord(f"{NAME}: no page in it")
    if not any(k in page for k in ("incidents", "components", "status")):
        raise BadRecord(f"{NAME}: neither incidents nor components nor a status")
    found = objects(page.get("incidents"), NAME)
    planned = objects(page.get("scheduled_maintenances"), NAME)
    components = [c for c in objects(page.get("components"), NAME) if not c.get("group")]
    told_of = {n for i in [*found, *planned] for n in _components(i)}
    entries: list[tuple[str, Callable[[], Incident | None]]] = [
        (str(i.get("id")), partial(_incident, i)) for i in found
    ]
    entries += [(str(m.get("id")), partial(_maintenance, m)) for m in planned]
    entries += [
        (str(c.get("id")), partial(_unwell, c))
        for c in components
        if text_of(c.get("name"), MAX_TITLE) not in told_of
    ]
    incidents, n_skipped, skipped = read_all(entries, NAME)
    return StatusSheet(
        incidents=incidents,
        is_current="components" in page,
        components=[text_of(c.get("name"), MAX_TITLE) for c in components],
        n_skipped=n_skipped,
        skipped=skipped,
    )


def _incident(given: dict[str, Any]) -> Incident:
    updates = tuple(_update(u) for u in objects(given.get("incident_updates"), NAME))
    updates = tuple(sorted(updates, key=lambda u: -u.at_us))
    created_us = time_us(given.get("created_at"))
    since_us = time_us(given.get("started_at")) or created_us
    if since_us is None and updates:
        since_us = updates[-1].at_us
    if since_us is None:
        raise ValueError("no time it began at")
    stage = stage_of(given.get("status") or (updates[0].stage if updates else ""))
    told_us = min([u.at_us for u in updates] + ([created_us] if created_us else []) + [2**60])
    updated_us = time_us(given.get("updated_at")) or max([u.at_us for u in updates] + [since_us])
    return Incident(
        id=named(given.get("id"), "id"),
        title=named(given.get("name"), "name"),
        severity=_severity(given),
        stage=stage,
        since_us=since_us,
        told_us=told_us if told_us < 2**60 else since_us,
        updated_us=updated_us,
        until_us=(time_us(given.get("resolved_at")) or updated_us) if stage == "resolved" else None,
        components=tuple(_components(given)),
        updates=updates,
    )


def _severity(given: dict[str, Any]) -> Severity:
    if given.get("impact"):
        return severity_of(given["impact"])
    changed = [
        severity_of(c.get("new_status"), "none")
        for u in objects(given.get("incident_updates"), NAME)
        for c in objects(u.get("affected_components"), NAME)
    ]
    now = [severity_of(c.get("status"), "none") for c in objects(given.get("components"), NAME)]
    found = worst([*changed, *now])
    return found if found != "none" else "minor"


def _update(given: dict[str, Any]) -> Update:
    at_us = time_us(given.get("display_at") or given.get("created_at") or given.get("updated_at"))
    if at_us is None:
        raise ValueError("an update without a time")
    return Update(at_us=at_us, stage=stage_of(given.get("status")), text=text_of(given.get("body")))


def _components(given: dict[str, Any]) -> list[str]:
    names = [text_of(c.get("name"), MAX_TITLE) for c in objects(given.get("components"), NAME)]
    for update in objects(given.get("incident_updates"), NAME):
        changed = objects(update.get("affected_components"), NAME)
        names += [text_of(c.get("name"), MAX_TITLE) for c in changed]
    return list(dict.fromkeys(n for n in names if n))


def _maintenance(given: dict[str, Any]) -> Incident:
    base = _incident({**given, "impact": "maintenance"})
    begins_us = time_us(given.get("scheduled_for")) or base.since_us
    return Incident(
        id=base.id,
        title=base.title,
        severity="maintenance",
        stage=base.stage,
        since_us=begins_us,
        told_us=base.told_us,
        updated_us=base.updated_us,
        until_us=base.until_us,
        components=base.components,
        updates=base.updates,
    )


def _unwell(given: dict[str, Any]) -> Incident | None:
    severity = severity_of(given.get("status"), "none")
    if severity == "none":
        return None
    since_us = time_us(given.get("updated_at")) or 0
    name = named(given.get("name"), "name")
    return Incident(
        id=f"component:{named(given.get('id'), 'id')}",
        title=f"{name}: {text_of(given.get('status'), 40).replace('_', ' ')}",
        severity=severity,
        stage="investigating",
        since_us=since_us,
        told_us=since_us,
        updated_us=since_us,
        components=(name,),
    )
