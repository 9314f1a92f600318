"""One policy through one stream: the real auction, request by request, and what came of it.

The loop is a gateway's in small. A request is decided on the newest view; offers whose circuit
is open do not bid; a failed attempt falls back down the ranking. What was delivered goes to the
policy's learner; a new view is made every tick, and whenever circuits open or close.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from analytics.replay.circuits import Circuits
from analytics.replay.files import Floats
from analytics.replay.learner import FAILED_AFTER_MS, Learner
from analytics.replay.rivals import Remembers
from analytics.replay.settings import ReplaySettings
from analytics.replay.shocks import ShockPlan
from analytics.replay.stream import Stream
from analytics.replay.world import World
from bidding.auction import decide
from bidding.columns import Bools, Ints
from bidding.decision import Bid
from bidding.kernel import Kernel
from bidding.market import PriceList
from bidding.policies.base import Policy
from bidding.request import BidRequest, Sla

REQUEST_S = 0.1
"""Time between requests where the market has no time of its own."""

TENANT = "replay"
START_S = 1_700_000_000.0
_NO_CIRCUITS = b""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a policy bought and got; arrays have shape (n,).

    Attributes
    ----------
    row : offer that served, -1 where nobody did
    cost_nusd, quality : paid and delivered
    ttft_s : seconds to the first token, failed attempts before it included
    expected_quality : mean quality, over all prompts, of the model bought
    p_good : what was believed when deciding
    n_lost : failed attempts
    n_tries : tries of broken sellers, beside the requests, up to here
    quality_price_nusd : λ
    """

    policy: str
    row: Ints
    cost_nusd: Floats
    quality: Floats
    ttft_s: Floats
    expected_quality: Floats
    p_good: Floats
    n_lost: Ints
    n_tries: Ints
    quality_price_nusd: Floats
    binding: Bools


def sla_of(settings: ReplaySettings) -> Sla:
    """The promise all requests of the replay carry."""
    ttft_ms = None if settings.ttft_s is None else settings.ttft_s * 1e3
    return Sla(
        quality=settings.target,
        value_usd=settings.value_usd,
        ttft_ms=ttft_ms,
        percentile=settings.percentile,
    )


