"""What followed a change of params, held against the same figures by other hands (scipy)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any, Literal

import numpy as np
import pytest
import pytest_asyncio
from scipy import stats

from analytics.store import Store
from bidding.outcome import FailureClass
from broker.embedded.store import ChdbServer
from feeds.control_records import ParamsRecord
from feeds.records import DecisionRecord, FeedbackRecord
from feeds.topics import DECISIONS, FEEDBACK, PARAMS
from tests.fakes import facts
from tests.fakes.desk import migrated, settings_of
from tests.fakes.traded import HOUR_US, rows, stored

MIN_US = HOUR_US // 60
T0 = facts.T0_US - 2 * HOUR_US
SECOND, CANARY, THIRD = T0 + 40 * MIN_US, T0 + 60 * MIN_US, T0 + 120 * MIN_US
EASY, HARD = "a|math|q0.9|t1000@0.95", "b|code|q0.9|l4000@0.95"
MEASURES = (
    *("spend_usd_per_1k", "quality", "on_time_share", "ttft_kept_share"),
    *("latency_kept_share", "failed_share"),
)


def _change(version: int, at_us: int, event: Any, revision: int, scope: str) -> ParamsRecord:
    return ParamsRecord(
        scope=scope,
        version=version,
        at_us=at_us,
        by="ops",
        why="a test",
        params="{}",
        revision=revision,
        event=event,
    )


CHANGES = [
    _change(1, T0, "set", 1, "global"),
    _change(2, SECOND, "set", 2, "global"),
    _change(3, CANARY, "canary", 3, "canary"),
    _change(3, CANARY + 30 * MIN_US, "rollback", 4, "canary"),
    _change(4, THIRD, "rollback", 5, "global"),
]


def _bought(rng: np.random.Generator, sla_class: str, at_us: int, version: int, **more: Any) -> Any:
    """A request: hard ones cost ten times as much, fail more and are later."""
    hard = sla_class.startswith(HARD)
    failed = rng.random() < (0.2 if hard else 0.02)
    total_ms = float(rng.uniform(1_000, 6_000 if hard else 3_000))
    ttft_ms = float(rng.uniform(100, 1_200))
    on_time = not failed and (total_ms <= 4_000 if hard else ttft_ms <= 1_000)
    deadline = '{"quality":0.9,"ttft_ms":null,"latency_ms":4000}' if hard else '{"ttft_ms":1000.0}'
    return facts.bought(
        "p0/m0",
        at_us=at_us,
        params_version=version,
        sla_class=sla_class,
        sla=deadline,
        cost_nusd=round(rng.lognormal(15 + 2.3 * hard + 0.25 * (version == 2), 0.4)),
        delivered_offer=None if failed else "p0/m0",
        failure=FailureClass.SERVER_ERROR if failed else FailureClass.OK,
        ttft_ms=ttft_ms,
        total_ms=total_ms,
        on_time=on_time,
        **more,
    )


def _made() -> list[DecisionRecord]:
    rng = np.random.default_rng(7)
    made: list[DecisionRecord] = []

    def some(n: int, sla_class: str, begin_us: int, version: int, **more: Any) -> None:
        for at in rng.integers(begin_us, begin_us + 20 * MIN_US, n):
            name = f"d{len(made)}"
            made.append(_bought(rng, sla_class, int(at), version, decision_id=name, **more))

    # The mix turns round with the second version; a class of its own comes with it.
    some(300, EASY, T0, 1)
    some(60, HARD, T0, 1)
    some(80, EASY, SECOND, 2)
    some(240, HARD, SECOND, 2)
    some(30, "c|new|q0.9|t1000@0.95", SECOND, 2)
    # Beside the canary, and in it.
    some(200, EASY, CANARY, 2)
    some(25, f"{EASY}~v3", CANARY, 3, arm="v3")
    some(40, EASY, THIRD, 4)
    # What params had no say in, and what was under way when the params changed.
    some(9, EASY, SECOND, 2, only=True)
    some(9, EASY, SECOND, 2, cached_from="dec_x")
    for one in made[:5]:
        late = _bought(rng, EASY, SECOND + 30_000_000, 1, decision_id=f"{one.decision_id}-late")
        made.append(late)
    given_up = _bought(rng, EASY, SECOND, 2, decision_id="d-gone")
    given_up.failure = FailureClass.CANCELLED
    made.append(given_up)
    return made


MADE = _made()


def _scored(one: DecisionRecord, i: int) -> FeedbackRecord:
    score = facts.feedback(i)
    score.sla_class, score.at_us = one.sla_class, one.at_us + 2 * MIN_US
    score.quality = (1.0, 1.0, 0.5, 1.0, 0.0)[(i + one.params_version) % 5]
    score.params_version = -1 if i % 11 == 0 else one.params_version
    return score


COUNTED = [
    d for d in MADE if not d.only and not d.cached_from and d.failure is not FailureClass.CANCELLED
]
SCORES = [_scored(d, i) for i, d in enumerate(COUNTED) if i % 3 == 0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def changed(chdb_server: ChdbServer) -> AsyncIterator[str]:
    async with migrated(chdb_server) as store:
        await stored(store, DECISIONS, MADE)
        await stored(store, FEEDBACK, SCORES)
        await stored(store, PARAMS, CHANGES)
        yield store.settings.database


@pytest.fixture
async def store(chdb_server: ChdbServer, changed: str) -> AsyncIterator[Store]:
    async with await Store.open(settings_of(chdb_server, changed)) as store:
        yield store


Sample = dict[str, list[float]]


def _values(measure: str, decisions: list[DecisionRecord], scores: list[FeedbackRecord]) -> Sample:
    """A measure's values by class, without the arm."""
    found: Sample = {}
    for d in decisions:
        value = {
            "spend_usd_per_1k": d.cost_nusd / 1e6,
            "failed_share": float(d.failure is not FailureClass.OK),
            "on_time_share": float(bool(d.on_time)),
            "ttft_kept_share": float(bool(d.on_time)) if "|t1000" in d.sla_class else None,
            "latency_kept_share": float(bool(d.on_time)) if "|l4000" in d.sla_class else None,
            "quality": None,
        }[measure]
        if value is not None:
            found.setdefault(d.sla_class.partition("~")[0], []).append(value)
    if measure == "quality":
        for s in scores:
            found.setdefault(s.sla_class.partition("~")[0], []).append(s.quality)
    return found


