"""A slate: the offers that may bid on one kind of request, with all that can be known beforehand.

Requests come in kinds: same SLA, task, needs and size class. Gates, probabilities and the
expected cost of the answer are the same for all of a kind, so they are computed once per view
and kept; what is left per request is a handful of array operations. A slate holds only
eligible offers, in the order of their ids, so ties break by id without further work.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from bidding.columns import Floats, Ints
from bidding.decision import NoBid
from bidding.estimators.quality_skill import SkillArrays, logits, p_good
from bidding.estimators.tokens import expected_tokens
from bidding.gates import code_of, gate, reason_counts
from bidding.pacing import starting_prices
from bidding.params import Params
from bidding.request import BidRequest, Sla
from bidding.scoring import p_on_time
from bidding.units import NUSD_PER_USD
from bidding.view import MarketView

SlateKey = tuple[Sla, str, str, int, tuple[str, ...] | None, int | None, int, int]
MAX_SLATES = 4096
_FLOOR_NUSD = 1e15
_TYPICAL_TOKENS = 500.0


@dataclass(frozen=True, slots=True)
class Slate:
    """Eligible offers as columns, shape (n_eligible,), and the class's prices.

    Attributes
    ----------
    rows : rows of the view
    fixed_nusd : expected cost that does not depend on the prompt's length
    input_nusd : price of a prompt token
    harm_nusd : expected harm of failing and of lacking capacity, beside the cost
    p_good, p_good_sd, p_on_time : beliefs; `p_good_sd` on the probability scale
    worth_nusd : λ·P(good, optimistic) + μ·P(on time) − harm: score is cost less this
    codes : no-bid codes of all offers, shape (n_offers,)
    bidders : (offer id, row, P(on time)) of each, as plain Python values
    quality : the task's quality model, over all offers
    """

    rows: Ints
    fixed_nusd: Floats
    input_nusd: Floats
    cache_read_nusd: Floats
    harm_nusd: Floats
    quality: SkillArrays
    other_worth_nusd: Floats
    p_good: Floats
    p_good_sd: Floats
    p_on_time: Floats
    worth_nusd: Floats
    codes: Ints
    no_bids: dict[str, int]
    quality_price_nusd: float
    punctuality_price_nusd: float
    feasible: bool
    best: int
    bidders: list[tuple[str, int, float]]


def size_class(input_tokens: int) -> int:
    """Octave of a prompt's length; TTFT barely differs within one.

    Examples
    --------
    >>> size_class(1000) == size_class(513), size_class(1000) == size_class(1500)
    (True, False)
    """
    return input_tokens.bit_length()


def _kind_of_size(view: MarketView, request: BidRequest) -> int:
    """What of the prompt's length the slate depends on: its octave where there is a deadline,
    nothing where there is none, all of it (negative) where a context window might end within
    the octave.
    """
    size = size_class(request.input_tokens)
    if 2**size + (request.max_output_tokens or 0) > view.offers.smallest_context:
        return -request.input_tokens
    sla = request.sla
    return 0 if sla.ttft_ms is None and sla.latency_ms is None else size


def _typical_tokens(kind_of_size: int) -> float:
    """The prompt that stands for all of a kind: the octave's middle."""
    if kind_of_size < 0:
        return float(-kind_of_size)
    return 2.0 ** (kind_of_size - 0.5) if kind_of_size else _TYPICAL_TOKENS


def slate_for(view: MarketView, request: BidRequest, params: Params) -> Slate:
    """The slate of the request's kind: the view's own when it has one."""
    key: SlateKey = (
        request.sla,
        request.tenant,
        request.task,
        request.needs,
        request.candidates,
        request.max_output_tokens,
        _kind_of_size(view, request),
        params.version,
    )
    slate = view.slates.get(key)
    if slate is None:
        slate = make_slate(view, request, params)
        if len(view.slates) < MAX_SLATES:
            view.slates[key] = slate
    return slate


def make_slate(view: MarketView, request: BidRequest, params: Params) -> Slate:
    """Gate all offers for the request's kind and work out what does not depend on its prompt."""
    sla = request.sla
    tokens = _typical_tokens(_kind_of_size(view, request))
    codes = gate(
        view.offers,
        request,
        priced=view.priced,
        quota_blocked=view.quota_blocked,
        circuit_open=view.circuit_open,
    )
    task = view.task(request.task)
    out_tokens = expected_tokens(task.out_log_tokens, task.out_log_sd, request.max_output_tokens)
    logit, logit_sd = logits(task.quality, None)
    good = p_good(logit, logit_sd)
    on_time = p_on_time(
        view.quotes,
        ttft_ms=sla.ttft_ms,
        latency_ms=sla.latency_ms,
        input_tokens=tokens,
        out_tokens=out_tokens,
        n_inflight=view.n_inflight,
        optimism_sd=0.0 if sla.strict else params.choice.latency_optimism_sd,
    )
    feasible = _floors(codes, sla, good, on_time)
    rows = np.flatnonzero(codes == 0)
    quality_price, punctuality_price = class_prices(view, request, params)
    good_sd = good * (1.0 - good) * task.quality.own_sd
    fixed = view.prices.request_nusd + view.prices.output_nusd * out_tokens
    quotes = view.quotes
    harm = NUSD_PER_USD * (
        quotes.fail_share * params.choice.failover_price_usd
        + quotes.capacity_share * params.choice.capacity_price_usd
    )
    other_worth = punctuality_price * on_time - harm
    worth = other_worth + quality_price * _optimistic(good, good_sd, sla, params)
    typical = fixed + view.prices.input_nusd * tokens
    best = -1
    if len(rows):
        best = int(np.lexsort((typical[rows], -good[rows]))[0])
    return Slate(
        rows=rows,
        fixed_nusd=fixed[rows],
        input_nusd=view.prices.input_nusd[rows],
        cache_read_nusd=view.prices.cache_read_nusd[rows],
        harm_nusd=harm[rows],
        quality=task.quality,
        other_worth_nusd=other_worth[rows],
        p_good=good[rows],
        p_good_sd=good_sd[rows],
        p_on_time=on_time[rows],
        worth_nusd=worth[rows],
        codes=codes,
        no_bids=reason_counts(codes),
        quality_price_nusd=quality_price,
        punctuality_price_nusd=punctuality_price,
        feasible=feasible,
        best=best,
        bidders=list(
            zip(
                [view.offers.offer_ids[row] for row in rows.tolist()],
                rows.tolist(),
                on_time[rows].tolist(),
                strict=True,
            )
        ),
    )


