"""What every policy buys when all was learnt beforehand: one family of purchases each.

A family has a row per setting the buyer may turn (λ for the broker), most have one row. Rules
that draw are taken at their mean over draws. LiteLLM's strategies are restated as in `rivals`,
by the shares of traffic they lead to where nothing fails: `simple-shuffle` and round robin give
every offer the same, `usage-based` the same tokens, `cost-based` all to the lowest list price.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from analytics.replay.files import Floats
from analytics.replay.frontier import Purchases
from analytics.replay.quality_splits import SplitResult
from bidding.policies.floor import EPSILON, cheapest_above

N_DRAWS: Final = 20


def families(result: SplitResult) -> dict[str, Purchases]:
    """Purchases on the asked prompts, by policy; the broker's is the whole of its λs."""
    known, asked = result.known, result.asked
    n_columns = asked.cost.shape[1]
    believed = result.beliefs.p_good * asked.learnt_on_time
    cost = result.beliefs.cost
    mean_good = (known.questions.outcome * known.learnt_on_time).mean(axis=0)
    even = np.full(n_columns, 1.0 / n_columns)
    found = {
        "broker": result.policy,
        "cheapest": _always(result, int(np.argmin(known.cost.mean(axis=0)))),
        "best": _always(result, int(np.argmax(mean_good))),
        "random": _mixed(result, even),
        "round-robin": _mixed(result, even),
        "epsilon-greedy": _shared(
            result,
            (1.0 - EPSILON) * _picks(cheapest_above(result.aim, believed, cost)) + EPSILON * even,
        ),
        "thompson-with-floor": _shared(result, _thompson(result, believed, cost)),
        "litellm-simple-shuffle": _mixed(result, even),
    }
    tokens = np.nanmean(known.questions.out_tokens, axis=0) if asked.input_usd is not None else even
    found["litellm-usage-based"] = _mixed(result, (1.0 / tokens) / (1.0 / tokens).sum())
    found["litellm-cost-based"] = _always(result, _lowest_list_price(result))
    if np.any(asked.learnt_on_time != 1.0):
        quickest = int(np.argmax(asked.learnt_on_time))
        found["fastest"] = found["litellm-latency-based"] = _always(result, quickest)
    return found


def _lowest_list_price(result: SplitResult) -> int:
    asked = result.asked
    if asked.input_usd is None or asked.output_usd is None:
        return int(np.argmin(asked.cost.mean(axis=0)))
    return int(np.argmin(asked.input_usd + asked.output_usd))


def _thompson(result: SplitResult, believed: Floats, cost: Floats) -> Floats:
    """Shares over draws of P(good) from what is not known of it: its spread is the binomial's of
    as many answers as were seen of a column.
    """
    rng = np.random.Generator(np.random.PCG64(20240424))
    sd = np.sqrt(believed * (1.0 - believed) / max(len(result.known.cost), 1))
    shares = np.zeros_like(cost)
    for _ in range(N_DRAWS):
        sampled = np.clip(believed + sd * rng.standard_normal(cost.shape), 0.0, 1.0)
        shares += _picks(cheapest_above(result.aim, sampled, cost))
    return shares / N_DRAWS


def _picks(scores: Floats) -> Floats:
    shares = np.zeros_like(scores)
    shares[np.arange(len(scores)), scores.argmin(axis=1)] = 1.0
    return shares


def _always(result: SplitResult, column: int) -> Purchases:
    return Purchases(result.asked.cost[:, column][None], result.delivered[:, column][None])


def _mixed(result: SplitResult, shares: Floats) -> Purchases:
    return Purchases((result.asked.cost @ shares)[None], (result.delivered @ shares)[None])


def _shared(result: SplitResult, shares: Floats) -> Purchases:
    """`shares` (n_prompts, n_columns)."""
    return Purchases(
        (result.asked.cost * shares).sum(axis=1)[None],
        (result.delivered * shares).sum(axis=1)[None],
    )