def _wilson(p: float, n: float) -> tuple[float, float]:
    """Roots of the score test's equation (Wilson 1927), found as such."""
    z2 = stats.norm.ppf(0.975) ** 2
    roots = np.roots([1 + z2 / n, -(2 * p + z2 / n), p * p])
    low, high = sorted(np.real(roots))
    return float(low), float(high)


def _expected(measure: str, against: Sample, ours: Sample) -> tuple[float, float, float]:
    """Difference and its interval, from the values themselves."""
    least = 2 if measure == "spend_usd_per_1k" else 1
    classes = [c for c in ours if min(len(ours[c]), len(against.get(c, []))) >= least]
    n0 = np.array([len(against[c]) for c in classes], dtype=float)
    n1 = np.array([len(ours[c]) for c in classes], dtype=float)
    m0 = np.array([np.mean(against[c]) for c in classes])
    m1 = np.array([np.mean(ours[c]) for c in classes])
    w = 1 / (1 / n0 + 1 / n1)
    w /= w.sum()
    p0, p1 = float(w @ m0), float(w @ m1)
    difference = p1 - p0
    if measure == "spend_usd_per_1k":
        parts = np.concatenate(
            [
                w**2 * [np.var(ours[c], ddof=1) for c in classes] / n1,
                w**2 * [np.var(against[c], ddof=1) for c in classes] / n0,
            ]
        )
        dof = parts.sum() ** 2 / (parts**2 / (np.concatenate([n1, n0]) - 1)).sum()
        half = stats.t.ppf(0.975, dof) * math.sqrt(parts.sum())
        return difference, difference - half, difference + half
    l0, u0 = _wilson(p0, 1 / float((w**2 / n0).sum()))
    l1, u1 = _wilson(p1, 1 / float((w**2 / n1).sum()))
    return (
        difference,
        difference - math.hypot(p1 - l1, u0 - p0),
        difference + math.hypot(u1 - p1, p0 - l0),
    )


