"""Instatus: `/summary.json` (what is going on) and `/v2/components.json` (how each part is)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from feeds.errors import BadRecord
from feeds.status.document import json_page
from feeds.status.incident import (
    MAX_TITLE,
    Incident,
    StatusSheet,
    named,
    objects,
    read_all,
    severity_of,
    stage_of,
    text_of,
    time_us,
)

NAME = "instatus"


def parse(body: bytes) -> StatusSheet:
    """The page. Raises `BadRecord` when it is none."""
    page = json_page(body, NAME)
    if not isinstance(page.get("page"), dict) and "components" not in page:
        raise BadRecord(f"{NAME}: neither a page nor components in it")
    active = objects(page.get("activeIncidents"), NAME)
    planned = objects(page.get("activeMaintenances"), NAME)
    components = objects(page.get("components"), NAME)
    entries: list[tuple[str, Callable[[], Incident | None]]] = [
        (str(i.get("name")), partial(_incident, i)) for i in active
    ]
    entries += [(str(m.get("name")), partial(_maintenance, m)) for m in planned]
    entries += [(str(c.get("id")), partial(_unwell, c)) for c in components]
    incidents, n_skipped, skipped = read_all(entries, NAME)
    return StatusSheet(
        incidents=incidents,
        is_current=True,
        components=[text_of(c.get("name"), MAX_TITLE) for c in components],
        n_skipped=n_skipped,
        skipped=skipped,
    )


def _id(given: dict[str, Any]) -> str:
    stated = text_of(given.get("id") or given.get("url"), MAX_TITLE)
    if stated:
        return stated.rpartition("/")[2]
    told = f"{given.get('name')}|{given.get('started') or given.get('start')}"
    return hashlib.sha256(told.encode()).hexdigest()[:20]


def _incident(given: dict[str, Any]) -> Incident:
    since_us = time_us(given.get("started"))
    if since_us is None:
        raise ValueError("no time it began at")
    updated_us = time_us(given.get("updatedAt")) or since_us
    stage = stage_of(given.get("status"))
    return Incident(
        id=_id(given),
        title=named(given.get("name"), "name"),
        severity=severity_of(given.get("impact")),
        stage=stage,
        since_us=since_us,
        told_us=since_us,
        updated_us=updated_us,
        until_us=updated_us if stage == "resolved" else None,
        components=tuple(
            text_of(c.get("name"), MAX_TITLE)
            for c in objects(given.get("components"), NAME)
            if c.get("name")
        ),
    )


def _maintenance(given: dict[str, Any]) -> Incident:
    since_us = time_us(given.get("start"))
    if since_us is None:
        raise ValueError("no time it begins at")
    stage = stage_of(given.get("status"), "scheduled")
    return Incident(
        id=_id(given),
        title=named(given.get("name"), "name"),
        severity="maintenance",
        stage=stage,
        since_us=since_us,
        told_us=since_us,
        updated_us=time_us(given.get("updatedAt")) or since_us,
        until_us=since_us if stage == "resolved" else None,
    )


def _unwell(given: dict[str, Any]) -> Incident | None:
    severity = severity_of(given.get("status"), "none")
    if severity == "none":
        return None
    name = named(given.get("name"), "name")
    since_us = time_us(given.get("updatedAt")) or 0
    return Incident(
        id=f"component:{named(given.get('id'), 'id')}",
        title=f"{name}: {text_of(given.get('status'), 40).lower()}",
        severity=severity,
        stage="investigating",
        since_us=since_us,
        told_us=since_us,
        updated_us=since_us,
        components=(name,),
    )
