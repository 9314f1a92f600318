"""What pushed telemetry may do to a quote, and when its source is no longer heard."""

from __future__ import annotations

import math
import random

import pytest

from analytics.replay import liar
from bidding.hearsay import PREFIX, Hearsay, Mute, TrustParams
from bidding.outcome import FailureClass, Outcome
from bidding.quote import Position, Quote
from bidding.quoting import Quoter

OFFER = "p/m"
T0_US = 1_790_000_000_000_000
NOW_US = T0_US + 60_000_000


def event(
    i: int, *, ok: bool = True, ms: float = 500.0, pusher: str = "", trust: float = 1.0
) -> Outcome:
    return Outcome(
        offer=OFFER,
        at_us=T0_US + i * 100_000,
        failure=FailureClass.OK if ok else FailureClass.SERVER_ERROR,
        ttft_ms=ms if ok else None,
        total_ms=ms + 990.0 if ok else None,
        input_tokens=500,
        output_tokens=100,
        trust=trust,
        pusher=pusher,
    )


def fold(quoter: Quoter, events: list[Outcome], first: int = 0) -> Quote:
    places = [Position("L", "market.attempts", 0, first + i) for i in range(len(events))]
    quoter.fold(events, places)
    [quote] = quoter.quotes(NOW_US, everything=True)
    return quote


