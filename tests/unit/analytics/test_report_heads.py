"""Every report says what it asks, at which grain and cost, and takes just what it says."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from analytics.errors import BadParameter, UnknownReport
from analytics.reports import Report, bind, list_reports, moment, parse, report

NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
REPORTS = list_reports()


@pytest.mark.parametrize("asked", REPORTS, ids=lambda r: r.name)
def test_a_report_uses_every_parameter_it_names_and_no_other(asked: Report) -> None:
    used = set(re.findall(r"\{(\w+):(\w+)\}", asked.sql))
    assert used == {(p.name, p.type) for p in asked.parameters}
    assert asked.question.endswith("?") or "." in asked.question
    assert asked.grain.startswith("one row per")
    assert "ORDER BY" in asked.sql


@pytest.mark.parametrize("asked", REPORTS, ids=lambda r: r.name)
def test_every_default_is_of_its_parameters_type(asked: Report) -> None:
    given = {p.name: "x" for p in asked.parameters if p.default is None}
    values = bind(asked, given, NOW)
    assert set(values) == {p.name for p in asked.parameters}


def test_there_are_enough_reports() -> None:
    assert len(REPORTS) >= 20


def test_unknown_reports_come_with_near_names() -> None:
    with pytest.raises(UnknownReport, match="savings") as caught:
        report("saving")
    assert caught.value.near[0] == "savings"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"sinse": "1h"}, "sinse: .* did you mean since"),
        ({"since": "yesterday"}, "since: .*is no time"),
        ({"since": "1h; DROP TABLE x"}, "since"),
        ({"since": "99999999d"}, "since"),
        ({"since": "2150-01-01"}, "not between 1970"),
        ({"limit": "-1"}, "limit: '-1' is not a whole number"),
        ({"limit": "4294967296"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"failed_only": "maybe"}, "failed_only: 'maybe' is neither"),
    ],
)
def test_bad_values_are_refused_by_name(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(BadParameter, match=complaint):
        bind(report("recent_decisions"), given, NOW)


def test_what_has_no_default_must_be_given() -> None:
    with pytest.raises(BadParameter, match="decision_id: must be given: the decision"):
        bind(report("decision_line"), {}, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("90s", NOW - timedelta(seconds=90)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T10:00+02:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
    ],
)
def test_moments_are_ages_or_iso_times(text: str, expected: datetime) -> None:
    assert moment("since", text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "-- Question: a?\n-- Grain: one row per x.\nSELECT 1",
        "-- Question: a?\n-- Grain: b\n-- Cost: c\n-- Param: nonsense\nSELECT 1",
    ],
)
def test_a_head_that_does_not_say_everything_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="report r"):
        parse("r", text)