class Episode:
    """Runs `policy` over `stream`; `run()` gives the trace."""

    def __init__(
        self,
        world: World,
        stream: Stream,
        policy: Policy,
        settings: ReplaySettings,
        plan: ShockPlan,
        features: list[tuple[float, ...]] | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        self.world = world
        self.stream = stream
        self.policy = policy
        self.settings = settings
        self.plan = plan
        self.task = "+".join(settings.sets)
        self.sla = sla_of(settings)
        self.sla_class = self.sla.class_key(TENANT, self.task)
        self.learner = Learner(
            world,
            self.task,
            settings.params,
            uses_latency=world.has_latency or plan.takes_down_most_bought,
            kernel=kernel,
        )
        self.circuits = Circuits(self.learner.book.offers, settings.params.reliability.circuit)
        self.features = features
        # Days of latency samples count only where latency does: else a busy market's circuits
        # would be judged at one request in a minute and a half.
        deadline = settings.ttft_s is not None
        self.request_s = world.request_s(len(stream), REQUEST_S) if deadline else REQUEST_S
        self.remembers = policy if isinstance(policy, Remembers) else None
        self.down: Bools = np.zeros(len(world.offer_ids), dtype=bool)
        self.absent: Bools = plan.absent_before.copy()
        self.cost_nusd = world.cost_nusd
        self.mean_quality = world.outcome.mean(axis=0)

    def run(self) -> Trace:
        n = len(self.stream)
        trace = Trace(
            policy=self.policy.name,
            row=np.full(n, -1, dtype=np.int64),
            cost_nusd=np.zeros(n),
            quality=np.zeros(n),
            ttft_s=np.zeros(n),
            expected_quality=np.zeros(n),
            p_good=np.zeros(n),
            n_lost=np.zeros(n, dtype=np.int64),
            n_tries=np.zeros(n, dtype=np.int64),
            quality_price_nusd=np.zeros(n),
            binding=np.zeros(n, dtype=bool),
        )
        step = self.settings.n_per_tick
        edges = sorted({*range(0, n, step), min(self.plan.at, n), n})
        for start, end in itertools.pairwise(edges):
            if start == self.plan.at:
                self._strike(trace, start)
            self._serve(trace, start, end)
        return trace

    def _serve(self, trace: Trace, start: int, end: int) -> None:
        """Requests `start` to `end` on one view, then a tick."""
        stream, world, learner = self.stream, self.world, self.learner
        params, sla, task = self.settings.params, self.sla, self.task
        view = learner.view(self._at_s(start), self.absent)
        seen = _NO_CIRCUITS
        known = view.classes.get(self.sla_class)
        trace.binding[start:end] = known is not None and known.quality_binding
        prompts = stream.prompt[start:end].tolist()
        labelled = stream.labelled[start:end].tolist()
        for i, prompt, told in zip(range(start, end), prompts, labelled, strict=True):
            at_s = self._at_s(i)
            if self.circuits.any_open or seen:
                self.circuits.look(at_s, self._is_down)
                blocked, half_open = self.circuits.blocked(), self.circuits.returning(at_s)
                if (now := blocked.tobytes() + half_open.tobytes()) != seen:
                    view, seen = learner.view(at_s, self.absent | blocked, half_open), now
            features = self.features[prompt] if self.features is not None else ()
            request = BidRequest(
                tenant=TENANT,
                task=task,
                sla=sla,
                input_tokens=int(world.questions.in_tokens[prompt]),
                features=features,
            )
            decision = decide(view, request, params, stream.draw[i], self.policy)
            bid, waited_s = self._dispatch(trace, decision.ranked, i, prompt, at_s)
            trace.n_tries[i] = self.circuits.n_tries
            trace.quality_price_nusd[i] = decision.quality_price_nusd
            if bid is None:
                trace.ttft_s[i] = math.inf
                continue
            model = int(world.model_of[bid.row])
            quality = float(world.outcome[prompt, model])
            if i >= self.plan.at and stream.luck[i] < self.plan.spoilt[model]:
                quality = 0.0
            trace.row[i] = bid.row
            trace.cost_nusd[i] = self.cost_nusd[prompt, bid.row]
            trace.quality[i] = quality
            trace.ttft_s[i] = waited_s
            trace.expected_quality[i] = self.mean_quality[model]
            trace.p_good[i] = bid.p_good
            on_time = None if self.settings.ttft_s is None else waited_s <= self.settings.ttft_s
            learner.pricer.fold_decision(
                self.sla_class,
                target_quality=sla.quality,
                target_on_time=None if on_time is None else sla.percentile,
                p_good=bid.p_good,
                p_on_time=bid.p_on_time,
                on_time=on_time,
                free=True,
            )
            if told:
                learner.note_label(bid.row, at_s, quality, features or None)
                learner.pricer.fold_label(
                    self.sla_class, quality=quality, p_good=bid.p_good, weight=1.0
                )
        learner.tick(self._at_s(end))

    def _dispatch(
        self, trace: Trace, ranked: tuple[Bid, ...], i: int, prompt: int, at_s: float
    ) -> tuple[Bid | None, float]:
        """Try the bids in order; the one that served, and seconds to its first token."""
        waited_s = 0.0
        world, circuits = self.world, self.circuits
        in_tokens = float(world.questions.in_tokens[prompt])
        for bid in ranked:
            row = bid.row
            if not circuits.may_send(row):
                continue
            ttft_s = float(self.stream.ttft_s[i, row]) if world.has_latency else 0.1
            if self.down[row]:
                ttft_s = math.inf
            tokens = float(world.out_tokens[prompt, world.model_of[row]])
            self.learner.note_attempt(row, at_s, ttft_s, tokens, in_tokens)
            if self.remembers is not None:
                self.remembers.settled(row, ttft_s, tokens, at_s)
            failed = math.isinf(ttft_s)
            circuits.attempted(row, at_s, failed=failed)
            if not failed:
                return bid, waited_s + ttft_s
            trace.n_lost[i] += 1
            waited_s += FAILED_AFTER_MS / 1e3
        return None, math.inf

    def _strike(self, trace: Trace, at: int) -> None:
        """The shock falls."""
        plan, world = self.plan, self.world
        self.absent[:] = False
        self.cost_nusd = world.cost_nusd * plan.price_factor
        for row in np.flatnonzero(plan.price_factor != 1.0).tolist():
            old = self.learner.book.prices(row)
            factor = float(plan.price_factor[row])
            self.learner.book.apply_prices(world.offer_ids[row], _scaled(old, factor))
        spoilt = plan.spoilt
        self.mean_quality = world.outcome.mean(axis=0) * (1.0 - spoilt)
        if plan.takes_down_most_bought:
            providers = self.learner.book.offers.provider
            recent = trace.row[max(0, at - 1000) : at]
            bought = np.bincount(providers[recent[recent >= 0]])
            self.down = providers == int(np.argmax(bought))

    def _is_down(self, row: int) -> bool:
        return bool(self.down[row])

    def _at_s(self, i: int) -> float:
        return START_S + i * self.request_s


def _scaled(prices: PriceList, factor: float) -> PriceList:
    return PriceList(
        input_nusd_per_mtok=round(prices.input_nusd_per_mtok * factor),
        output_nusd_per_mtok=round(prices.output_nusd_per_mtok * factor),
        request_nusd=round(prices.request_nusd * factor),
    )
