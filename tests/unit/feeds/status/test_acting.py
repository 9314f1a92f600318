"""Incidents reach the offers they name, through quotes, and for as long as their feed is fresh."""

from __future__ import annotations

import pytest

from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.outcome import FailureClass, Outcome
from bidding.quote import Position
from bidding.quoting import Quoter
from feeds.market_records import FeedRecord, StatusRecord
from feeds.status.acting import IncidentsActing

FREE = PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=0)
NOW = 1_713_268_800_000_000
S = 1_000_000
OFFERS = ["p/a@eu", "p/a@us", "p/b", "q/a"]


def market() -> Catalogue:
    names = [o.partition("/") for o in OFFERS]
    return Catalogue(
        providers=[
            Provider(id=p, name=p, wire="openai", base_url="http://x", jurisdiction="us")
            for p in ("p", "q")
        ],
        models=[
            Model(id=m, family=m, context_window=1000, max_output_tokens=100) for m in ("a", "b")
        ],
        offers=[
            Offer(
                provider=p,
                model=m.partition("@")[0],
                region=m.partition("@")[2] or None,
                prices=FREE,
            )
            for p, _, m in names
        ],
    )


class Desk:
    """Estimators with four sound offers, and incidents acting on them."""

    def __init__(self) -> None:
        self.quoter = Quoter()
        self.acting = IncidentsActing(market())
        self._offset = 0
        for offer in OFFERS:
            self.tries(offer, 50, ok=True)
        self.quoter.quotes(NOW)

    def tries(self, offer: str, n: int, *, ok: bool, at_us: int = NOW) -> None:
        failure = FailureClass.OK if ok else FailureClass.SERVER_ERROR
        outcomes = [Outcome(offer=offer, at_us=at_us, failure=failure)] * n
        places = []
        for _ in range(n):
            self._offset += 1
            places.append(Position("L", "t", 0, self._offset))
        self.quoter.fold(outcomes, places)

    def hears(self, *records: StatusRecord | FeedRecord) -> None:
        for record in records:
            self.acting.take(record)

    def believes(self, now_us: int) -> dict[str, float]:
        self.acting.act(self.quoter, now_us)
        return {q.offer: q.fail_share for q in self.quoter.quotes(now_us, everything=True)}


def incident(**more: object) -> StatusRecord:
    given: dict[str, object] = {
        "provider": "p",
        "at_us": NOW,
        "component": "API",
        "severity": "major",
        "state": "investigating",
        "since_us": NOW - 60 * S,
        "incident_id": "1",
        "feed": "p-status",
    }
    return StatusRecord(**{**given, **more})


def feed(good_at_us: int) -> FeedRecord:
    return FeedRecord(
        feed="p-status",
        of="status",
        provider="p",
        format="statuspage",
        at_us=good_at_us,
        good_at_us=good_at_us,
        changed_at_us=0,
        poll_s=60.0,
    )


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({}, {"p/a@eu", "p/a@us", "p/b"}),
        ({"scope": "models", "models": ["b"]}, {"p/b"}),
        ({"scope": "models", "models": ["a"], "regions": ["eu"]}, {"p/a@eu"}),
        ({"scope": "none"}, set()),
        ({"state": "resolved"}, set()),
        ({"state": "scheduled", "severity": "maintenance"}, set()),
        ({"severity": "none"}, set()),
    ],
)
def test_only_offers_that_are_named_are_moved(more: dict[str, object], named: set[str]) -> None:
    desk = Desk()
    before = desk.believes(NOW + 60 * S)
    desk.hears(feed(NOW), incident(**more))
    after = desk.believes(NOW + 60 * S)
    assert {o for o in OFFERS if after[o] > before[o] + 0.05} == named
    assert all(after[o] == before[o] for o in OFFERS if o not in named)