Kind = Literal["in force", "canary"]


def _sides(version: int, kind: Kind) -> tuple[tuple[list[Any], list[Any]], ...]:
    """Decisions and scores of what it stands against, and of its own: up to an hour each."""
    if kind == "canary":
        arms, against = ("", "v3"), 2
        begin, end = CANARY, CANARY + 30 * MIN_US
    else:
        arms, against = ("", ""), {2: 1, 4: 2}[version]
        begin, end = {2: (T0, SECOND), 4: (THIRD - HOUR_US, THIRD)}[version]
        end += HOUR_US + 20 * MIN_US
    begin -= begin % (10 * MIN_US)  # whole steps of ten minutes
    made = []
    for under, arm in ((against, arms[0]), (version, arms[1])):
        decisions = [
            d
            for d in COUNTED
            if d.params_version == under and d.arm == arm and begin <= d.at_us < end
        ]
        scores = [
            s
            for s in SCORES
            if s.params_version == under
            and s.sla_class.partition("~")[2] == arm
            and begin <= s.at_us < end
        ]
        made.append((decisions, scores))
    return tuple(made)


@pytest.mark.parametrize(
    ("version", "kind", "event"),
    [(2, "in force", "set"), (3, "canary", "rollback"), (4, "in force", "rollback")],
)
async def test_each_measure_of_each_change(
    store: Store, version: int, kind: Kind, event: str
) -> None:
    found = {r["measure"]: r for r in await rows(store, "params_followed", version=version)}
    assert tuple(found) == MEASURES
    against, ours = _sides(version, kind)
    for measure, row in found.items():
        sample0, sample1 = _values(measure, *against), _values(measure, *ours)
        assert (row["kind"], row["event"]) == (kind, event)
        assert row["against_version"] == {2: 1, 3: 2, 4: 2}[version]
        assert row["n_against"] == sum(map(len, sample0.values())), measure
        assert row["n"] == sum(map(len, sample1.values())), measure
        if not set(sample0) & set(sample1):
            assert row["difference"] is None
            assert row["told"] == ""
            continue
        difference, low, high = _expected(measure, sample0, sample1)
        close = {"rel": 2e-3, "abs": 2e-6} if measure == "spend_usd_per_1k" else {"abs": 2e-6}
        assert row["difference"] == pytest.approx(difference, **close)
        assert row["low"] == pytest.approx(low, **close), measure
        assert row["high"] == pytest.approx(high, **close), measure
        assert row["value"] - row["value_against"] == pytest.approx(difference, abs=3e-6)
        assert row["told"] == ("more" if low > 0 else "less" if high < 0 else "open")


async def test_a_change_of_mix_is_no_effect(store: Store) -> None:
    found = {r["measure"]: r for r in await rows(store, "params_followed", version=2)}
    against, ours = _sides(2, "in force")
    plain = [
        np.mean([d.failure is not FailureClass.OK for d in side[0]]) for side in (against, ours)
    ]
    assert plain[1] - plain[0] > 0.04  # more hard ones
    assert found["failed_share"]["told"] == "open"
    spend = found["spend_usd_per_1k"]
    paid = [np.mean([d.cost_nusd for d in side[0]]) for side in (against, ours)]
    assert paid[1] / paid[0] > 1.7  # by a quarter, in fact
    assert spend["told"] == "more"
    assert 1.1 < spend["value"] / spend["value_against"] < 1.5
    assert spend["compared_share"] == pytest.approx(
        1 - 30 / (spend["n"] + spend["n_against"]), abs=1e-4
    )


async def test_the_first_version_has_nothing_before_it(store: Store) -> None:
    found = await rows(store, "params_followed", version=1)
    assert {r["against_version"] for r in found} == {0}
    assert [r["n_against"] for r in found] == [0] * len(MEASURES)
    assert {r["difference"] for r in found} == {None}
    every = await rows(store, "params_followed")
    assert [(r["version"], r["kind"]) for r in every[:: len(MEASURES)]] == [
        *((4, "in force"), (3, "canary"), (2, "in force"), (1, "in force")),
    ]
    assert await rows(store, "params_followed", since="1m") == []
