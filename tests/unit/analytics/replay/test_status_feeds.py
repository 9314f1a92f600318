"""Real incidents over traffic: heard pages save failures, and the two arms meet the same fates."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.replay.datasets import DataFolder
from analytics.replay.status_feeds import broken, episodes, incidents

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs the data folder ../shared/data")


def test_incidents_of_a_chat_app_are_none_of_ours_and_errors_end_with_the_fix() -> None:
    told = incidents(DATA)
    assert len(told) == 313
    assert not any(i.is_ours for i in told if i.components == ("ChatGPT",))
    assert any(i.is_ours for i in told if i.components == ("API",))
    watched = next(i for i in told if [s for _, s in i.words][-2:] == ["monitoring", "resolved"])
    assert watched.errors_end_s <= watched.words[-2][0]


def test_hearing_the_pages_saves_failures_on_the_same_fates() -> None:
    grave = [
        i
        for i in incidents(DATA)
        if i.provider == "openai" and i.severity == "critical" and i.is_ours
    ]
    long = [i for i in grave if 1800 < i.errors_end_s < 5400][:2]
    folder = DataFolder(DATA)
    found = episodes(folder, long, seed=1, n=2, lag_s=60.0, alarms_are_false=False)
    assert found["heard_failed"] < found["deaf_failed"]
    assert found["heard_unserved"] <= found["deaf_unserved"]


def test_bounds_that_break_are_said() -> None:
    kept = {"failed_during_incidents_cut_share": 0.4, "false_alarm_extra_spend_share": 0.001}
    assert broken(kept) == []
    lost = {"failed_during_incidents_cut_share": 0.2, "false_alarm_extra_spend_share": 0.02}
    assert len(broken(lost)) == 2
