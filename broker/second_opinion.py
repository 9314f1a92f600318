"""What a decision made again adds to its autopsy: every bid, every refusal, and what would have
changed the winner, found by running the auction on markets a little different from that one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from analytics.remake import Again
from bidding.auction import decide
from bidding.book import task_columns
from bidding.columns import Floats, PriceColumns
from bidding.decision import Bid
from bidding.gates import reason_of
from bidding.params import Params
from bidding.slate import slate_for
from bidding.units import usd_from_nusd
from bidding.view import MarketView, Memo
from feeds.records import DecisionRecord

_STEPS: Final = 24
_SHOWN: Final = 3


def second_opinion(again: Again) -> dict[str, Any]:
    """The replay's part of an autopsy. Some hundred auctions: 10 to 100 ms."""
    everything = _all_bids(again)
    best = everything[0] if everything else None
    winner = again.decision.winner
    told: dict[str, Any] = {
        "identical": not again.differences,
        "differences": msgspec.to_builtins(again.differences),
        "bids": [_scored(bid, again) for bid in everything],
        "turned_away": _turned_away(again),
        "explored": bool(best and winner and best.offer != winner.offer),
        "would_have_won": [],
    }
    if best is not None:
        told["would_have_won"] = [
            _sensitivities(again, best, rival) for rival in everything[1 : _SHOWN + 1]
        ]
    told["why"] = _in_words(told)
    return told


def cached_opinion(record: DecisionRecord) -> dict[str, Any]:
    """What a replay says of a hit of the response cache, where nothing was decided."""
    why = f"Served from the response cache, the answer of {record.cached_from}: no auction was held"
    return {
        "identical": True,
        "differences": [],
        "cached_from": record.cached_from,
        "bids": [],
        "turned_away": {},
        "explored": False,
        "would_have_won": [],
        "why": [f"{why}, so there is nothing to decide again."],
    }


def _all_bids(again: Again) -> list[Bid]:
    """Every bid, best first, without the draw of exploration."""
    return list(decide(again.view, again.request, _plain(again.params, everyone=True), 0).ranked)


def _plain(params: Params, *, everyone: bool = False) -> Params:
    """The params without exploration; with `everyone`, ranking all bids."""
    exploration = msgspec.structs.replace(params.exploration, share=0.0)
    choice = params.choice
    if everyone:
        choice = msgspec.structs.replace(choice, n_ranked=1 << 30)
    return msgspec.structs.replace(params, exploration=exploration, choice=choice)


def _scored(bid: Bid, again: Again) -> dict[str, Any]:
    """How a bid's score came about: dollars, less is better."""
    decision = again.decision
    good = decision.quality_price_nusd * bid.p_good
    on_time = decision.punctuality_price_nusd * bid.p_on_time
    return {
        "offer": bid.offer,
        "score_usd": usd_from_nusd(bid.score_nusd),
        "cost_usd": usd_from_nusd(bid.cost_nusd),
        "p_good": bid.p_good,
        "p_on_time": bid.p_on_time,
        "worth_of_quality_usd": usd_from_nusd(good),
        "worth_of_punctuality_usd": usd_from_nusd(on_time),
        "harm_less_optimism_usd": usd_from_nusd(bid.score_nusd - bid.cost_nusd + good + on_time),
    }


def _turned_away(again: Again) -> dict[str, list[str]]:
    """Offers by the gate that turned them away."""
    codes = slate_for(again.view, again.request, again.params).codes
    found: dict[str, list[str]] = {}
    for row in np.flatnonzero(codes).tolist():
        reason = reason_of(int(codes[row])).value
        found.setdefault(reason, []).append(again.view.offers.offer_ids[row])
    return found


def _sensitivities(again: Again, best: Bid, rival: Bid) -> dict[str, Any]:
    """How much cheaper, better or faster `rival` had to be to win, one thing at a time."""
    better = _least_change(again, rival.row, _better, 0.0, 8.0)
    faster = _least_change(again, rival.row, _faster, 0.0, 6.0)
    return {
        "offer": rival.offer,
        "behind_by_usd": usd_from_nusd(rival.score_nusd - best.score_nusd),
        "at_price_times": _least_change(again, rival.row, _cheaper, 1.0, 0.0),
        "at_p_good": None if better is None else _moved(rival.p_good, better),
        "at_ttft_times": None if faster is None else math.exp(-faster),
    }


