"""`make replay-feeds`: other folders, halves of the incidents, and an exit code that tells."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import msgspec
import pytest

from analytics.replay import feeds, price_feeds, status_feeds
from analytics.replay.status_feeds import incidents, pick

PRICES = ("input", "output", "cache_read")


def folder(root: Path, events: list[tuple[str, ...]], snapshot: list[tuple[str, ...]]) -> Path:
    """Price events (time, event, model, old and new input), and the snapshot they leave."""
    (root / "prices").mkdir(parents=True)
    head = ["time_utc", "event", "provider", "model"]
    head += [f"{age}_{name}" for age in ("old", "new") for name in PRICES]
    with gzip.open(root / "prices" / "models_dev_events.csv.gz", "wt", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(head)
        for at, event, model, old, new in events:
            rows.writerow([at, event, "p", model, old, old, "", new, new, ""])
    with gzip.open(root / "prices" / "models_dev_snapshot.csv.gz", "wt", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["provider", "model", *(f"{name}_usd_per_mtok" for name in PRICES)])
        rows.writerows(["p", model, usd, usd, ""] for model, usd in snapshot)
    return root


def test_events_that_begin_midway_start_from_what_they_say_was_before(tmp_path: Path) -> None:
    at = "2026-02-01T00:00:00+00:00"
    events = [
        (at, "repriced", "a", "1", "2"),
        (at, "repriced", "a", "2", "900"),
        (at, "listed", "b", "", "3"),
        (at, "withdrawn", "c", "1", ""),
    ]
    made = folder(tmp_path, events, [("a", "900"), ("b", "3"), ("quiet", "5")])
    found = price_feeds.figures(made)
    assert price_feeds.broken(found) == []
    assert (found["repricings"], found["repricings_in_force"]) == (1, 1)
    assert (found["repricings_quarantined"], found["quarantined_used"]) == (1, 0)
    assert (found["snapshot_differences"], found["snapshot_unheard"]) == (0, 1)


def test_the_command_says_what_does_not_hold_and_ends_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = "2026-02-01T00:00:00+00:00"
    made = folder(
        tmp_path, [(at, "listed", "a", "", "1"), (at, "repriced", "a", "1", "2")], [("a", "7")]
    )
    arguments = ["--data", str(made), "--only", "prices", "--jobs", "1", "--json"]
    assert feeds.main(arguments) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["broken"] == ["snapshot_differences is 1, must be 0"]
    assert feeds.main(["--data", str(tmp_path / "none"), "--only", "prices", "--jobs", "1"]) == 2
    assert feeds.main(["--only", "prophecy"]) == 2


def test_halves_are_parted_by_time(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    rows = [
        {
            "provider": "openai",
            "name": str(day),
            "impact_level": 2,
            "components": [],
            "started_at": f"2023-01-{day:02}T00:00:00Z",
            "updates": [{"status": "resolved", "at": f"2023-01-{day:02}T01:00:00Z"}],
        }
        for day in (9, 3, 7, 1)
    ]
    with gzip.open(tmp_path / "status" / "incidents.jsonl.gz", "wb") as file:
        file.write(b"\n".join(msgspec.json.encode(row) for row in rows))
    assert [t.title for t in incidents(tmp_path, "earlier")] == ["1", "3"]
    assert [t.title for t in incidents(tmp_path, "later")] == ["7", "9"]
    assert len(incidents(tmp_path)) == 4


def test_the_value_picked_cuts_most_of_those_whose_cost_is_sure() -> None:
    def tried(cut: float, cost: float) -> dict[str, float]:
        name = "failed_during_incidents_cut_share"
        return {name: cut, "false_alarm_extra_spend_share_high": cost}

    most = status_feeds.MOST_EXTRA
    assert pick({0.1: tried(0.3, 0.0), 0.2: tried(0.5, most), 0.4: tried(0.9, 0.011)}) == 0.2
    assert pick({0.1: tried(0.3, 0.02), 0.2: tried(0.5, 0.03)}) == 0.1
