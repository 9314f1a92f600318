"""Kinds of work found from features: found, kept apart, bounded, named without a prompt."""

from __future__ import annotations

import doctest

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding import found_tasks
from bidding.appraisal import Appraiser, Settled
from bidding.book import MarketBook
from bidding.errors import BadState
from bidding.features import N_FEATURES
from bidding.found_tasks import (
    MAX_CLUSTERS,
    N_BASE,
    SETTLED,
    UNNAMED_TASK,
    FoundTasks,
    TaskFinder,
    root_of,
)
from bidding.quote import Position
from bidding.request import BidRequest, Sla
from broker.asking import with_features
from feeds.topics import FEEDBACK, key_of
from tests.fakes.log_rig import feedback
from tests.fakes.markets import catalogue

ANY = st.floats(allow_nan=True, allow_infinity=True)


def prompts(n: int, kind: int, seed: int = 0) -> list[list[float]]:
    """Features of `n` prompts of one kind: around a middle of its own."""
    rng = np.random.default_rng([seed, kind])
    middle = np.zeros(N_FEATURES)
    middle[kind * 3 : kind * 3 + 3] = 2.0
    spread = rng.normal(0.0, 0.3, (n, N_FEATURES))
    features: list[list[float]] = (middle + spread).tolist()
    return features


def finder_of(*streams: list[list[float]]) -> TaskFinder:
    finder = TaskFinder()
    for row in zip(*streams, strict=True):
        for features in row:
            finder.fold(features)
    return finder


def test_examples() -> None:
    assert doctest.testmod(found_tasks).failed == 0


def test_kinds_come_apart_and_new_prompts_go_to_their_own() -> None:
    found = FoundTasks(finder_of(prompts(150, 0), prompts(150, 4), prompts(150, 9)).tasks())
    assert len(found.tasks) == 3
    for kind in (0, 4, 9):
        given_to = {found.assign(features) for features in prompts(50, kind, seed=1)}
        assert len(given_to) == 1
        assert root_of(str(given_to.pop())) == UNNAMED_TASK


def test_few_prompts_are_no_task_yet() -> None:
    found = FoundTasks(finder_of(prompts(int(SETTLED) - 20, 0)).tasks())
    assert found.assign(prompts(1, 0)[0]) is None


def test_a_kind_that_comes_late_gets_a_task_and_the_old_keep_theirs() -> None:
    finder = finder_of(prompts(300, 0), prompts(300, 4))
    before = FoundTasks(finder.tasks())
    for features in prompts(300, 9):
        finder.fold(features)
    after = FoundTasks(finder.tasks())
    for kind in (0, 4):
        asked = prompts(1, kind, seed=2)[0]
        assert after.assign(asked) == before.assign(asked)
    assert after.assign(prompts(1, 9)[0]) not in {t.task for t in before.tasks}


def test_oddities_do_not_push_out_what_is_common() -> None:
    finder = finder_of(prompts(300, 0), prompts(300, 4))
    kept = {t.number for t in finder.tasks()}
    rng = np.random.default_rng(3)
    for odd in rng.normal(0.0, 3.0, (200, N_FEATURES)):
        finder.fold(odd.tolist())
    assert kept <= {t.number for t in finder.tasks()}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(ANY, min_size=N_FEATURES, max_size=N_FEATURES), max_size=30))
def test_whatever_is_fed_memory_is_bounded_and_finite(stream: list[list[float]]) -> None:
    finder = TaskFinder()
    for features in stream:
        finder.fold(features)
        finder.fold(features[:-1])
    state = finder.state()
    assert np.all(np.isfinite(state))
    assert len(state) <= 2 + MAX_CLUSTERS * (N_BASE + 2)


def test_a_restored_finder_goes_on_bit_for_bit() -> None:
    first = finder_of(prompts(80, 0), prompts(80, 4))
    second = TaskFinder()
    second.restore(first.state())
    for features in prompts(80, 9):
        first.fold(features)
        second.fold(features)
    assert first.state() == second.state()
    assert first.tasks() == second.tasks()


@pytest.mark.parametrize("state", [[], [9.0, 1.0], [1.0, 2.0, 3.0], [1.0, float("nan")]])
def test_a_state_that_cannot_be_read_is_refused(state: list[float]) -> None:
    with pytest.raises(BadState):
        TaskFinder().restore(state)


def test_a_name_is_made_of_listed_words_alone() -> None:
    listed = {"short", "long", "mixed"}
    listed |= {word for pair in found_tasks._MEANINGS.values() for word in pair}
    for task in finder_of(prompts(150, 0), prompts(150, 4), prompts(150, 9)).tasks():
        size, _, rest = task.name.partition("-")
        assert task.name in listed or {size, rest} <= listed


def decision(task: str, features: list[float], offset: int) -> tuple[Settled, Position]:
    settled = Settled(
        task=task,
        sla_class=f"acme|{task}",
        at_us=offset,
        model=None,
        output_tokens=0,
        cut=False,
        target_quality=None,
        target_on_time=None,
        p_good=None,
        p_on_time=None,
        on_time=None,
        free=True,
        features=tuple(features),
    )
    return settled, Position(log="l", topic="market.decisions", partition=0, offset=offset)


def test_decisions_that_name_no_task_are_told_apart_from_estimator_to_request() -> None:
    appraiser = Appraiser(catalogue())
    stream = [f for pair in zip(prompts(150, 0), prompts(150, 4), strict=True) for f in pair]
    told = [decision(UNNAMED_TASK, features, i) for i, features in enumerate(stream)]
    for settled, position in told + told:  # the log read twice is folded once
        appraiser.fold_decision(settled, position)
    appraiser.fold_decision(*decision("math", prompts(1, 9)[0], len(told)))
    assert appraiser.finder.n_prompts == pytest.approx(300, rel=0.01)
    book = MarketBook(catalogue())
    made = {one.skill.task: one for one in appraiser.skills(1)}
    for one in made.values():
        assert book.apply_skill(one.skill)
    found = book.view(2).found
    asked = BidRequest(tenant="acme", task=UNNAMED_TASK, sla=Sla(), input_tokens=10)
    given_to = {
        with_features(asked, tuple(prompts(1, kind, seed=1)[0]), found, SETTLED).task
        for kind in (0, 4)
    }
    assert len(given_to) == 2
    assert UNNAMED_TASK not in given_to

    features = tuple(prompts(1, 0)[0])
    assert with_features(asked, features, found, 0.0).task == UNNAMED_TASK
    named = msgspec.structs.replace(asked, task="math")
    assert with_features(named, features, found, SETTLED).task == "math"

    again = Appraiser(catalogue())
    unnamed = made[UNNAMED_TASK]
    again.restore(UNNAMED_TASK, unnamed.state, unnamed.classes, [], [], unnamed.positions)
    later = [decision(f"{UNNAMED_TASK}/1", f, 400 + i) for i, f in enumerate(prompts(5, 9))]
    for settled, position in later + later:
        again.fold_decision(settled, position)
        appraiser.fold_decision(settled, position)
    assert again.finder.state() == appraiser.finder.state()


def test_all_that_tasks_are_found_from_is_in_one_partition() -> None:
    record = feedback(0)
    record.task = f"{UNNAMED_TASK}/7"
    assert key_of(FEEDBACK, record) == UNNAMED_TASK.encode()
    record.task = "acme/7"
    assert key_of(FEEDBACK, record) == b"acme/7"
