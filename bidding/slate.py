"""A slate: the offers that may bid on one kind of request, with all that can be known beforehand.

Gates, probabilities and the expected cost of the answer are the same for all requests of a
kind, so they are computed once per view and kept; what is left per request is a handful of
array operations. What several kinds share (who may bid, P(on time) for a deadline, the price of
an answer) is kept by the view apart, so that a kind new to a view costs little. A slate holds
only eligible offers, in the order of their ids, so ties break by id without further work.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np

from bidding.bid_columns import (
    FIXED,
    GOOD,
    LEAST_GOOD,
    LEAST_ON_TIME,
    N_PLAIN,
    N_SCARCE,
    ON_TIME,
    PRICE,
    PUNCTUALITY,
    SHADOW,
    SHADOW_TOKEN,
    WORTH,
    fill,
)
from bidding.columns import Bools, Floats, Ints
from bidding.decision import NoBid
from bidding.estimators.quality_skill import SkillArrays
from bidding.estimators.tokens import expected_tokens
from bidding.gates import Gated, by_rules, code_of, gated, overlaid
from bidding.kind import Kind, KindKey, kind_key, on_time_target
from bidding.pacing import prices_elsewhere, starting_prices
from bidding.params import ExplorationParams, PacingParams, Params
from bidding.request import BidRequest, Sla
from bidding.scoring import p_on_time
from bidding.units import NUSD_PER_USD
from bidding.view import MarketView, TaskColumns

MAX_SLATES: Final = 4096
MAX_PARTS: Final = 1024
_NO_BOUND: Final = 1e12
_HARDLY: Final = 0.75
"""Share of the class's punctuality below which a half-open offer is not tried by a request."""
NOBODY: Final[Bools] = np.zeros(0, dtype=bool)
_NO_PLACES: Final[Ints] = np.zeros(0, dtype=np.int64)


