"""One list for every estimator of offers, found by introspection.

Whatever is fed to it, and however the log is cut into batches, an estimator keeps the bits it
would have had, keeps its memory bounded, lets no NaN out, and has a usable belief about an
offer never seen.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import math
import pkgutil
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bidding.estimators
from bidding.errors import BadState
from bidding.outcome import FAILURE_BY_CODE, OutcomeBatch

N_ROWS = 3
NOON = 1_713_268_800.0


def offer_estimators() -> list[type[Any]]:
    """Classes under `bidding.estimators` that fold an `OutcomeBatch`."""
    found = []
    for info in pkgutil.iter_modules(bidding.estimators.__path__):
        module = importlib.import_module(f"bidding.estimators.{info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            fold = getattr(kind, "fold", None)
            if kind.__module__ == module.__name__ and fold is not None:
                takes = [p.annotation for p in inspect.signature(fold).parameters.values()]
                if "OutcomeBatch" in takes:
                    found.append(kind)
    return found


EVERY = pytest.mark.parametrize("kind", offer_estimators(), ids=lambda kind: kind.__name__)


class Event(NamedTuple):
    row: int
    at_s: float
    failure: int
    ttft_ms: float
    total_ms: float
    waited_ms: float
    input_tokens: float
    output_tokens: float
    n_inflight: float
    trust: float
    ttft_promised: float


BAD = [math.nan, math.inf, -math.inf, -1.0, 1e308, -1e308]


def usually(low: float, high: float) -> st.SearchStrategy[float]:
    """Mostly in bounds, now and then what a broken gateway might send."""
    return st.one_of(st.floats(low, high), st.floats(low, high), st.sampled_from(BAD))


TIMES = st.one_of(
    st.floats(NOON, NOON + 2.0),
    st.floats(NOON, NOON + 2.0),
    st.floats(NOON - 90_000.0, NOON + 90_000.0),
    st.sampled_from([*BAD, 0.0, NOON + 1e8, NOON - 1e8]),
)
EVENTS = st.builds(
    Event,
    row=st.integers(0, N_ROWS - 1),
    at_s=TIMES,
    failure=st.one_of(
        st.just(0), st.just(0), st.integers(-1, len(FAILURE_BY_CODE)), st.sampled_from([3, 4, 5])
    ),
    ttft_ms=usually(0.0, 5_000.0),
    total_ms=usually(0.0, 20_000.0),
    waited_ms=usually(0.0, 20_000.0),
    input_tokens=usually(0.0, 100_000.0),
    output_tokens=usually(0.0, 4_000.0),
    n_inflight=usually(0.0, 100.0),
    trust=usually(0.0, 1.0),
    ttft_promised=usually(0.0, 1.0),
)


def batch_of(events: list[Event]) -> OutcomeBatch:
    table = np.array(events, dtype=np.float64).reshape(-1, len(Event._fields)).T.copy()
    return OutcomeBatch(table[0].astype(np.int64), table[1], table[2].astype(np.int64), *table[3:])


def regular_events(n: int, seed: int = 0, every_s: float = 0.01) -> list[Event]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, N_ROWS, n)
    ttft = np.exp(rng.normal(6.0, 0.4, n))
    failure = np.where(rng.random(n) < 0.1, rng.integers(1, len(FAILURE_BY_CODE), n), 0)
    return [
        Event(
            int(rows[i]),
            NOON + i * every_s,
            int(failure[i]),
            float(ttft[i]),
            float(ttft[i] + 2_000.0),
            3_000.0,
            500.0,
            100.0,
            float(i % 5),
            1.0,
            float(rng.random()),
        )
        for i in range(n)
    ]


def fresh(kind: type[Any], n_rows: int = N_ROWS) -> Any:
    estimator = kind()
    estimator.grow(n_rows)
    return estimator


def states(estimator: Any) -> list[list[float]]:
    return [estimator.state(row) for row in range(N_ROWS)]


def numbers_of(quotes: Any) -> list[float]:
    out: list[float] = []
    for column in quotes:
        array = np.asarray(column)
        if array.dtype.kind in "fiub":
            out.extend(array.astype(float).ravel().tolist())
    return out


def test_there_are_estimators_to_check() -> None:
    names = {kind.name for kind in offer_estimators()}
    assert {"latency", "reliability"} <= names


@EVERY
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(EVENTS, max_size=60), data=st.data())
def test_folding_ignores_batch_borders_to_the_bit(
    kind: type[Any], events: list[Event], data: st.DataObject
) -> None:
    whole, cut, singly = fresh(kind), fresh(kind), fresh(kind)
    whole.fold(batch_of(events))
    at = data.draw(st.integers(0, len(events)))
    cut.fold(batch_of(events[:at]))
    cut.quotes(NOON)
    cut.fold(batch_of(events[at:]))
    for event in events:
        singly.fold(batch_of([event]))
    assert states(whole) == states(cut) == states(singly)


@EVERY
@pytest.mark.parametrize("every_s", [1e-5, 0.01, 7.0, 5_000.0])
def test_borders_do_not_matter_in_ordinary_traffic_either(kind: type[Any], every_s: float) -> None:
    events = regular_events(2_000, every_s=every_s)
    whole, cut = fresh(kind), fresh(kind)
    whole.fold(batch_of(events))
    edges = [0, *sorted(np.random.default_rng(1).integers(0, len(events), 40).tolist()), None]
    for start, stop in itertools.pairwise(edges):
        cut.fold(batch_of(events[start:stop]))
    assert states(whole) == states(cut)


@EVERY
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(EVENTS, max_size=60), data=st.data())
def test_a_restored_state_goes_on_to_the_bit(
    kind: type[Any], events: list[Event], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(events)))
    whole = fresh(kind)
    whole.fold(batch_of(events[:at]))
    resumed = fresh(kind)
    for row, state in enumerate(states(whole)):
        assert all(math.isfinite(x) for x in state)
        resumed.restore(row, state)
    for estimator in (whole, resumed):
        estimator.fold(batch_of(events[at:]))
    assert states(whole) == states(resumed)
    assert numbers_of(whole.quotes(NOON + 3.0)) == numbers_of(resumed.quotes(NOON + 3.0))


@EVERY
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(EVENTS, max_size=40), now_s=TIMES)
def test_no_nan_leaves_whatever_is_fed(kind: type[Any], events: list[Event], now_s: float) -> None:
    estimator = fresh(kind)
    estimator.fold(batch_of(events))
    assert all(math.isfinite(x) for x in numbers_of(estimator.quotes(now_s)))
    for state in states(estimator):
        assert all(math.isfinite(x) for x in state)


@EVERY
def test_an_offer_depends_on_its_own_events_alone(kind: type[Any]) -> None:
    events = regular_events(600)
    together, alone = fresh(kind), fresh(kind)
    together.fold(batch_of(events))
    alone.fold(batch_of([e for e in events if e.row == 1]))
    assert together.state(1) == alone.state(1)


@EVERY
def test_memory_stays_bounded(kind: type[Any]) -> None:
    estimator = fresh(kind)
    sizes = {len(estimator.state(0))}
    for start in range(5):
        estimator.fold(batch_of(regular_events(2_000, seed=start)))
        sizes.add(len(estimator.state(0)))
    assert len(sizes) == 1
    assert sizes.pop() * 8 <= 1_200


@EVERY
def test_a_cold_offer_has_a_usable_belief_and_changes_no_other(kind: type[Any]) -> None:
    estimator = fresh(kind)
    assert all(math.isfinite(x) for x in numbers_of(estimator.quotes(NOON)))
    estimator.fold(batch_of([e for e in regular_events(300) if e.row != 2]))
    before = states(estimator)
    estimator.grow(N_ROWS + 4)
    assert states(estimator) == before
    assert all(math.isfinite(x) for x in numbers_of(estimator.quotes(NOON + 10.0)))


@EVERY
def test_quoting_changes_nothing(kind: type[Any]) -> None:
    estimator = fresh(kind)
    estimator.fold(batch_of(regular_events(500)))
    before = states(estimator)
    first = numbers_of(estimator.quotes(NOON + 50.0))
    assert numbers_of(estimator.quotes(NOON + 50.0)) == first
    assert states(estimator) == before


@EVERY
@pytest.mark.parametrize("spoil", [lambda s: s[:-1], lambda s: [99.0, *s[1:]], lambda s: []])
def test_a_foreign_state_is_refused(kind: type[Any], spoil: Any) -> None:
    estimator = fresh(kind)
    with pytest.raises(BadState):
        estimator.restore(0, spoil(estimator.state(0)))
    with pytest.raises(BadState):
        estimator.restore(0, [*estimator.state(0)[:-1], math.nan])


@EVERY
@pytest.mark.parametrize("stray_s", [0.0, NOON - 40 * 86_400.0, NOON + 400 * 86_400.0, math.nan])
def test_one_stray_stamp_hardly_moves_a_quote(kind: type[Any], stray_s: float) -> None:
    plain, stray = fresh(kind), fresh(kind)
    events = regular_events(3_000)
    for estimator in (plain, stray):
        estimator.fold(batch_of(events))
    stray.fold(batch_of([events[-1]._replace(at_s=stray_s, ttft_ms=400.0, total_ms=2_400.0)]))
    now_s = NOON + 31.0
    for mine, theirs in zip(
        numbers_of(plain.quotes(now_s)), numbers_of(stray.quotes(now_s)), strict=True
    ):
        assert mine == pytest.approx(theirs, rel=0.1, abs=0.05) or abs(mine) > 100


@EVERY
def test_a_clock_set_back_for_good_is_followed(kind: type[Any]) -> None:
    """After an hour's step back the row's own time goes on, so news still counts as news."""
    estimator = fresh(kind)
    estimator.fold(batch_of(regular_events(2_000)))
    back = [e._replace(at_s=e.at_s - 3_600.0) for e in regular_events(2_000, seed=2)]
    estimator.fold(batch_of(back))
    present = estimator.clock.present_s()
    assert (present > NOON + 30.0).all()
    assert (estimator.clock.high_s < NOON).all()
