"""One status page over time: what of it is news, as records for the log. Pure.

Keeps the last state that was understood; a document that could not be read never gets here. A
page that lists what is going on ends an incident by no longer listing it; a history that has
dropped one says nothing. What was over long before we first looked is no news.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bidding.market import Offer
from feeds.market_records import StatusRecord
from feeds.status.incident import Incident, Stage, StatusSheet
from feeds.status.pages import StatusPage, concern_of

NEWS_US: Final = 24 * 3600 * 1_000_000
"""An incident that ended longer ago than this when first seen is left out."""
_MOST_KEPT: Final = 20_000


class StatusWatch:
    """What a page says now.

    Parameters
    ----------
    page : StatusPage
    offers : those of the page's provider
    """

    def __init__(self, page: StatusPage, offers: Sequence[Offer]) -> None:
        self.page = page
        self._offers = list(offers)
        self._known: dict[str, StatusRecord] = {}

    @property
    def going_on(self) -> list[StatusRecord]:
        """Incidents that are not over, nor yet to come."""
        return [r for r in self._known.values() if r.state not in ("resolved", "scheduled")]

    def restore(self, records: Iterable[StatusRecord]) -> None:
        """Resume from what was published before."""
        for record in records:
            if record.feed == self.page.id:
                self._known[record.incident_id] = record

    def take(self, sheet: StatusSheet, now_us: int) -> list[StatusRecord]:
        """What is new in a document, oldest first."""
        news: list[StatusRecord] = []
        seen: set[str] = set()
        for incident in sorted(sheet.incidents, key=lambda i: i.updated_us):
            record = self._record(incident, now_us)
            seen.add(record.incident_id)
            known = self._known.get(record.incident_id)
            if known is None and record.state == "resolved" and now_us - _end(record) > NEWS_US:
                continue
            if known is None or _said(known) != _said(record):
                self._known[record.incident_id] = record
                news.append(record)
        if sheet.is_current:
            news += [
                self._gone(r, now_us) for r in list(self.going_on) if r.incident_id not in seen
            ]
        self._forget()
        return news

    def _record(self, incident: Incident, now_us: int) -> StatusRecord:
        concern = concern_of(self.page, incident, self._offers)
        key = incident.id[:200]
        known = self._known.get(key)
        # Some pages do not say since when a part is unwell: since we saw it.
        first_us = incident.since_us or (known.since_us if known else now_us)
        return StatusRecord(
            provider=self.page.of,
            at_us=now_us,
            component=", ".join(incident.components)[:300],
            severity=incident.severity,
            state=stage_at(incident, now_us),
            since_us=first_us,
            incident_id=key,
            title=incident.title,
            models=list(concern.models),
            scope=concern.scope,
            regions=list(concern.regions),
            feed=self.page.id,
            told_us=incident.told_us or first_us,
            until_us=incident.until_us or 0,
        )

    def _gone(self, record: StatusRecord, now_us: int) -> StatusRecord:
        ended = StatusRecord(
            provider=record.provider,
            at_us=now_us,
            component=record.component,
            severity=record.severity,
            state="resolved",
            since_us=record.since_us,
            incident_id=record.incident_id,
            title=record.title,
            models=record.models,
            scope=record.scope,
            regions=record.regions,
            feed=record.feed,
            told_us=record.told_us,
            until_us=now_us,
        )
        self._known[record.incident_id] = ended
        return ended

    def _forget(self) -> None:
        """Bound the memory: the oldest of what is over goes first."""
        over = [r for r in self._known.values() if r.state == "resolved"]
        for record in sorted(over, key=lambda r: r.at_us)[: max(0, len(self._known) - _MOST_KEPT)]:
            del self._known[record.incident_id]


def stage_at(incident: Incident, now_us: int) -> Stage:
    """The stage at a moment: maintenance begins and ends by its plan, whatever is last said."""
    if incident.severity != "maintenance" or incident.stage != "scheduled":
        return incident.stage
    if incident.until_us is not None and now_us >= incident.until_us:
        return "resolved"
    has_begun = incident.until_us is not None and now_us >= incident.since_us
    return "identified" if has_begun else "scheduled"


def _end(record: StatusRecord) -> int:
    return record.until_us or record.told_us


def _said(record: StatusRecord) -> tuple[object, ...]:
    return (
        record.severity,
        record.state,
        record.title,
        record.component,
        record.scope,
        record.models,
        record.regions,
        record.since_us,
    )