class Slate:
    """Eligible offers as columns, shape (n_eligible,), and the class's prices.

    Attributes
    ----------
    rows : rows of the view; `row_list` the same as a list
    columns : what is known of the bids; see `bidding.bid_columns`
    fresh : places of offers with too little history; none where no offer has enough
    rules : bounds of exploration, (N_RULES,); `rule_list` the same as a list
    quality_price_nusd, punctuality_price_nusd : λ and μ
    quality : the task's quality model, over all offers
    feasible : whether some offer meets the request's own floors
    """

    def __init__(self, view: MarketView, kind: Kind, params: Params) -> None:
        sla = kind.sla
        task = view.task(kind.task)
        task_key = kind.task if kind.task in view.tasks else ""
        on_time = _on_time(view, kind, task, task_key, params)
        who, feasible = _eligible(view, kind, task, on_time)
        rows = who.rows
        quality_price, punctuality_price = class_prices(view, kind, params)
        self._view = view
        self._task = task
        self._prices = view.prices.of_band(kind.band)
        self._harm = _harm_nusd(view, params)
        self.rows: Ints = rows
        self.row_list = who.row_list
        self.no_bids = who.no_bids
        self.codes: Ints = who.codes
        self.feasible = feasible
        self.has_floors = kind.has_floors and sla.quality is not None
        self.bonus_sd = 0.0 if sla.strict else params.choice.optimism_sd
        self.doubt_sd = params.exploration.safety_sd
        self.quality_price_nusd = quality_price
        self.punctuality_price_nusd = punctuality_price
        self.quality: SkillArrays = task.quality
        self.offer_ids = view.offers.offer_ids
        self.rules, self.rule_list = _rules(view, sla, params)
        self.fresh: Ints = _fresh(view, rows, params)
        scarce = view.shadow is not None
        self.columns: Floats = np.empty((N_SCARCE if scarce else N_PLAIN, len(rows)))
        (fill if view.kernel is None else view.kernel.fill)(
            self.columns,
            rows,
            _fixed_nusd(view, kind, task, task_key),
            self._prices.input_nusd,
            task.p_good,
            task.p_good_sd,
            on_time,
            view.quotes.evidence_n,
            self._harm,
            quality_price,
            punctuality_price,
            self.bonus_sd,
            self.doubt_sd,
        )
        if view.shadow is not None:
            per_token = view.shadow.token_nusd[rows]
            out_tokens = _out_tokens(task, kind.max_output_tokens)
            self.columns[SHADOW] = view.shadow.request_nusd[rows] + per_token * out_tokens[rows]
            self.columns[SHADOW_TOKEN] = per_token
        if len(view.half_open) and params.exploration.probe_share:
            self._probe(view, params.exploration)

    def _probe(self, view: MarketView, params: ExplorationParams) -> None:
        """Where somebody's circuit is half open, explore by probing instead.

        To be drawn it must win once the loss is forgiven that failing and being late cost it; of
        several, the one that has lost most sets the measure. Forgiven is a doubt, not what is
        known: one whose quote says that it would hardly be on time, were it well, is left to
        requests that have time.
        """
        places = np.flatnonzero(view.half_open[self.rows])
        well = 1.0 - np.minimum(view.quotes.fail_share[self.rows[places]], 0.99)
        hardly = _HARDLY * self.rule_list[PUNCTUALITY]
        places = places[self.columns[ON_TIME, places] / well >= hardly]
        if not len(places):
            return
        late = self.punctuality_price_nusd * (1.0 - self.columns[ON_TIME, places])
        lost = late + self._harm[self.rows[places]]
        self.fresh = places
        self.rule_list = [0.0, params.probe_share, lost.max().item(), _NO_BOUND, -1.0, -1.0]
        self.rules = np.array(self.rule_list)

    def _column(self, which: int) -> Floats:
        column: Floats = self.columns[which]
        return column

    @cached_property
    def fixed_nusd(self) -> Floats:
        """Expected cost that does not depend on the prompt's length."""
        return self._column(FIXED)

    @cached_property
    def input_nusd(self) -> Floats:
        """Price of a prompt token."""
        return self._column(PRICE)

    @cached_property
    def worth_nusd(self) -> Floats:
        """λ·P(good, optimistic) + μ·P(on time) − harm: score is cost less this."""
        return self._column(WORTH)

    @cached_property
    def p_good(self) -> Floats:
        return self._column(GOOD)

    @cached_property
    def p_on_time(self) -> Floats:
        return self._column(ON_TIME)

    @cached_property
    def least_good(self) -> Floats:
        """Lower bound of P(good), by which exploring is judged safe."""
        return self._column(LEAST_GOOD)

    @cached_property
    def least_on_time(self) -> Floats:
        """Lower bound of P(on time), by which exploring is judged safe."""
        return self._column(LEAST_ON_TIME)

    @cached_property
    def p_good_sd(self) -> Floats:
        """Standard deviation of P(good), on the probability scale."""
        return self._task.p_good_sd[self.rows]

    @cached_property
    def other_worth_nusd(self) -> Floats:
        """What an answer is worth but for its being good: μ·P(on time) − harm."""
        return self.punctuality_price_nusd * self.p_on_time - self.harm_nusd

    @cached_property
    def harm_nusd(self) -> Floats:
        """Expected harm of failing and of lacking capacity, beside the cost."""
        return self._harm[self.rows]

    @cached_property
    def cache_read_nusd(self) -> Floats:
        """Price of a prompt token that the offer has cached."""
        return self._prices.cache_read_nusd[self.rows]

    @cached_property
    def model(self) -> Ints:
        """Each offer's model."""
        return self._view.offers.model[self.rows]

    @cached_property
    def family(self) -> Ints:
        """Each offer's model family."""
        return self._view.offers.family[self.rows]

    @cached_property
    def best_places(self) -> Ints:
        """Where P(good) is highest."""
        good = self.p_good
        return np.flatnonzero(good == good.max()) if len(good) else self.rows

    @cached_property
    def skill(self) -> SkillArrays:
        """The task's quality model, over the eligible offers."""
        return self.quality.taken(self.rows)

    def with_quality(self, columns: Floats, good_sd: Floats, feasible: bool) -> Slate:
        """The same slate with other beliefs of quality."""
        other = object.__new__(Slate)
        kept = other.__dict__
        kept.update(self.__dict__)
        for name in _OF_QUALITY:
            kept.pop(name, None)
        kept["columns"] = columns
        kept["p_good_sd"] = good_sd
        kept["feasible"] = feasible
        return other


_OF_QUALITY: Final = ("p_good", "worth_nusd", "least_good", "best_places")


def slate_for(view: MarketView, request: BidRequest, params: Params) -> Slate:
    """The slate of the request's kind: the view's own when it has one."""
    key = kind_key(view, request, params.version)
    slates = view.memo.slates
    slate = slates.get(key)
    if slate is None:
        slate = view.memo.warmed.get(key) or make_slate(view, key, params)
        if len(slates) < MAX_SLATES:
            slates[key] = slate
    return slate


def make_slate(view: MarketView, key: KindKey, params: Params) -> Slate:
    """Gate all offers for a kind of request and work out what does not depend on its prompt."""
    return Slate(view, Kind(*key), params)