def _moved(share: float, log_odds: float) -> float:
    inside = min(max(share, 1e-12), 1.0 - 1e-12)
    return 1.0 / (1.0 + (1.0 - inside) / inside * math.exp(-log_odds))


def _in_words(told: dict[str, Any]) -> list[str]:
    lines = [
        f"{len(offers)} turned away for {reason}: {', '.join(offers[:4])}"
        + (" …." if len(offers) > 4 else ".")
        for reason, offers in told["turned_away"].items()
    ]
    if told["explored"]:
        lines.append("The winner was drawn among the safe bids, to learn; it was not the best bid.")
    for rival in told["would_have_won"]:
        ways = []
        if rival["at_price_times"] is not None:
            ways.append(f"at {100 * rival['at_price_times']:.1f} % of its price")
        if rival["at_p_good"] is not None:
            ways.append(f"with P(good) {rival['at_p_good']:.4f}")
        if rival["at_ttft_times"] is not None:
            ways.append(f"at {100 * rival['at_ttft_times']:.0f} % of its time to first token")
        how = ", or ".join(ways) or "by none of price, quality and speed alone"
        lines.append(
            f"{rival['offer']} was ${rival['behind_by_usd']:.7f} behind; it would have won {how}."
        )
    same = "the same, to the last bit" if told["identical"] else "NOT the same"
    lines.append(f"Decided again on the very market it read, it came out {same}.")
    return lines


def _wins(again: Again, view: MarketView, row: int) -> bool:
    found = decide(view, again.request, _plain(again.params), 0).winner
    return found is not None and found.row == row


def _least_change(
    again: Again,
    row: int,
    changed: Callable[[MarketView, int, float, str], MarketView],
    nothing: float,
    most: float,
) -> float | None:
    """The smallest change of one offer that makes it win, by bisection; None if none does."""
    task = again.request.task
    if not _wins(again, changed(again.view, row, most, task), row):
        return None
    low, high = nothing, most
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        if _wins(again, changed(again.view, row, middle, task), row):
            high = middle
        else:
            low = middle
    return high


def _cheaper(view: MarketView, row: int, times: float, task: str) -> MarketView:
    prices = _cheaper_prices(view.prices, row, times)
    for band in range(1, len(prices.edges) + 1):
        prices.banded[band] = _cheaper_prices(view.prices.of_band(band), row, times)
    return dataclasses.replace(view, prices=prices, memo=Memo())


def _cheaper_prices(prices: PriceColumns, row: int, times: float) -> PriceColumns:
    return dataclasses.replace(
        prices,
        input_nusd=_scaled(prices.input_nusd, row, times),
        output_nusd=_scaled(prices.output_nusd, row, times),
        cache_read_nusd=_scaled(prices.cache_read_nusd, row, times),
        request_nusd=_scaled(prices.request_nusd, row, times),
        banded={},
    )


def _better(view: MarketView, row: int, log_odds: float, task: str) -> MarketView:
    known = view.task(task)
    theta = known.quality.theta.copy()
    theta[row] += log_odds
    quality = dataclasses.replace(known.quality, theta=theta)
    tasks = {**view.tasks, task: task_columns(quality, known.out_log_tokens, known.out_log_sd)}
    return dataclasses.replace(view, tasks=tasks, memo=Memo())


def _faster(view: MarketView, row: int, log_faster: float, task: str) -> MarketView:
    latency = view.quotes.latency
    ttft = latency.ttft_log_ms.copy()
    ttft[row] -= log_faster
    quotes = dataclasses.replace(view.quotes, latency=latency._replace(ttft_log_ms=ttft))
    return dataclasses.replace(view, quotes=quotes, memo=Memo())


def _scaled(column: Floats, row: int, times: float) -> Floats:
    changed = column.copy()
    changed[row] *= times
    return changed
