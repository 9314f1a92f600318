"""Laws of falling back: nobody twice for nothing, nothing past the deadline, no amplification."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidding.decision import Bid
from bidding.fallback import (
    Candidate,
    Standings,
    Stop,
    StopReason,
    Try,
    late_score_nusd,
    next_step,
)
from bidding.outcome import FailureClass, tries_next_offer
from bidding.retry_budget import Budget
from bidding.waiting import (
    Aim,
    Forecast,
    WaitRules,
    first_token_timeout_ms,
    gap_timeout_ms,
    hedge_after_ms,
    is_too_slow,
    usual_gap_ms,
)

RULES = WaitRules()
forecasts = st.builds(
    Forecast,
    ttft_log_ms=st.floats(math.log(5), math.log(20_000)),
    ttft_log_sd=st.floats(0.01, 2.5),
    tpot_log_ms=st.floats(math.log(0.1), math.log(200)),
    tpot_log_sd=st.floats(0.0, 1.0),
)
times = st.none() | st.floats(-1000.0, 60_000.0)
aims = st.builds(
    Aim,
    hard_ms=st.floats(0.0, 600_000.0),
    ttft_ms=times,
    latency_ms=times,
    n_tokens=st.floats(0.0, 5000.0),
)
candidates = st.lists(
    st.builds(
        Candidate,
        offer=st.sampled_from("abcdef"),
        good_standing=st.booleans(),
        full=st.booleans(),
        busy_ms=st.sampled_from([0.0, 0.0, 30.0, 20_000.0]),
        n_out=st.integers(0, 2),
        score_nusd=st.sampled_from([0.0, 0.0, 1.0, 2.5]),
    ),
    max_size=6,
    unique_by=lambda c: c.offer,
)
ends = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from([f for f in FailureClass if f is not FailureClass.OK]),
    ),
    max_size=6,
)


@given(own=st.none() | forecasts, other=st.none() | forecasts, aim=aims)
def test_the_wait_is_within_what_is_left(
    own: Forecast | None, other: Forecast | None, aim: Aim
) -> None:
    wait = first_token_timeout_ms(own, other, aim, RULES)
    assert 0.0 <= wait <= min(aim.hard_ms, RULES.most_ms)
    assert wait >= min(RULES.least_ms, aim.hard_ms)


@given(own=forecasts, other=forecasts, aim=aims)
def test_a_sound_offer_is_seldom_abandoned(own: Forecast, other: Forecast, aim: Aim) -> None:
    wait = first_token_timeout_ms(own, other, aim, RULES)
    hasty = own.ttft_ms(RULES.hasty_tail)
    assert wait >= min(hasty, aim.hard_ms, RULES.most_ms) * 0.999


@given(own=forecasts, other=forecasts, aim=aims)
def test_having_a_runner_up_never_makes_us_wait_longer(
    own: Forecast, other: Forecast, aim: Aim
) -> None:
    alone = first_token_timeout_ms(own, None, aim, RULES)
    assert first_token_timeout_ms(own, other, aim, RULES) <= alone * 1.000001


@given(
    ttft=st.floats(50.0, 300.0),
    sd=st.floats(0.05, 0.4),
    slack=st.floats(4.0, 20.0),
)
def test_an_offer_slowed_tenfold_leaves_its_runner_up_enough_time(
    ttft: float, sd: float, slack: float
) -> None:
    offer = Forecast(math.log(ttft), sd, math.log(1.0))
    target = offer.ttft_ms(0.99) * slack
    wait = first_token_timeout_ms(offer, offer, Aim(60_000.0, ttft_ms=target), RULES)
    if wait > RULES.least_ms:
        assert wait < ttft * 10.0
    assert wait + offer.ttft_ms(0.9) <= max(target, RULES.least_ms + offer.ttft_ms(0.9)) * 1.001


@given(first=forecasts, second=forecasts, aim=aims)
def test_a_hedge_comes_in_time_and_where_it_is_likelier(
    first: Forecast, second: Forecast, aim: Aim
) -> None:
    after = hedge_after_ms(first, second, aim)
    if after is None:
        return
    by_first, by_second = aim.first_token_by_ms(first), aim.first_token_by_ms(second)
    assert by_first is not None
    assert by_second is not None
    assert 0.0 < after < by_second
    shown = first.p_first_within(after)
    chance = (first.p_first_within(by_first) - shown) / (1.0 - shown) if shown < 1.0 else 0.0
    assert second.p_first_within(by_second - after) > chance


@given(
    ranked=candidates,
    ended=ends,
    remaining=st.floats(-100.0, 10_000.0),
    budget=st.booleans(),
    same=st.booleans(),
    jitter=st.floats(0.0, 1.0),
)
def test_steps(
    ranked: list[Candidate],
    ended: list[tuple[str, FailureClass]],
    remaining: float,
    budget: bool,
    same: bool,
    jitter: float,
) -> None:
    step = next_step(
        ranked,
        ended,
        remaining_ms=remaining,
        budget_allows=budget,
        same_offer_allows=same,
        rules=RULES,
        jitter=jitter,
    )
    if ended and not tries_next_offer(ended[-1][1]):
        assert step == Stop(StopReason.FINAL)
    if isinstance(step, Stop):
        assert step.retry_after_ms >= 0.0
        return
    assert remaining >= RULES.min_useful_ms
    assert len(ended) < RULES.max_attempts
    chosen = ranked[step.place]
    assert not chosen.full
    tried = {offer for offer, _ in ended}
    if chosen.offer in tried:
        assert same
        assert chosen.offer == ended[-1][0]
        assert step.delay_ms < remaining
        untried = [c for c in ranked if c.offer not in tried and not c.full and not c.busy_ms]
        assert all(not c.good_standing for c in untried)
        return
    assert step.delay_ms == 0.0
    assert chosen.busy_ms == 0.0
    assert not ended or chosen.good_standing or budget
    # One call at a time to a seller in doubt: one that has a call out waits, and so do its like.
    before = [
        c
        for place, c in enumerate(ranked)
        if (c.score_nusd, place) < (chosen.score_nusd, step.place)
    ]
    one_is_out = any(c.n_out and not c.good_standing and c.offer not in tried for c in before)
    for better in before:
        skipped = better.offer in tried or better.full or better.busy_ms > 0.0
        assert skipped or (not better.good_standing and (not budget or one_is_out))


@given(
    st.lists(st.tuples(st.floats(0.0, 3.0), st.sampled_from("rrrrw")), min_size=1, max_size=400),
    st.floats(0.01, 0.5),
    st.floats(1.0, 5.0),
)
def test_a_sliding_window_never_has_more_than_its_share(
    events: list[tuple[float, str]], share: float, floor: float
) -> None:
    window_s = 10.0
    budget = Budget(share, floor, window_s)
    now_s, requests, spent = 1000.0, [], []
    for gap_s, what in events:
        # Times to the eighth of a second, so that those at a border are exactly at it.
        now_s += round(gap_s * gap_s * 8.0) / 8.0
        if what == "r":
            budget.earn(now_s)
            requests.append(now_s)
            continue
        n_requests = sum(t > now_s - window_s for t in requests)
        n_old = sum(t > now_s - 0.95 * window_s for t in requests)
        n_spent = sum(t > now_s - window_s for t in spent)
        if budget.allows(now_s):
            budget.spend(now_s)
            spent.append(now_s)
            assert n_spent + 1 <= share * n_requests + floor + 1e-6
        else:
            # Nor is it refused where requests of nineteen twentieths of the window would pay.
            assert n_spent + 1 > share * n_old + floor


def test_standing_follows_the_last_attempt_that_taught_something() -> None:
    standings = Standings(bound=2)
    standings.note("a", FailureClass.SERVER_ERROR)
    assert not standings.good("a")
    standings.note("a", FailureClass.CANCELLED)
    assert not standings.good("a")
    standings.note("a", FailureClass.OK)
    assert standings.good("a")
    for offer in "abc":
        standings.note(offer, FailureClass.RATE_LIMITED)
    assert standings.good("a")
    assert not standings.good("c")


@given(
    elapsed=st.floats(0.0, 10_000.0),
    writing=st.floats(0.0, 10_000.0),
    n=st.integers(0, 2000),
    aim=aims,
    own=st.none() | forecasts,
    other=st.none() | forecasts,
)
def test_a_stream_is_dropped_only_for_one_who_can_still_make_it(
    elapsed: float, writing: float, n: int, aim: Aim, own: Forecast | None, other: Forecast | None
) -> None:
    slow = is_too_slow(
        elapsed_ms=elapsed,
        writing_ms=writing,
        n_written=n,
        aim=aim,
        own=own,
        runner_up=other,
        rules=RULES,
    )
    if slow:
        assert other is not None
        assert aim.latency_ms is not None
        assert other.finish_ms(RULES.finish_tail, aim.n_tokens) <= aim.latency_ms - elapsed


@pytest.mark.parametrize(("n", "dropped"), [(6, False), (40, True)])
def test_a_first_burst_is_no_pace(n: int, dropped: bool) -> None:
    """Ten times the known time per token, once for a moment and once for long enough to tell."""
    own = Forecast(math.log(20.0), 0.3, math.log(1.0), 0.2)
    slow = is_too_slow(
        elapsed_ms=20.0 + 10.0 * n,
        writing_ms=10.0 * n,
        n_written=n,
        aim=Aim(hard_ms=10_000.0, latency_ms=1_000.0, n_tokens=250.0),
        own=own,
        runner_up=own,
        rules=RULES,
    )
    assert slow is dropped


@given(own=forecasts, n=st.floats(0.0, 1e4), wider=st.floats(0.0, 3.0))
def test_the_usual_gap_is_of_the_usual_token_and_of_nothing_doubted(
    own: Forecast, n: float, wider: float
) -> None:
    known = own._replace(tpot_n=n)
    gap = usual_gap_ms(known, most_ms=10_000.0, least_ms=1_000.0)
    doubted = known._replace(tpot_log_sd=known.tpot_log_sd + wider)
    assert gap == usual_gap_ms(doubted, most_ms=10_000.0, least_ms=1_000.0)
    median_ms = 200.0 * math.exp(min(own.tpot_log_ms, 50.0))
    assert gap == (1_000.0 if n < 3.0 else pytest.approx(min(max(median_ms, 1_000.0), 10_000.0)))
    aim = Aim(hard_ms=60_000.0)
    assert gap <= gap_timeout_ms(known, aim, most_ms=10_000.0, least_ms=1_000.0, unseen=False)


def test_two_sellers_down_do_not_keep_the_third_from_being_asked() -> None:
    ranked = [Candidate("a", False), Candidate("b", False), Candidate("c", True)]
    step = next_step(
        ranked,
        [("a", FailureClass.CONNECT)],
        remaining_ms=1000.0,
        budget_allows=False,
        same_offer_allows=False,
        rules=RULES,
    )
    assert step == Try(2)


bids = st.builds(
    Bid,
    offer=st.just("a"),
    row=st.just(0),
    score_nusd=st.floats(-1e7, 1e7),
    cost_nusd=st.floats(0.0, 1e6),
    p_good=st.floats(0.0, 1.0),
    p_on_time=st.floats(0.0, 1.0),
)


@given(bid=bids, forecast=forecasts, aim=aims, price=st.floats(0.0, 1e7), later=st.floats(0.0, 1e4))
def test_a_bid_is_worth_less_the_later_it_is_asked(
    bid: Bid, forecast: Forecast, aim: Aim, price: float, later: float
) -> None:
    now = late_score_nusd(bid, forecast, aim, price)
    then = aim._replace(
        ttft_ms=None if aim.ttft_ms is None else aim.ttft_ms - later,
        latency_ms=None if aim.latency_ms is None else aim.latency_ms - later,
    )
    assert bid.score_nusd <= now <= late_score_nusd(bid, forecast, then, price) + 1e-6
    assert now <= bid.score_nusd + price * bid.p_on_time + 1e-6


def test_whom_to_ask_late_is_who_can_still_make_it_if_that_is_worth_it() -> None:
    aim = Aim(60_000.0, ttft_ms=400.0)
    slow = Forecast(math.log(500.0), 0.2, math.log(10.0))
    quick = Forecast(math.log(100.0), 0.2, math.log(10.0))
    ranked = [("slow", slow, 10.0), ("quick", quick, 40.0)]

    def asked(price_nusd: float) -> str:
        candidates = [
            Candidate(
                name,
                score_nusd=late_score_nusd(
                    Bid(name, 0, score, score, 0.9, 0.98), forecast, aim, price_nusd
                ),
            )
            for name, forecast, score in ranked
        ]
        step = next_step(
            candidates,
            [("winner", FailureClass.TIMEOUT_TTFT)],
            remaining_ms=60_000.0,
            budget_allows=True,
            same_offer_allows=True,
            rules=RULES,
        )
        assert isinstance(step, Try)
        return candidates[step.place].offer

    assert asked(1000.0) == "quick"
    assert asked(1.0) == "slow"
