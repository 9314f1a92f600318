"""A source that praises a failing offer: how far it moves the quote, and how soon it is muted.

Traffic is drawn from a seed and goes through the real `Quoter`, twice: once with what the liar
pushes and once without. For minutes an offer fails nine attempts in ten while the source claims,
several times as often as we call, that every call is perfect and fast. An honest source tells of
the same calls as we see, here and at a healthy offer, and must stay heard.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Final

from bidding.outcome import FailureClass, Outcome
from bidding.params import Params
from bidding.quote import Position, Quote
from bidding.quoting import Quoter

BAD: Final = "liars/m"
GOOD: Final = "honest/m"
_T0_US: Final = 1_790_000_000_000_000
_OWN_EVERY_US: Final = 500_000
_TOLD_EVERY_US: Final = 100_000
_PERFECT_MS: Final = 50.0
_DEPTH: Final = 30
_AFTERWARDS: Final = 100


def attempt(
    rng: random.Random, offer: str, at_us: int, fail_share: float, pusher: str = ""
) -> Outcome:
    """A call that fails with `fail_share`, else takes some 800 ms to its first token."""
    failed = rng.random() < fail_share
    return Outcome(
        offer=offer,
        at_us=at_us,
        failure=FailureClass.SERVER_ERROR if failed else FailureClass.OK,
        ttft_ms=None if failed else 800.0 * math.exp(rng.gauss(0.0, 0.4)),
        total_ms=None if failed else 3_000.0,
        input_tokens=500,
        output_tokens=100,
        trust=0.3 if pusher else 1.0,
        pusher=pusher,
    )


def praise(offer: str, at_us: int) -> Outcome:
    """What the liar says of every call."""
    return Outcome(
        offer=offer,
        at_us=at_us,
        ttft_ms=_PERFECT_MS,
        total_ms=500.0,
        input_tokens=500,
        output_tokens=100,
        trust=1.0,
        pusher="liar",
    )


def traffic(rng: random.Random, seconds: int) -> Iterator[Outcome]:
    """All that is seen and told, in order of time: ten minutes of peace, then the bad offer fails.

    The liar begins to praise when it does. The honest source tells the truth all along.
    """
    for at_us in range(_T0_US, _T0_US + seconds * 10**6, _TOLD_EVERY_US):
        fails = at_us >= _T0_US + 600 * 10**6
        if (at_us - _T0_US) % _OWN_EVERY_US == 0:
            yield attempt(rng, BAD, at_us, 0.9 if fails else 0.02)
            yield attempt(rng, GOOD, at_us, 0.02)
            yield attempt(rng, BAD, at_us, 0.9 if fails else 0.02, "honest")
        yield attempt(rng, GOOD, at_us, 0.02, "honest")
        if fails:
            yield praise(BAD, at_us)


def figures(n_seeds: int = 5, seconds: int = 900) -> dict[str, float]:
    """`liar_muted_after_events` (conflicting ones, the most of all seeds), `liar_moved_share` (the
    furthest a quote went towards the claim, of the way there), `liar_cap_share`, the cap it must
    keep, and `honest_muted`, how often the honest source was.
    """
    muted_after, moved, honest = 0.0, 0.0, 0
    for seed in range(n_seeds):
        after, furthest, mutes = _run(random.Random(seed), seconds)
        muted_after, moved = max(muted_after, after), max(moved, furthest)
        honest += mutes
    return {
        "liar_muted_after_events": muted_after,
        "liar_moved_share": round(moved, 4),
        "liar_cap_share": Params().trust.source_cap,
        "honest_muted": honest,
    }


def _run(rng: random.Random, seconds: int) -> tuple[float, float, int]:
    heard, unheard = Quoter(), Quoter()
    n_told, muted_after, furthest, honest = 0, math.inf, 0.0, 0
    batch: list[Outcome] = []
    for i, event in enumerate(traffic(rng, seconds)):
        batch.append(event)
        n_told += event.pusher == "liar"
        if len(batch) < _DEPTH and event.pusher != "liar":
            continue
        _fold(heard, batch, i)
        _fold(unheard, [e for e in batch if e.pusher != "liar"], i)
        batch = []
        for mute in heard.hearsay.new_mutes():
            honest += mute.source == "honest"
            if mute.source == "liar":
                muted_after = n_told
        furthest = max(furthest, _moved(heard, unheard, event.at_us))
        if n_told >= muted_after + _AFTERWARDS:
            break
    return muted_after, furthest, honest


def _fold(quoter: Quoter, events: Sequence[Outcome], offset: int) -> None:
    first = offset * 1_000
    quoter.fold(
        events, [Position("L", "market.attempts", 0, first + k) for k in range(len(events))]
    )


def _moved(heard: Quoter, unheard: Quoter, now_us: int) -> float:
    """The furthest any number of the bad offer's quote went, of its way to the claim."""
    told, own = _quote(heard, now_us), _quote(unheard, now_us)
    if told is None or own is None:
        return 0.0
    ways = [
        (own.fail_share - told.fail_share, own.fail_share),
        (own.ttft_log_ms - told.ttft_log_ms, own.ttft_log_ms - math.log(_PERFECT_MS)),
    ]
    return max(gone / way for gone, way in ways if way > 0.05)


def _quote(quoter: Quoter, now_us: int) -> Quote | None:
    found = [q for q in quoter.quotes(now_us, everything=True) if q.offer == BAD]
    return found[0] if found else None


def broken(found: dict[str, float]) -> list[str]:
    """Every bound that does not hold, in words."""
    faults = []
    if not found["liar_muted_after_events"] <= 200:
        faults.append(f"the liar was muted after {found['liar_muted_after_events']:g} events")
    if found["liar_moved_share"] > found["liar_cap_share"] + 1e-9:
        faults.append(f"the liar moved a quote by {found['liar_moved_share']:g} of the way")
    if found["honest_muted"]:
        faults.append(f"an honest source was muted {found['honest_muted']:g} times")
    return faults
