"""Behaviour without sockets: rates, luck shared by sellers, lengths, latencies."""

from __future__ import annotations

import math
import statistics

import pytest

from broker.paper.behaviour import Behaviour
from broker.paper.market_data import load
from broker.paper.tasks import TASKS, generate
from broker.paper.tokens import count_tokens, prompt_tokens

BEHAVIOUR = Behaviour(load(), seed=1)
ITEMS = [generate(TASKS[i % len(TASKS)], i) for i in range(2000)]


def share_right(model: str, points: float = 0.0) -> float:
    return statistics.mean(BEHAVIOUR.is_right(model, item, points) for item in ITEMS)


@pytest.mark.parametrize("model", ["gemma-2-2b", "llama-3.1-8b", "gpt-4o-mini", "o1"])
def test_share_right_is_the_measured_rate(model: str) -> None:
    expected = statistics.mean(BEHAVIOUR.right_share(model, item.difficulty) for item in ITEMS)
    error = math.sqrt(expected * (1 - expected) / len(ITEMS))
    assert share_right(model) == pytest.approx(expected, abs=4 * error + 1e-9)


def test_harder_items_are_never_easier_for_any_model() -> None:
    for model in load().skills:
        rates = [BEHAVIOUR.right_share(model, d / 20) for d in range(21)]
        assert rates == sorted(rates, reverse=True)


def test_degrading_lowers_quality_by_points_and_only_takes_right_answers_away() -> None:
    model = "gpt-4o"
    assert share_right(model) - share_right(model, points=30) == pytest.approx(0.3, abs=0.04)
    for item in ITEMS[:300]:
        if not BEHAVIOUR.is_right(model, item):
            assert not BEHAVIOUR.is_right(model, item, points=30)


def test_luck_depends_on_seed_item_and_model_alone() -> None:
    again, other = Behaviour(load(), seed=1), Behaviour(load(), seed=2)
    mine = [BEHAVIOUR.counterfactual("mixtral-8x7b", item) for item in ITEMS[:200]]
    assert mine == [again.counterfactual("mixtral-8x7b", item) for item in ITEMS[:200]]
    assert mine != [other.counterfactual("mixtral-8x7b", item) for item in ITEMS[:200]]


def test_counterfactual_counts_the_tokens_of_the_answer() -> None:
    item = ITEMS[0]
    answer = BEHAVIOUR.answer("gpt-4o", item)
    found = BEHAVIOUR.counterfactual("gpt-4o", item)
    assert found.output_tokens == count_tokens(answer.text)
    assert found.input_tokens == prompt_tokens([item.prompt])
    assert found.good == answer.good


def test_reasoning_models_bill_hidden_tokens() -> None:
    answer = BEHAVIOUR.answer("o1", ITEMS[0])
    assert answer.reasoning_tokens > count_tokens(answer.text)
    assert answer.output_tokens == answer.reasoning_tokens + count_tokens(answer.text)


def test_latency_is_log_normal_with_the_offers_shape() -> None:
    data = load()
    shape = data.shapes[data.shape_of["openai/gpt-4o"]]
    logs = [math.log(BEHAVIOUR.timing("openai/gpt-4o", n).ttft_ms) for n in range(3000)]
    assert statistics.mean(logs) == pytest.approx(shape.ttft_log_ms, abs=0.03)
    assert statistics.stdev(logs) == pytest.approx(shape.ttft_log_sd, abs=0.03)


def test_a_full_provider_is_twice_as_slow() -> None:
    idle = BEHAVIOUR.timing("groq/llama-3.1-8b", 5, load=0.0)
    full = BEHAVIOUR.timing("groq/llama-3.1-8b", 5, load=1.0)
    assert full.ttft_ms == pytest.approx(2 * idle.ttft_ms)
    assert full.tpot_ms == pytest.approx(2 * idle.tpot_ms)
