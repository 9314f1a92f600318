"""What the paper market's sellers deliver, by name and number, and what they do on average.

Right answers are those of `broker.paper.behaviour`, hence the same at every provider of a model;
latencies are drawn per request and offer from the offer's shape. `expected_*` are the same
without luck: the truth that estimates are held against.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from bidding.market import Catalogue
from bidding.request import Sla
from broker.paper.behaviour import Behaviour
from broker.paper.draws import normal, uniform
from broker.paper.market_data import MarketData, load
from broker.paper.tasks import TaskItem, generate
from broker.paper.tokens import prompt_tokens

START_US: Final = 1_764_000_000_000_000
_NORMAL: Final = NormalDist()
_FAILED_AFTER_MS: Final = 250.0


class RehearsalClass(Struct, frozen=True, kw_only=True):
    """One kind of customer; `weight` is its share of traffic."""

    tenant: str
    task: str
    sla: Sla
    weight: float = 1.0


def _class(tenant: str, task: str, weight: float, **sla: Any) -> RehearsalClass:
    return RehearsalClass(tenant=tenant, task=task, weight=weight, sla=Sla(**sla))


CLASSES: Final = (
    _class("chat", "math", 0.35, quality=0.9, ttft_ms=1000, percentile=0.95),
    _class("chat", "extract", 0.25, quality=0.95, ttft_ms=700, percentile=0.9),
    _class("batch", "math", 0.2, quality=0.8),
    _class("quality", "code", 0.2, quality=0.95),
)


class Ask(NamedTuple):
    """A request as it comes in."""

    n: int
    at_us: int
    asker: RehearsalClass
    item: TaskItem
    input_tokens: int
    seed: int
    labelled: bool


class Delivered(NamedTuple):
    """What an offer delivers to a request. Milliseconds, nano-dollars."""

    ok: bool
    good: bool
    ttft_ms: float
    total_ms: float
    output_tokens: int
    cost_nusd: int


class PaperTruth:
    """The sellers. A pure function of `seed`.

    Parameters
    ----------
    fail_share : share of attempts that end in a server's error
    labelled_share : share of answers that somebody scores
    """

    def __init__(
        self,
        seed: int,
        *,
        classes: Sequence[RehearsalClass] = CLASSES,
        rate: float = 100.0,
        fail_share: float = 0.005,
        labelled_share: float = 0.3,
        data: MarketData | None = None,
    ) -> None:
        self._data = data or load()
        self._behaviour = Behaviour(self._data, seed)
        self._seed = seed
        self._classes = tuple(classes)
        self._rate = rate
        self._fail_share = fail_share
        self._labelled_share = labelled_share
        self.catalogue = _texts_only(self._data)
        self.model_of = {o.id: o.model for o in self.catalogue.offers}
        self._prices = {o.id: o.prices for o in self.catalogue.offers}
        self._shapes = {o: self._data.shapes[self._data.shape_of[o]] for o in self._prices}

    def asks(self, first: int, n: int) -> Iterator[Ask]:
        """Requests `first` to `first + n`, evenly spaced."""
        weights = [c.weight for c in self._classes]
        for k in range(first, first + n):
            rng = random.Random(f"{self._seed}:{k}")
            asker = rng.choices(self._classes, weights)[0]
            item = generate(asker.task, rng.randrange(10**12))
            yield Ask(
                n=k,
                at_us=START_US + round(k * 1e6 / self._rate),
                asker=asker,
                item=item,
                input_tokens=prompt_tokens([item.prompt]),
                seed=rng.getrandbits(63),
                labelled=rng.random() < self._labelled_share,
            )

    def delivered(self, ask: Ask, offer: str) -> Delivered:
        """What `offer` delivers to this very request."""
        if uniform(self._seed, "fail", ask.n, offer) < self._fail_share:
            return Delivered(False, False, math.nan, _FAILED_AFTER_MS, 0, 0)
        answer = self._behaviour.answer(self.model_of[offer], ask.item)
        shape = self._shapes[offer]
        z_ttft = normal(self._seed, "ttft", ask.n, offer)
        z_tpot = normal(self._seed, "tpot", ask.n, offer)
        ttft_ms = math.exp(shape.ttft_log_ms + shape.ttft_log_sd * z_ttft)
        tpot_ms = math.exp(shape.tpot_log_ms + shape.tpot_log_sd * z_tpot)
        tokens = answer.output_tokens
        return Delivered(
            ok=True,
            good=answer.good,
            ttft_ms=ttft_ms,
            total_ms=ttft_ms + tpot_ms * max(tokens - 1, 0),
            output_tokens=tokens,
            cost_nusd=round(self._prices[offer].cost_nusd(ask.input_tokens, tokens)),
        )

    def items(self, task: str, n: int) -> list[TaskItem]:
        """Some items of a task."""
        return [generate(task, k) for k in range(n)]

    def expected_good(self, ask: Ask, offer: str) -> float:
        """Chance of a right answer from the offer's model, at the item's difficulty."""
        return self.expected_good_of(ask.item, offer)

    def expected_good_of(self, item: TaskItem, offer: str) -> float:
        """Chance of a right answer to `item`."""
        return self._behaviour.right_share(self.model_of[offer], item.difficulty)

    def expected_on_time(self, sla: Sla, offer: str, waited_ms: float = 0.0) -> float:
        """Chance that a sound call's first token comes in time; 1 without a deadline."""
        if sla.ttft_ms is None:
            return 1.0
        left_ms = sla.ttft_ms - waited_ms
        if left_ms <= 0.0:
            return 0.0
        shape = self._shapes[offer]
        return _NORMAL.cdf((math.log(left_ms) - shape.ttft_log_ms) / shape.ttft_log_sd)

    def expected(self, ask: Ask, offers: Sequence[str]) -> tuple[float, float]:
        """Chances of a good and of a punctual answer where `offers` are tried in this order."""
        good = on_time = 0.0
        reached, waited_ms = 1.0, 0.0
        for offer in offers:
            sound = reached * (1.0 - self._fail_share)
            good += sound * self.expected_good(ask, offer)
            on_time += sound * self.expected_on_time(ask.asker.sla, offer, waited_ms)
            reached *= self._fail_share
            waited_ms += _FAILED_AFTER_MS
        return good, on_time


def _texts_only(data: MarketData) -> Catalogue:
    """The catalogue without sellers of vectors."""
    offers = [o for o in data.catalogue.offers if o.model in data.skills]
    sold = {o.model for o in offers}
    sellers = {o.provider for o in offers}
    return msgspec.structs.replace(
        data.catalogue,
        offers=offers,
        models=[m for m in data.catalogue.models if m.id in sold],
        providers=[p for p in data.catalogue.providers if p.id in sellers],
    ).checked()
