"""Better Stack's `/index.json`: a JSON:API document of resources, reports and their updates."""

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
    Stage,
    StatusSheet,
    Update,
    named,
    objects,
    read_all,
    severity_of,
    text_of,
    time_us,
    worst,
)

NAME = "better-stack"


def parse(body: bytes) -> StatusSheet:
    """The page. Raises `BadRecord` when it is none."""
    page = json_page(body, NAME)
    data = page.get("data")
    if not isinstance(data, dict) or data.get("type") != "status_page":
        raise BadRecord(f"{NAME}: no status page in it")
    included = objects(page.get("included"), NAME)
    of_kind: dict[str, list[dict[str, Any]]] = {}
    for thing in included:
        of_kind.setdefault(str(thing.get("type")), []).append(thing)
    resources = {
        str(r.get("id")): text_of(_attributes(r).get("public_name"), MAX_TITLE)
        for r in of_kind.get("status_page_resource", [])
    }
    updates = {str(u.get("id")): _attributes(u) for u in of_kind.get("status_update", [])}
    reports = of_kind.get("status_report", [])
    told_of = {
        str(a.get("status_page_resource_id"))
        for r in reports
        if _attributes(r).get("ends_at") is None
        for a in objects(_attributes(r).get("affected_resources"), NAME)
    }
    entries: list[tuple[str, Callable[[], Incident | None]]] = [
        (str(r.get("id")), partial(_incident, r, resources, updates)) for r in reports
    ]
    entries += [
        (str(r.get("id")), partial(_unwell, r))
        for r in of_kind.get("status_page_resource", [])
        if str(r.get("id")) not in told_of
    ]
    incidents, n_skipped, skipped = read_all(entries, NAME)
    return StatusSheet(
        incidents=incidents,
        is_current=True,
        components=[name for name in resources.values() if name],
        n_skipped=n_skipped,
        skipped=skipped,
    )


def _attributes(thing: dict[str, Any]) -> dict[str, Any]:
    found = thing.get("attributes")
    return found if isinstance(found, dict) else {}


def _incident(
    report: dict[str, Any], resources: dict[str, str], updates: dict[str, dict[str, Any]]
) -> Incident:
    given = _attributes(report)
    since_us = time_us(given.get("starts_at"))
    if since_us is None:
        raise ValueError("no time it began at")
    until_us = time_us(given.get("ends_at"))
    is_planned = given.get("report_type") == "maintenance"
    affected = objects(given.get("affected_resources"), NAME)
    told = _updates(report, updates)
    stage: Stage = "investigating"
    if is_planned and not told:
        stage = "scheduled"
    severity: Severity = worst(severity_of(a.get("status"), "none") for a in affected)
    if severity == "none":
        severity = severity_of(given.get("aggregate_state"), "minor")
    if until_us is not None and not is_planned:
        stage = "resolved"
    elif told and severity_of(_last_state(report, updates), "minor") == "none":
        stage = "resolved"
        until_us = until_us or told[0].at_us
    return Incident(
        id=named(report.get("id"), "id"),
        title=named(given.get("title") or "Incident", "title"),
        severity="maintenance" if is_planned else severity,
        stage=stage,
        since_us=since_us,
        told_us=told[-1].at_us if told else since_us,
        updated_us=told[0].at_us if told else since_us,
        until_us=until_us,
        components=tuple(
            dict.fromkeys(
                name
                for a in affected
                if (name := resources.get(str(a.get("status_page_resource_id")), ""))
            )
        ),
        updates=told,
    )


def _ids(report: dict[str, Any]) -> list[str]:
    relations = report.get("relationships")
    held = relations.get("status_updates") if isinstance(relations, dict) else None
    data = held.get("data") if isinstance(held, dict) else None
    return [str(d.get("id")) for d in objects(data, NAME)]


def _updates(report: dict[str, Any], updates: dict[str, dict[str, Any]]) -> tuple[Update, ...]:
    found = [
        Update(
            at_us=time_us(u.get("published_at")) or 0,
            stage="investigating",
            text=text_of(u.get("message")),
        )
        for u in (updates.get(i) for i in _ids(report))
        if u is not None
    ]
    return tuple(sorted(found, key=lambda u: -u.at_us))


def _last_state(report: dict[str, Any], updates: dict[str, dict[str, Any]]) -> Severity:
    """How the affected are by the newest update that tells it."""
    told = [u for u in (updates.get(i) for i in _ids(report)) if u is not None]
    for update in sorted(told, key=lambda u: str(u.get("published_at")), reverse=True):
        states = objects(update.get("affected_resources"), NAME)
        if states:
            resolved = all(s.get("status") in ("resolved", "operational") for s in states)
            return "none" if resolved else "minor"
    return "minor"


def _unwell(resource: dict[str, Any]) -> Incident | None:
    given = _attributes(resource)
    severity = severity_of(given.get("status"), "none")
    if severity == "none":
        return None
    name = named(given.get("public_name"), "name")
    return Incident(
        id=f"component:{named(resource.get('id'), 'id')}",
        title=f"{name}: {text_of(given.get('status'), 40)}",
        severity=severity,
        stage="investigating",
        since_us=0,
        told_us=0,
        updated_us=0,
        components=(name,),
    )
