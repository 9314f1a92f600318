"""Google Cloud's `incidents.json`: a list of incidents with products, places and updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from feeds.errors import BadRecord
from feeds.status.document import json_document
from feeds.status.incident import (
    MAX_TITLE,
    Incident,
    StatusSheet,
    Update,
    named,
    objects,
    read_all,
    severity_of,
    stage_of,
    text_of,
    time_us,
)

NAME = "google-cloud"


def parse(body: bytes) -> StatusSheet:
    """The list. Raises `BadRecord` when it is none."""
    found = json_document(body, NAME)
    if not isinstance(found, list):
        raise BadRecord(f"{NAME}: a {type(found).__name__} where a list was due")
    given = [i for i in found if isinstance(i, dict)]
    if len(given) != len(found):
        raise BadRecord(f"{NAME}: {len(found) - len(given)} entries are no objects")
    entries: list[tuple[str, Callable[[], Incident | None]]] = [
        (str(i.get("id")), partial(_incident, i)) for i in given
    ]
    incidents, n_skipped, skipped = read_all(entries, NAME)
    products = {name for i in incidents for name in i.components}
    return StatusSheet(
        incidents=incidents,
        is_current=False,
        components=sorted(products),
        n_skipped=n_skipped,
        skipped=skipped,
    )


def _incident(given: dict[str, Any]) -> Incident:
    until_us = time_us(given.get("end"))
    updates = tuple(
        Update(
            at_us=time_us(u.get("created") or u.get("when")) or 0,
            stage=stage_of(u.get("status")),
            text=text_of(u.get("text")),
        )
        for u in objects(given.get("updates"), NAME)
    )
    updates = tuple(sorted(updates, key=lambda u: -u.at_us))
    since_us = time_us(given.get("begin"))
    if since_us is None:
        raise ValueError("no time it began at")
    told_us = time_us(given.get("created")) or since_us
    places = given.get("currently_affected_locations") if until_us is None else None
    places = places or given.get("previously_affected_locations")
    products = objects(given.get("affected_products"), NAME)
    names = [text_of(p.get("title"), MAX_TITLE) for p in products]
    if not names and given.get("service_name"):
        names = [text_of(given["service_name"], MAX_TITLE)]
    return Incident(
        id=named(given.get("id") or given.get("number"), "id"),
        title=named(given.get("external_desc") or given.get("service_name"), "description"),
        severity=severity_of(given.get("status_impact") or given.get("severity")),
        stage="resolved" if until_us is not None else "investigating",
        since_us=since_us,
        told_us=told_us,
        updated_us=time_us(given.get("modified")) or told_us,
        until_us=until_us,
        components=tuple(n for n in names if n),
        regions=tuple(
            text_of(p.get("id"), 60) for p in objects(places, NAME) if p.get("id") != "global"
        ),
        updates=updates,
    )
