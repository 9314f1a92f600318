"""A gateway and its estimators in small: requests decided on views, outcomes folded every tick."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Self

import msgspec

from analytics.whatif import Moment
from bidding.appraisal import Appraiser, Label, Settled
from bidding.auction import decide
from bidding.book import MarketBook
from bidding.decision import Bid, Decision
from bidding.kernel import Kernel
from bidding.outcome import FailureClass, Outcome
from bidding.params import Params
from bidding.quote import Position
from bidding.quoting import Quoter
from bidding.request import BidRequest
from bidding.trial import Trial, pacing_of
from bidding.view import MarketView
from broker.rehearsal.market import Ask, Delivered, PaperTruth
from feeds.estimate import paid_nusd
from feeds.flight import decision_record, note_shadow
from feeds.records import DecisionRecord
from feeds.view_maker import ClassStates

TICK_US: Final = 250_000
_MOST_ATTEMPTS: Final = 3
_CALIBRATE_EVERY: Final = 20
_LOG: Final = "rehearsal"


class Assigned(NamedTuple):
    """Under which params a request is decided, in which arm of a trial, and with which others it
    is compared.
    """

    params: Params
    arm: str = ""
    other: Params | None = None


class Flown(NamedTuple):
    """A request that was served, with the truth of what was bought.

    `good` and `on_time` are chances, given what was bought; `was_good` is what came of it.
    """

    moment: Moment
    record: DecisionRecord
    good: float
    on_time: float
    cost_usd: float
    was_good: bool


Assign = Callable[[Ask, BidRequest], Assigned]


class RehearsedGateway:
    """Serves requests of a `PaperTruth`; `copied()` is another that knows the same.

    Attributes
    ----------
    params : in force, for what `assign` does not say otherwise
    """

    def __init__(self, truth: PaperTruth, params: Params, *, kernel: Kernel | None = None) -> None:
        self.truth = truth
        self.params = params
        self.book = MarketBook(truth.catalogue)
        self.book.kernel = kernel
        self.quoter = Quoter(params)
        self.appraiser = Appraiser(truth.catalogue, params)
        self._states: ClassStates = {}
        self._attempts: list[Outcome] = []
        self._offset = 0
        self._n_ticks = 0
        self._tick_us = 0
        self._view: MarketView | None = None

    def copied(self, truth: PaperTruth | None = None) -> Self:
        """A gateway of its own with the same knowledge, before other sellers if given."""
        kernel, self.book.kernel = self.book.kernel, None
        view, self._view = self._view, None
        sellers, self.truth = self.truth, self.truth if truth is None else truth
        memo = {id(self.truth): self.truth, id(self.book.offers): self.book.offers}
        try:
            other = copy.deepcopy(self, memo)
        finally:
            self.book.kernel, self._view, self.truth = kernel, view, sellers
        other.book.kernel = kernel
        return other

    def set_params(self, params: Params, canary: Trial | None = None) -> None:
        """Put other params in force, in the auction and in the estimators, beside a canary."""
        self.params = params
        self.appraiser.steer(params, pacing_of(canary))

    def serve(self, asks: Iterable[Ask], assign: Assign | None = None) -> list[Flown]:
        """Serve requests in order."""
        return [self.one(ask, assign) for ask in asks]

    def one(self, ask: Ask, assign: Assign | None = None) -> Flown:
        """Serve one request."""
        if ask.at_us >= self._tick_us:
            self._tick(ask.at_us)
        view = self._view
        assert view is not None
        request = BidRequest(
            tenant=ask.asker.tenant,
            task=ask.asker.task,
            sla=ask.asker.sla,
            input_tokens=ask.input_tokens,
        )
        assigned = Assigned(self.params) if assign is None else assign(ask, request)
        if assigned.arm:
            request = msgspec.structs.replace(request, arm=assigned.arm)
        decision = decide(view, request, assigned.params, ask.seed)
        record = decision_record(decision, request, decision_id=f"dec_{ask.n}", at_us=ask.at_us)
        if assigned.other is not None:
            plain = msgspec.structs.replace(request, arm="")
            other = decide(view, plain, assigned.other, ask.seed)
            note_shadow(record, assigned.other.version, other.winner)
        bid, got, waited_ms, cost_nusd = self._dispatch(ask, decision)
        self._settle(ask, record, bid, got, waited_ms, cost_nusd)
        label = float(got.good) if ask.labelled and got is not None and got.ok else None
        self._learn(record, request, label)
        tried = [b.offer for b in decision.ranked[:_MOST_ATTEMPTS]]
        good, on_time = self.truth.expected(ask, tried)
        return Flown(
            moment=Moment(view, record, assigned.params, self._states, label),
            record=record,
            good=good,
            on_time=on_time,
            cost_usd=cost_nusd * 1e-9,
            was_good=got is not None and got.good,
        )

    def _dispatch(
        self, ask: Ask, decision: Decision
    ) -> tuple[Bid | None, Delivered | None, float, int]:
        """The bid that delivered, what, milliseconds lost before it, and what all of it cost."""
        waited_ms = 0.0
        cost_nusd = 0
        got: Delivered | None = None
        for bid in decision.ranked[:_MOST_ATTEMPTS]:
            got = self.truth.delivered(ask, bid.offer)
            cost_nusd += got.cost_nusd
            self._attempts.append(
                Outcome(
                    offer=bid.offer,
                    at_us=ask.at_us,
                    failure=FailureClass.OK if got.ok else FailureClass.SERVER_ERROR,
                    ttft_ms=got.ttft_ms if got.ok else None,
                    total_ms=got.total_ms,
                    input_tokens=ask.input_tokens,
                    output_tokens=got.output_tokens,
                    cost_nusd=got.cost_nusd,
                    task=ask.asker.task,
                )
            )
            if got.ok:
                return bid, got, waited_ms, cost_nusd
            waited_ms += got.total_ms
        return None, got, waited_ms, cost_nusd

    def _settle(
        self,
        ask: Ask,
        record: DecisionRecord,
        bid: Bid | None,
        got: Delivered | None,
        waited_ms: float,
        cost_nusd: int,
    ) -> None:
        record.n_attempts = 1
        record.cost_nusd = cost_nusd
        record.failure = FailureClass.SERVER_ERROR
        deadline = ask.asker.sla.ttft_ms
        record.on_time = None if deadline is None else False
        if bid is None or got is None:
            return
        record.failure = FailureClass.OK
        record.delivered_offer = bid.offer
        record.delivered_model = self.truth.model_of[bid.offer]
        record.p_good, record.p_on_time = bid.p_good, bid.p_on_time
        record.ttft_ms, record.total_ms = waited_ms + got.ttft_ms, waited_ms + got.total_ms
        record.output_tokens = got.output_tokens
        if deadline is not None:
            record.on_time = record.ttft_ms <= deadline

    def _learn(self, record: DecisionRecord, request: BidRequest, label: float | None) -> None:
        ok = record.failure is FailureClass.OK
        self.appraiser.fold_decision(
            Settled(
                task=record.task,
                sla_class=record.sla_class,
                at_us=record.at_us,
                model=record.delivered_model,
                output_tokens=record.output_tokens,
                cut=False,
                target_quality=record.target_quality,
                target_on_time=record.target_on_time,
                p_good=record.p_good if ok else None,
                p_on_time=record.p_on_time,
                on_time=record.on_time,
                free=record.n_bids > 1,
                paid_nusd=paid_nusd(record),
            ),
            self._position("decisions"),
        )
        if label is not None and record.delivered_model is not None:
            self.appraiser.fold_label(
                Label(
                    task=record.task,
                    sla_class=record.sla_class,
                    at_us=record.at_us,
                    model=record.delivered_model,
                    quality=label,
                    weight=1.0,
                    labelled_share=1.0,
                    features=request.features,
                    p_good=record.p_good,
                ),
                self._position("feedback"),
            )

    def _tick(self, now_us: int) -> None:
        """Fold what has happened, publish it, and make a new view."""
        self._tick_us = now_us + TICK_US
        self.quoter.fold(self._attempts, [self._position("attempts") for _ in self._attempts])
        self._attempts.clear()
        for quote in self.quoter.quotes(now_us):
            self.book.apply_quote(quote)
        if self._n_ticks % _CALIBRATE_EVERY == 0:
            calibration = self.quoter.calibration(now_us)
            if calibration is not None:
                self.book.apply_calibration(calibration)
        states = dict(self._states)
        for made in self.appraiser.skills(now_us):
            self.book.apply_skill(made.skill)
            states[made.skill.task] = made.classes
        self._states = states
        self._n_ticks += 1
        self._view = self.book.view(now_us)

    def _position(self, topic: str) -> Position:
        self._offset += 1
        return Position(_LOG, topic, 0, self._offset)