def class_prices(view: MarketView, kind: Kind, params: Params) -> tuple[float, float]:
    """λ and μ in nusd: stated by the app, the class's own, or where a new class starts.

    In a trial of params a class starts at the prices it has outside of the trial. Without a
    target or a stated value a good answer is worth the default of the params; without a
    deadline a punctual answer is worth nothing.
    """
    sla = kind.sla
    known = view.classes.get(kind.class_key)
    if known is None and kind.arm:
        known = view.classes.get(sla.class_key(kind.tenant, kind.task))
    target_on_time = on_time_target(sla)
    if known is None:
        quality, punctuality = starting_prices(
            view.classes_of_task.get(kind.task, ()),
            sla.quality,
            target_on_time,
            params.pacing,
            _elsewhere(view, kind.task, sla.quality, target_on_time, params.pacing),
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


def _elsewhere(
    view: MarketView,
    task: str,
    quality: float | None,
    on_time: float | None,
    params: PacingParams,
) -> tuple[float, float]:
    """What other tasks pay for targets like these, once a view."""
    kept = view.memo.elsewhere
    key = (task, quality, on_time, params)
    known = kept.get(key)
    if known is None:
        others = [classes for name, classes in view.classes_of_task.items() if name != task]
        known = prices_elsewhere(others, quality, on_time, params)
        if len(kept) < MAX_PARTS:
            kept[key] = known
    return known


def _out_tokens(task: TaskColumns, cap: int | None) -> Floats:
    known = task.out_tokens.get(cap)
    if known is None:
        known = expected_tokens(task.out_log_tokens, task.out_log_sd, cap)
        if len(task.out_tokens) < MAX_PARTS:
            task.out_tokens[cap] = known
    return known


def _on_time(
    view: MarketView, kind: Kind, task: TaskColumns, task_key: str, params: Params
) -> Floats:
    sla = kind.sla
    optimism_sd = 0.0 if sla.strict else params.choice.latency_optimism_sd
    key = kind.on_time_key(optimism_sd, task_key)
    kept = view.memo.on_time
    known = kept.get(key)
    if known is None:
        known = p_on_time(
            view.quotes,
            ttft_ms=sla.ttft_ms,
            latency_ms=sla.latency_ms,
            input_tokens=kind.typical_tokens,
            out_tokens=_out_tokens(task, kind.max_output_tokens),
            n_inflight=view.n_inflight,
            optimism_sd=optimism_sd,
        )
        if len(kept) < MAX_PARTS:
            kept[key] = known
    return known


def _fixed_nusd(view: MarketView, kind: Kind, task: TaskColumns, task_key: str) -> Floats:
    key = (task_key, kind.max_output_tokens, kind.band)
    kept = view.memo.fixed_nusd
    known = kept.get(key)
    if known is None:
        prices = view.prices.of_band(kind.band)
        known = prices.request_nusd + prices.output_nusd * _out_tokens(task, kind.max_output_tokens)
        if len(kept) < MAX_PARTS:
            kept[key] = known
    return known


def _harm_nusd(view: MarketView, params: Params) -> Floats:
    choice = params.choice
    key = (choice.failover_price_usd, choice.capacity_price_usd)
    kept = view.memo.harm_nusd
    known = kept.get(key)
    if known is None:
        quotes = view.quotes
        known = kept[key] = NUSD_PER_USD * (
            quotes.fail_share * choice.failover_price_usd
            + quotes.capacity_share * choice.capacity_price_usd
        )
    return known


def _fresh(view: MarketView, rows: Ints, params: Params) -> Ints:
    """Places of newcomers; none where nobody has been tried enough."""
    tries = params.exploration.burn_in_tries
    kept = view.memo.untried
    untried = kept.get(tries)
    if untried is None:
        untried = kept[tries] = ~(view.quotes.evidence_n >= tries)
        untried = kept[tries] = untried if untried.any() else NOBODY
    if untried is NOBODY:
        return _NO_PLACES
    here = untried[rows]
    return _NO_PLACES if here.all() else np.flatnonzero(here)


def _rules(view: MarketView, sla: Sla, params: Params) -> tuple[Floats, list[float]]:
    """Bounds of exploration in a class of requests."""
    exploration = params.exploration
    on_time = on_time_target(sla)
    total = exploration.share + exploration.burn_in_share
    key = (sla.quality, on_time, params.version)
    known = view.memo.rules.get(key)
    if known is None:
        told = [
            exploration.share,
            exploration.burn_in_share,
            exploration.max_loss_usd * NUSD_PER_USD,
            1.0 + exploration.max_spend_share / total if total > 0.0 else 1.0,
            -1.0 if sla.quality is None else sla.quality,
            -1.0 if on_time is None else on_time,
        ]
        known = view.memo.rules[key] = (np.array(told), told)
    return known


def _eligible(
    view: MarketView, kind: Kind, task: TaskColumns, on_time: Floats
) -> tuple[Gated, bool]:
    """Who may bid, and whether anybody meets the request's own floors."""
    key = kind.gate_key(view.offers.smallest_max_output)
    kept = view.memo.gated
    who = kept.get(key)
    if who is None:
        who = overlaid(by_rules(view.offers, key), view.market_codes)
        if len(kept) < MAX_PARTS:
            kept[key] = who
    if not kind.has_floors:
        return who, True
    codes = who.codes.copy()
    feasible = _floors(codes, kind.sla, task.p_good, on_time)
    return gated(codes), feasible


def _floors(codes: Ints, sla: Sla, good: Floats, on_time: Floats) -> bool:
    """Turn away bids below the request's own floors, if any bid meets them all.

    Floors hold for `strict` requests and for those that asked to be rejected on a miss. When
    nobody meets them the best effort goes on, unless the app asked for a rejection.
    """
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
