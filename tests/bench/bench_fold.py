"""How many attempts a second the estimators fold into quotes, and what an offer's state weighs.

Folding is what an estimator does per attempt, from decoded outcomes with their places on the log
to moved beliefs: positions checked, columns made, latency and reliability updated. Decoding and
the log itself are the pipeline's and not counted here.
"""

from __future__ import annotations

import random
import time

import msgspec
import numpy as np

from bidding.outcome import FailureClass, Outcome, OutcomeBatch
from bidding.quote import Position
from bidding.quoting import Quoter

N_OFFERS = 100
BATCH = 5_000
N_BATCHES = 40
_T0_US = 1_790_000_000_000_000


def _outcome(rng: random.Random, i: int) -> Outcome:
    ttft_ms = rng.lognormvariate(5.8, 0.4)
    output_tokens = rng.randrange(20, 600)
    return Outcome(
        offer=f"p{rng.randrange(10)}/m{rng.randrange(N_OFFERS // 10)}",
        at_us=_T0_US + i * 500,
        failure=FailureClass.SERVER_ERROR if rng.random() < 0.02 else FailureClass.OK,
        ttft_ms=ttft_ms,
        total_ms=ttft_ms + output_tokens * rng.lognormvariate(2.5, 0.3),
        ttft_promised=rng.random(),
        input_tokens=rng.randrange(50, 4_000),
        output_tokens=output_tokens,
        n_inflight=rng.randrange(12),
        task="chat",
    )


def figures() -> dict[str, float]:
    """`fold_attempts_per_s` of whole batches through the quoter; `fold_columns_per_s` of columns
    through the estimators alone; `offer_state_bytes`: a quote as published, state and all.
    """
    rng = random.Random(1)
    n = BATCH * N_BATCHES
    outcomes = [_outcome(rng, i) for i in range(n)]
    places = [Position("log", "market.attempts", 0, i) for i in range(n)]
    starts = range(0, n, BATCH)
    quoter = Quoter()
    rates = []
    for start in starts:
        batch, at = outcomes[start : start + BATCH], places[start : start + BATCH]
        begun = time.perf_counter()
        quoter.fold(batch, at)
        rates.append(BATCH / (time.perf_counter() - begun))
    row = {offer: i for i, offer in enumerate(quoter.offers)}
    columns = [
        OutcomeBatch.of(b, [row[o.offer] for o in b])
        for b in (outcomes[s : s + BATCH] for s in starts)
    ]
    begun = time.perf_counter()
    for made in columns:
        quoter.latency.fold(made)
        quoter.reliability.fold(made)
    alone = n / (time.perf_counter() - begun)
    quotes = quoter.quotes(_T0_US + n * 500, everything=True)
    weights = [len(msgspec.json.encode(q)) for q in quotes]
    return {
        "fold_attempts_per_s": round(float(np.median(rates))),
        "fold_columns_per_s": round(alone),
        "offer_state_bytes": round(float(np.mean(weights))),
    }


if __name__ == "__main__":
    print(figures())