def for_prompt(slate: Slate, request: BidRequest, params: Params) -> Slate:
    """The slate with P(good) for this very prompt, from its features.

    A strict floor is held against the prompt's own P(good) too: bids below it lose all worth,
    unless nobody reaches it.
    """
    if len(request.features) != slate.quality.n_features or not len(slate.rows):
        return slate
    logit, logit_sd = logits(slate.quality, request.features)
    rows = slate.rows
    good = p_good(logit[rows], logit_sd[rows])
    good_sd = good * (1.0 - good) * slate.quality.own_sd[rows]
    worth = slate.other_worth_nusd + slate.quality_price_nusd * _optimistic(
        good, good_sd, request.sla, params
    )
    feasible = slate.feasible
    if request.sla.quality is not None and (request.sla.strict or request.sla.on_miss == "reject"):
        short = good < request.sla.quality
        if short.all():
            feasible = False
            worth = worth + good * _FLOOR_NUSD
        else:
            worth = np.where(short, -_FLOOR_NUSD, worth)
    return dataclasses.replace(
        slate,
        p_good=good,
        p_good_sd=good_sd,
        worth_nusd=worth,
        feasible=feasible,
        best=int(good.argmax()),
    )


def _optimistic(good: Floats, good_sd: Floats, sla: Sla, params: Params) -> Floats:
    """P(good) with the benefit of the doubt; none of it on a strict request."""
    bonus = 0.0 if sla.strict else params.choice.optimism_sd
    return np.minimum(good + bonus * good_sd, 1.0)


def class_prices(view: MarketView, request: BidRequest, params: Params) -> tuple[float, float]:
    """λ and μ in nusd: stated by the app, the class's own, or where a new class starts.

    Without a target or a stated value a good answer is worth the default of the params; without
    a deadline a punctual answer is worth nothing.
    """
    sla = request.sla
    known = view.classes.get(request.class_key)
    target_on_time = on_time_target(sla)
    if known is None:
        quality, punctuality = starting_prices(
            view.classes_of_task.get(request.task, ()), sla.quality, target_on_time, params.pacing
        )
    else:
        quality, punctuality = known.quality_price_nusd, known.punctuality_price_nusd
    if sla.value_usd is not None:
        quality = sla.value_usd * NUSD_PER_USD
    elif sla.quality is None:
        quality = params.choice.unstated_value_usd * NUSD_PER_USD
    if target_on_time is None:
        punctuality = 0.0
    return quality, punctuality


def on_time_target(sla: Sla) -> float | None:
    """The promised share on time; None without a deadline."""
    return None if sla.ttft_ms is None and sla.latency_ms is None else sla.percentile


def _floors(codes: Ints, sla: Sla, good: Floats, on_time: Floats) -> bool:
    """Turn away bids below the request's own floors, if any bid meets them all.

    Floors hold for `strict` requests and for those that asked to be rejected on a miss. When
    nobody meets them the best effort goes on, unless the app asked for a rejection.
    """
    if not (sla.strict or sla.on_miss == "reject"):
        return True
    eligible = codes == 0
    low_quality = np.zeros(len(codes), dtype=bool)
    late = np.zeros(len(codes), dtype=bool)
    if sla.quality is not None:
        low_quality = eligible & (good < sla.quality)
    if on_time_target(sla) is not None:
        late = eligible & ~low_quality & (on_time < sla.percentile)
    feasible = bool(np.any(eligible & ~low_quality & ~late))
    if feasible or sla.on_miss == "reject":
        codes[low_quality] = code_of(NoBid.QUALITY_FLOOR)
        codes[late] = code_of(NoBid.DEADLINE_FLOOR)
        return feasible
    violation = np.maximum((sla.quality or 0.0) - good, 0.0)
    if on_time_target(sla) is not None:
        violation = violation + np.maximum(sla.percentile - on_time, 0.0)
    if np.any(eligible):
        least = float(np.min(violation[eligible]))
        worse = eligible & (violation > least + 1e-12)
        quality_short = worse & (good < (sla.quality or 0.0))
        codes[quality_short] = code_of(NoBid.QUALITY_FLOOR)
        codes[worse & ~quality_short] = code_of(NoBid.DEADLINE_FLOOR)
    return False