def test_its_end_lifts_it_and_is_published_at_once() -> None:
    desk = Desk()
    before = desk.believes(NOW + 60 * S)
    desk.hears(feed(NOW), incident())
    desk.acting.act(desk.quoter, NOW + 60 * S)
    assert desk.quoter.has_news
    assert {q.offer for q in desk.quoter.quotes(NOW + 60 * S)} == {"p/a@eu", "p/a@us", "p/b"}
    assert not desk.quoter.has_news
    desk.hears(incident(state="monitoring"))
    watched = desk.believes(NOW + 60 * S)
    desk.hears(incident(state="resolved"))
    assert desk.believes(NOW + 60 * S) == before
    assert before["p/b"] < watched["p/b"]


def test_a_stale_feeds_word_fades() -> None:
    desk = Desk()
    plain = desk.believes(NOW + 60 * S)["p/b"]
    desk.hears(feed(NOW), incident())
    seen = [desk.believes(NOW + t * S)["p/b"] for t in (200, 290, 1200, 3000, 9000)]
    assert seen[0] == pytest.approx(seen[1], rel=0.05)
    assert seen[1] > seen[2] > seen[3] > seen[4]
    assert seen[4] < plain + 0.01


def test_the_gravest_of_several_counts_and_the_next_takes_its_place() -> None:
    desk = Desk()
    desk.hears(feed(NOW), incident(incident_id="1", severity="minor", since_us=NOW - 9 * S))
    mild = desk.believes(NOW + 60 * S)["p/b"]
    desk.hears(incident(incident_id="2", severity="critical"))
    grave = desk.believes(NOW + 60 * S)["p/b"]
    desk.hears(incident(incident_id="2", severity="critical", state="resolved"))
    assert mild < grave
    assert desk.believes(NOW + 60 * S)["p/b"] == mild


def test_measured_attempts_overrule_the_page_both_ways() -> None:
    desk = Desk()
    sound = desk.believes(NOW + 60 * S)["p/b"]
    desk.hears(feed(NOW), incident(severity="critical"))
    told = desk.believes(NOW + 60 * S)["p/b"]
    desk.tries("p/b", 30, ok=True, at_us=NOW + 60 * S)
    assert desk.believes(NOW + 60 * S)["p/b"] < sound + 0.1 * (told - sound)
    # Another provider's page is green all the while.
    desk.tries("q/a", 30, ok=False, at_us=NOW + 60 * S)
    assert desk.believes(NOW + 60 * S)["q/a"] > 0.4


def test_what_one_offer_shows_is_heard_of_the_others_that_its_incident_names() -> None:
    def after(ok: bool | None) -> dict[str, float]:
        desk = Desk()
        desk.hears(feed(NOW), incident(), incident(provider="q", incident_id="9"))
        desk.believes(NOW + 60 * S)
        if ok is not None:
            desk.tries("p/b", 20, ok=ok, at_us=NOW + 60 * S)
        changed = {q.offer for q in desk.quoter.quotes(NOW + 60 * S)}
        assert changed == (set() if ok is None else {"p/a@eu", "p/a@us", "p/b"})
        return desk.believes(NOW + 60 * S)

    told, fails, sound = after(None), after(False), after(True)
    assert fails["p/a@eu"] > 1.5 * told["p/a@eu"]
    assert sound["p/a@eu"] < 0.7 * told["p/a@eu"]
    # Another provider's incident that began in the same second is another incident.
    assert fails["q/a"] == told["q/a"] == sound["q/a"]


def test_kin_that_fail_are_overruled_by_an_offers_own_attempts() -> None:
    desk = Desk()
    sound = desk.believes(NOW + 60 * S)["p/b"]
    desk.hears(feed(NOW), incident(severity="critical"))
    for offer in ("p/a@eu", "p/a@us"):
        desk.tries(offer, 30, ok=False, at_us=NOW + 60 * S)
    told = desk.believes(NOW + 60 * S)["p/b"]
    desk.tries("p/b", 30, ok=True, at_us=NOW + 60 * S)
    assert desk.believes(NOW + 60 * S)["p/b"] < sound + 0.1 * (told - sound)


def test_an_offer_never_tried_is_moved_as_well() -> None:
    desk = Desk()
    desk.quoter = Quoter()
    desk.hears(feed(NOW), incident())
    assert desk.believes(NOW)["p/b"] > 0.06
    assert "q/a" not in desk.quoter.offers
