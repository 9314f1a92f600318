"""Each format says what its page says."""

from __future__ import annotations

import pytest

from feeds.errors import BadRecord
from feeds.status.formats import FORMATS, parse
from feeds.status.incident import Incident, time_us
from tests.fakes import status_pages as pages


def one(name: str, body: bytes) -> Incident:
    sheet = parse(name, body)
    assert sheet.n_skipped == 0, sheet.skipped
    return sheet.incidents[0]


def at(text: str) -> int:
    found = time_us(text)
    assert found is not None
    return found


def test_every_format_has_a_page_here() -> None:
    assert set(pages.PAGES) == set(FORMATS)


def test_statuspage_tells_stage_components_and_who_said_what_when() -> None:
    sheet = parse("statuspage", pages.STATUSPAGE)
    first, planned, unwell = sheet.incidents
    assert (first.severity, first.stage, first.components) == ("major", "identified", ("API",))
    assert first.since_us == at("2024-03-01T10:00:00Z")
    assert first.told_us == at("2024-03-01T10:11:00Z")
    assert [u.stage for u in first.updates] == ["identified", "investigating"]
    assert first.updates[0].text == "Found & fixing ."
    assert (planned.severity, planned.stage) == ("maintenance", "scheduled")
    assert planned.since_us == at("2024-03-05T02:00:00Z")
    assert (unwell.components, unwell.severity) == (("Embeddings",), "minor")
    assert sheet.is_current
    assert sheet.components == ["API", "Embeddings", "Console"]


def test_incident_io_is_read_without_impact_start_or_list_of_components() -> None:
    found = one("statuspage", pages.INCIDENT_IO)
    assert (found.severity, found.stage) == ("critical", "resolved")
    assert found.components == ("Chat Completions",)
    assert found.until_us == at("2025-06-10T09:30:00Z")
    assert not parse("statuspage", pages.INCIDENT_IO).is_current


def test_atom_tells_the_newest_stage_and_a_severity_by_its_title() -> None:
    found = one("feed", pages.ATOM)
    assert (found.severity, found.stage) == ("critical", "resolved")
    assert found.told_us == at("2024-03-01T10:11:00Z")
    assert found.until_us == at("2024-03-01T11:40:00Z")


def test_rss_tells_components_and_their_states() -> None:
    found = one("feed", pages.RSS)
    assert (found.stage, found.severity) == ("monitoring", "major")
    assert found.components == ("Chat Completions", "Batch")


def test_google_tells_products_places_and_that_it_was_told_late() -> None:
    found = one("google-cloud", pages.GOOGLE)
    assert (found.severity, found.is_open) == ("critical", True)
    assert (found.components, found.regions) == (("Vertex Gemini API",), ("us-central1",))
    assert found.told_us - found.since_us == at("1970-01-01T00:55:44Z")


def test_aws_items_of_one_event_are_one_incident() -> None:
    sheet = parse("aws-health", pages.AWS)
    (found,) = sheet.incidents
    assert (found.title, found.severity) == ("Increased Error Rates", "minor")
    assert (found.stage, found.components, found.regions) == (
        "resolved",
        ("bedrock",),
        ("us-east-1",),
    )
    assert found.until_us is not None
    assert found.until_us - found.since_us == 2 * 3600 * 1_000_000


def test_azure_tells_service_region_and_stage_in_a_title() -> None:
    found = one("azure", pages.AZURE)
    assert (found.components, found.regions) == (("Azure OpenAI Service",), ("eastus",))
    assert (found.stage, found.severity) == ("identified", "major")


def test_instatus_tells_incidents_and_what_is_planned() -> None:
    first, planned = parse("instatus", pages.INSTATUS).incidents
    assert (first.id, first.severity, first.is_open) == ("cl4a8", "critical", True)
    assert (planned.severity, planned.stage) == ("maintenance", "scheduled")


def test_better_stack_joins_reports_resources_and_updates() -> None:
    report, unwell = parse("better-stack", pages.BETTER_STACK).incidents
    assert (report.components, report.severity) == (("Llama 3.3 70B",), "minor")
    assert report.told_us == at("2025-11-20T10:05:00Z")
    assert (unwell.components, unwell.severity) == (("Qwen",), "critical")


def test_one_broken_incident_is_named_and_spoils_no_other() -> None:
    body = pages.STATUSPAGE.replace(b'"id": "m1"', b'"id": ""')
    sheet = parse("statuspage", body)
    assert sheet.n_skipped == 1
    assert len(sheet.incidents) == 2
    assert "no id" in sheet.skipped[0]


def test_an_unknown_format_is_a_bad_record() -> None:
    with pytest.raises(BadRecord, match="statuspage"):
        parse("carrier-pigeon", b"x")
