"""A decision made again from what was written down is the decision, to the last bit."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from bidding.auction import decide
from bidding.book import MarketBook
from bidding.market import Catalogue
from bidding.params import Params
from bidding.quote import Position
from bidding.request import BidRequest, Compliance, Sla
from bidding.view import MarketView
from feeds.booking import take
from feeds.codec import Record, decode, encode
from feeds.errors import Unmakeable
from feeds.flight import DECIDED, decision_record, differences, request_of
from feeds.market_records import PriceRecord, QuoteRecord, SeasonRecord, SkillRecord, ViewRecord
from feeds.records import DecisionRecord
from feeds.view_maker import Place, ViewMaker, place_of
from feeds.views import Made, ViewLog
from tests.fakes import markets

DIGEST = "of-the-catalogue"


class Log:
    """A log with one partition a topic, and a book that follows it as a gateway does."""

    def __init__(self, catalogue: Catalogue, full_every: int = 5) -> None:
        self.book = MarketBook(catalogue)
        defaults = msgspec.json.encode(Params()).decode()
        self.views = ViewLog(catalogue=DIGEST, defaults=defaults, full_every=full_every)
        self.records: dict[Place, Record] = {}
        self.n = 0

    def put(self, topic: str, key: str, record: Record) -> None:
        self.n += 1
        position = Position("log-1", topic, 0, self.n)
        self.records[place_of(position)] = decode(encode(record))
        if take(self.book, record):
            self.views.took(key, position)

    def view(self, rng: np.random.Generator) -> MarketView:
        """A view, in force at once or, as in a gateway, made ready while records come in.

        Sometimes another is put in force meanwhile, and the first one never is.
        """
        view, made = self._made(rng)
        if rng.random() < 0.5:
            _stir(self, rng)
            if rng.random() < 0.3:
                view, made = self._made(rng)
        self.views.put_in_force(made)
        return view

    def _made(self, rng: np.random.Generator) -> tuple[MarketView, Made]:
        n = len(self.book.offers)
        overlay: dict[str, Any] = {
            "circuit_open": rng.random(n) < 0.1,
            "quota_blocked": rng.random(n) < 0.05,
            "n_inflight": np.floor(rng.random(n) * 4) * (rng.random(n) < 0.3),
        }
        view = self.book.view(1_000_000 + self.n, **overlay)
        return view, self.views.made(view.number, view.at_us, overlay)


def _stir(log: Log, rng: np.random.Generator) -> None:
    """A few quotes, sometimes a skill, a price, an old quote, an unknown offer."""
    offers = log.book.offers.offer_ids
    for _ in range(int(rng.integers(0, 5))):
        offer = str(rng.choice(offers))
        at_us = log.n + 10 if rng.random() < 0.9 else 1
        made = markets.quote(
            offer, ttft_ms=float(rng.lognormal(5.5, 0.5)), fail_share=rng.random() / 5, at_us=at_us
        )
        if rng.random() < 0.1:
            made = msgspec.structs.replace(
                made, health="open", retry_at_us=1_000_000 + log.n + int(rng.integers(-5, 5))
            )
        log.put("market.quotes", offer, QuoteRecord(quote=made, at_us=at_us))
    if rng.random() < 0.2:
        offer = str(rng.choice(offers))
        latency, errors = np.exp(rng.normal(0.0, 0.3, (2, 168))).tolist()
        season = SeasonRecord(offer=offer, at_us=log.n, latency=latency, errors=errors)
        log.put("market.seasons", offer, season)
    if rng.random() < 0.3:
        shares = sorted(0.3 + 0.65 * rng.random(4))
        skill = markets.skill(shares, at_us=log.n + 10)
        log.put(
            "market.skills", "math", SkillRecord(task="math", at_us=1, skill=skill, positions=[])
        )
    if rng.random() < 0.2:
        offer = str(rng.choice(offers))
        prices = markets.price(float(rng.choice([0.1, 0.2, 0.4])))
        log.put(
            "market.prices", offer, PriceRecord(offer=offer, at_us=1, prices=prices, source="list")
        )


def _request(rng: np.random.Generator) -> BidRequest:
    sla = Sla(
        quality=float(rng.choice([0.7, 0.9])) if rng.random() < 0.7 else None,
        ttft_ms=float(rng.choice([200.0, 500.0])) if rng.random() < 0.7 else None,
        compliance=Compliance(regions=("us",)) if rng.random() < 0.2 else Compliance(),
    )
    return BidRequest(
        tenant="t", task="math", sla=sla, input_tokens=int(rng.integers(1, 2000)), streaming=True
    )


def _written(record: Any) -> Any:
    """As it comes back from the log."""
    return decode(encode(record))


@pytest.mark.parametrize("seed", range(4))
def test_every_decision_can_be_made_again_from_what_was_written_down(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalogue = markets.catalogue()
    log = Log(catalogue)
    params = msgspec.structs.replace(Params(), version=3)
    written: list[ViewRecord] = []
    views: dict[int, MarketView] = {}
    flown: list[DecisionRecord] = []
    for _ in range(60):
        _stir(log, rng)
        view = log.view(rng)
        _stir(log, rng)  # what comes after the view was made is not part of it
        if rng.random() < 0.3:
            continue  # nobody reads this one
        views[view.number] = view
        for i in range(2):
            record = log.views.used()
            assert (record is None) == (i > 0)
            if record is not None:
                written.append(_written(record))
            asked = _request(rng)
            decision = decide(view, asked, params, int(rng.integers(2**63)))
            flown.append(
                _written(decision_record(decision, asked, decision_id=f"d{len(flown)}", at_us=1))
            )
    assert {r.base == 0 for r in written} == {True, False}
    # From the middle too: any whole view will do to begin with.
    middle = [i for i, r in enumerate(written) if r.base == 0][1]
    for start in (0, middle):
        maker = ViewMaker({DIGEST: catalogue})
        maker.records.update(log.records)
        for record in written[start:]:
            maker.step(record)
            remade = maker.remade(record).view
            _assert_same_view(remade, views[record.view_number])
            for flight in flown:
                if flight.view_number != record.view_number:
                    continue
                asked = request_of(flight)
                again = decide(remade, asked, params, flight.seed)
                twin = decision_record(again, asked, decision_id=flight.decision_id, at_us=1)
                assert differences(flight, twin) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_decision_under_the_price_of_a_quota_is_made_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalogue = markets.catalogue()
    log = Log(catalogue)
    n = len(log.book.offers)
    moved = 0
    written: list[ViewRecord] = []
    flown: list[tuple[DecisionRecord, BidRequest]] = []
    for _ in range(20):
        _stir(log, rng)
        # In thirds of a nano-dollar: nothing that a rounded number on the record would keep.
        overlay: dict[str, Any] = {
            "quota_nusd": np.where(rng.random(n) < 0.5, rng.lognormal(13.0, 1.0, n) / 3.0, 0.0),
            "quota_token_nusd": np.where(
                rng.random(n) < 0.5, rng.lognormal(7.0, 1.0, n) / 3.0, 0.0
            ),
        }
        view = log.book.view(1_000_000 + log.n, **overlay)
        free = log.book.view(1_000_000 + log.n)
        log.views.put_in_force(log.views.made(view.number, view.at_us, overlay))
        record = log.views.used()
        assert record is not None
        assert view.shadow is not None
        written.append(_written(record))
        asked = _request(rng)
        decision = decide(view, asked, Params(), seed)
        without = decide(free, asked, Params(), seed)
        flight = decision_record(decision, asked, decision_id=f"d{len(flown)}", at_us=1)
        bare = decision_record(without, asked, decision_id=f"d{len(flown)}", at_us=1)
        moved += any(d.field == "ranked" for d in differences(flight, bare))
        flown.append((_written(flight), asked))
    assert moved >= 10, "the price of a quota changes hardly any decision here"
    maker = ViewMaker({DIGEST: catalogue})
    maker.records.update(log.records)
    for record, (flight, asked) in zip(written, flown, strict=True):
        maker.step(record)
        again = decide(maker.remade(record).view, asked, Params(), flight.seed)
        twin = decision_record(again, asked, decision_id=flight.decision_id, at_us=1)
        assert differences(flight, twin) == []


def test_a_view_without_its_base_is_not_made_up() -> None:
    rng = np.random.default_rng(0)
    log = Log(markets.catalogue())
    written = []
    for _ in range(3):
        _stir(log, rng)
        log.view(rng)
        record = log.views.used()
        assert record is not None
        written.append(record)
    maker = ViewMaker({DIGEST: markets.catalogue()})
    maker.records.update(log.records)
    maker.step(written[0])
    with pytest.raises(Unmakeable):
        maker.step(written[2])


def test_the_record_holds_all_of_the_request() -> None:
    """Fill every field with something of its own: what is not on the record cannot come back."""
    filled = BidRequest(
        tenant="t",
        task="k",
        sla=Sla(quality=0.1 + 0.2, strict=True, compliance=Compliance(deny=("p1",))),
        input_tokens=77,
        max_output_tokens=55,
        needs=3,
        candidates=("m1", "p0/m0"),
        features=(0.1, -1e-17, 3.0),
        incumbent="p0/m0",
        incumbent_cached_tokens=9,
        reserve_nusd=1.0 / 3.0,
        streaming=True,
        arm="v7",
        incumbent_blocks=2,
        money_price=0.7,
    )
    for field in msgspec.structs.fields(BidRequest):
        assert field.required or getattr(filled, field.name) != field.default, (
            f"give {field.name} a value here, and a place on the DecisionRecord"
        )
    view = markets.book().view(1)
    decision = decide(view, filled, Params(), 1)
    record = _written(decision_record(decision, filled, decision_id="d", at_us=1))
    assert request_of(record) == filled
    bare = BidRequest(tenant="t", task="k", sla=Sla(), input_tokens=1)
    record = _written(
        decision_record(decide(view, bare, Params(), 1), bare, decision_id="d", at_us=1)
    )
    assert request_of(record) == bare


def test_one_bit_is_a_difference() -> None:
    view = markets.book().view(1)
    asked = BidRequest(tenant="t", task="math", sla=Sla(quality=0.8), input_tokens=100)
    record = decision_record(decide(view, asked, Params(), 1), asked, decision_id="d", at_us=1)
    for name in DECIDED:
        value = getattr(record, name)
        if isinstance(value, float):
            other = decode(encode(record))
            setattr(other, name, math.nextafter(value, math.inf))
            assert [d.field for d in differences(record, other)] == [name]
    first = record.ranked[0]
    other = _written(record)
    other.ranked[0] = msgspec.structs.replace(
        first, score_nusd=math.nextafter(first.score_nusd, math.inf)
    )
    assert [d.field for d in differences(record, other)] == ["ranked"]


def _assert_same_view(a: Any, b: Any, path: str = "view") -> None:
    """Every field, arrays to the last bit."""
    assert type(a) is type(b), path
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), path
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            if field.compare and field.name != "kernel":
                _assert_same_view(
                    getattr(a, field.name), getattr(b, field.name), f"{path}.{field.name}"
                )
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            _assert_same_view(a[key], b[key], f"{path}[{key}]")
    elif isinstance(a, tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_same_view(x, y, f"{path}[{i}]")
    else:
        assert a == b or (a != a and b != b), path


def test_decided_fields_exist() -> None:
    names = set(DecisionRecord.__struct_fields__)
    assert set(DECIDED) <= names