def mixed(seed: int, n: int = 400) -> list[Outcome]:
    """Our attempts, mostly good, and two sources that say something else."""
    rng = random.Random(seed)
    return [
        rng.choice(
            [
                event(i, ok=rng.random() < 0.9, ms=rng.lognormvariate(6, 0.4)),
                event(i, ms=rng.lognormvariate(5.5, 0.2), pusher="a", trust=1.0),
                event(i, ok=rng.random() < 0.8, ms=900.0, pusher="b", trust=0.5),
            ]
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("claims", ["perfect", "broken", "slow", "fast"])
@pytest.mark.parametrize("n_own", [0, 5, 400])
def test_no_source_moves_a_quote_beyond_its_cap(claims: str, n_own: int) -> None:
    own = [event(i, ok=i % 4 != 0) for i in range(n_own)] or [event(0)]
    told = [
        event(
            n_own,
            ok=claims != "broken",
            pusher="x",
            ms={"slow": 9e4, "fast": 1.0}.get(claims, 500.0),
        )
    ] * 5_000
    before, after = fold(Quoter(), own), fold(Quoter(), own + told)
    cap = TrustParams().source_cap
    claimed = 1.0 if claims == "broken" else 0.0
    ways = [(after.fail_share - before.fail_share, claimed - before.fail_share)]
    if claims != "broken":
        log_ms = math.log(told[0].ttft_ms or 0.0)
        ways.append((after.ttft_log_ms - before.ttft_log_ms, log_ms - before.ttft_log_ms))
    for gone, way in ways:
        assert 0.0 <= gone / way <= cap + 1e-9 if abs(way) > 1e-9 else gone == pytest.approx(0.0)
    assert after.ttft_log_sd == before.ttft_log_sd
    assert (after.ttft_n, after.fail_n) == (before.ttft_n, before.fail_n)


def test_many_sources_share_one_cap_and_trust_weighs() -> None:
    own = [event(i, ok=False) for i in range(3)]
    before = fold(Quoter(), own)
    crowd = [event(3, pusher=f"s{i % 10}") for i in range(2_000)]
    after = fold(Quoter(), own + crowd)
    gone = (before.fail_share - after.fail_share) / before.fail_share
    assert gone == pytest.approx(TrustParams().all_cap, abs=0.01)
    little = fold(Quoter(), own + [event(3, pusher="x", trust=0.1)] * 10)
    much = fold(Quoter(), own + [event(3, pusher="x", trust=1.0)] * 10)
    nothing = fold(Quoter(), own + [event(3, pusher="x", trust=0.0)] * 10)
    assert much.fail_share < little.fail_share < before.fail_share == nothing.fail_share


def test_a_liar_is_muted_and_all_it_said_is_gone() -> None:
    own = [event(i, ok=False) for i in range(10)]
    quoter = Quoter()
    fold(quoter, [event(0, pusher="liar"), *own])
    n_told = 1
    while not (mutes := quoter.hearsay.new_mutes()):
        fold(quoter, [event(10, pusher="liar")], 1_000 + n_told)
        n_told += 1
        assert n_told < 200
    [mute] = mutes
    assert (mute.source, mute.offer) == ("liar", OFFER)
    assert mute.own_fail_share > 0.9 > 0.1 > mute.claimed_fail_share
    clean = fold(Quoter(), own)
    assert fold(quoter, [event(10, pusher="liar")], 9_000).fail_share == clean.fail_share
    assert not quoter.hearsay.is_muted("liar", mute.until_us)
    lifted = Mute(source="liar", at_us=T0_US, until_us=T0_US)
    quoter.hearsay.mute(lifted)
    [quote] = quoter.quotes(NOW_US, everything=True)
    assert quote.fail_share < clean.fail_share


def test_lies_about_speed_are_found_too_and_honest_sources_stay() -> None:
    hearsay = Hearsay()
    rng = random.Random(3)
    for i in range(3_000):
        ms = rng.lognormvariate(6.0, 0.5)
        hearsay.told(event(i, ms=rng.lognormvariate(6.0, 0.5), pusher="honest"))
        hearsay.told(event(i, ms=rng.lognormvariate(6.5, 0.5), pusher="further away"))
        if i % 3 == 0:
            hearsay.seen(event(i, ms=ms))
        if i > 1_500:
            hearsay.told(event(i, ms=40.0, pusher="boaster"))
    assert [m.source for m in hearsay.new_mutes()] == ["boaster"]


def test_without_attempts_of_our_own_nobody_is_judged() -> None:
    hearsay = Hearsay()
    for i in range(1_000):
        hearsay.told(event(i, ok=i % 2 == 0, pusher="x"))
    assert hearsay.new_mutes() == []


def test_batch_borders_and_restarts_change_nothing() -> None:
    events = mixed(1)
    whole = Quoter()
    expected = fold(whole, events)
    pieces = Quoter()
    for start in range(0, len(events), 37):
        fold(pieces, events[start : start + 37], start)
        [quote] = pieces.quotes(events[min(start + 36, len(events) - 1)].at_us, everything=True)
        again = Quoter()
        again.restore(quote)
        pieces = again
    [found] = pieces.quotes(NOW_US, everything=True)
    assert found.fail_share == pytest.approx(expected.fail_share, rel=1e-9)
    assert found.ttft_log_ms == pytest.approx(expected.ttft_log_ms, rel=1e-9)
    assert set(found.state) == set(expected.state) >= {PREFIX, f"{PREFIX}a", f"{PREFIX}b"}
    reread = fold(whole, events)  # the same stretch of the log again
    assert reread.fail_share == pytest.approx(expected.fail_share, rel=1e-12)


def test_a_state_that_cannot_be_read_starts_afresh() -> None:
    quote = fold(Quoter(), mixed(2))
    for bad in ([], [1.0, 2.0], [9.0] * 13, [math.nan] * 13):
        quote.state[f"{PREFIX}a"] = bad
        quoter = Quoter()
        quoter.restore(quote)
        assert "a" not in quoter.hearsay.sources(OFFER)
        assert "b" in quoter.hearsay.sources(OFFER)


def test_the_replay_of_a_liar_keeps_its_bounds() -> None:
    found = liar.figures(n_seeds=1)
    assert liar.broken(found) == []
    assert 50 <= found["liar_muted_after_events"] <= 200
    assert 0.05 < found["liar_moved_share"] <= found["liar_cap_share"]
