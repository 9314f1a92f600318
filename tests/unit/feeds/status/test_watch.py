"""What of a page is news, and that a page's end of an incident is heard."""

from __future__ import annotations

from bidding.market import Offer, PriceList
from feeds.market_records import StatusRecord
from feeds.status.incident import Incident, Severity, Stage, StatusSheet
from feeds.status.pages import StatusPage
from feeds.status.watch import NEWS_US, StatusWatch

FREE = PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=0)
PAGE = StatusPage(id="p-status", provider="p", format="statuspage", url="https://x")
NOW = 1_700_000_000_000_000
S = 1_000_000


def watch() -> StatusWatch:
    return StatusWatch(PAGE, [Offer(provider="p", model="m", prices=FREE)])


def told(
    *,
    stage: Stage = "investigating",
    severity: Severity = "major",
    key: str = "1",
    since_us: int = NOW - 60 * S,
    until_us: int | None = None,
) -> Incident:
    return Incident(
        id=key,
        title="Errors",
        severity=severity,
        stage=stage,
        since_us=since_us,
        told_us=since_us,
        updated_us=since_us,
        until_us=until_us,
    )


def sheet(*incidents: Incident, is_current: bool = True) -> StatusSheet:
    return StatusSheet(incidents=list(incidents), is_current=is_current)


def test_only_what_changed_is_news() -> None:
    page = watch()
    (first,) = page.take(sheet(told()), NOW)
    assert (first.provider, first.scope, first.state) == ("p", "provider", "investigating")
    assert page.take(sheet(told()), NOW + S) == []
    (moved,) = page.take(sheet(told(stage="monitoring")), NOW + 2 * S)
    assert moved.state == "monitoring"


def test_a_current_page_ends_what_it_no_longer_lists_and_a_history_does_not() -> None:
    page = watch()
    page.take(sheet(told()), NOW)
    assert page.take(sheet(is_current=False), NOW + S) == []
    (ended,) = page.take(sheet(), NOW + 2 * S)
    assert (ended.state, ended.until_us) == ("resolved", NOW + 2 * S)
    assert page.take(sheet(), NOW + 3 * S) == []
    assert page.going_on == []


def test_what_was_over_long_ago_is_no_news() -> None:
    old = told(stage="resolved", until_us=NOW - NEWS_US - S)
    late = told(stage="resolved", until_us=NOW - S, key="2")
    assert [r.incident_id for r in watch().take(sheet(old, late, is_current=False), NOW)] == ["2"]


def test_maintenance_begins_and_ends_by_its_plan() -> None:
    planned = told(
        stage="scheduled", severity="maintenance", since_us=NOW + 10 * S, until_us=NOW + 20 * S
    )
    page = watch()
    states = [
        [r.state for r in page.take(sheet(planned), NOW + t * S)] for t in (0, 5, 10, 15, 20, 25)
    ]
    assert states == [["scheduled"], [], ["identified"], [], ["resolved"], []]


def test_a_part_without_a_time_is_unwell_since_we_saw_it() -> None:
    page = watch()
    unwell = told(since_us=0, key="component:1")
    (first,) = page.take(sheet(unwell), NOW)
    assert first.since_us == NOW
    assert page.take(sheet(unwell), NOW + 9 * S) == []


def test_a_restart_announces_nothing_twice() -> None:
    before = watch()
    published = before.take(sheet(told()), NOW)
    other = StatusRecord(
        provider="p", at_us=NOW, component="", severity="major", state="x", since_us=1, feed="q"
    )
    after = watch()
    after.restore([*published, other])
    assert after.take(sheet(told()), NOW + S) == []
    assert [r.state for r in after.take(sheet(), NOW + 2 * S)] == ["resolved"]
