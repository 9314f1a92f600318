"""What was bought, and what two simple buyers would have paid for the same requests.

The paper market says what any model would have answered to any of its tasks, so always-best and
always-cheapest are exact counterfactuals, not estimates. Always-best is the model that is right
most often over all tasks, always-cheapest the one with the least cost; each at its cheapest
seller among those the class may buy from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from bidding.market import Capability, Catalogue, Offer
from broker.demo.classes import DemoClass
from broker.paper.behaviour import Behaviour
from broker.paper.tasks import TASKS, TaskItem, generate

_SAMPLE = 40


class Bought(Struct, kw_only=True):
    """One request of the demo and how it went. Times are seconds on the monotonic clock."""

    sla_class: str
    task: str
    started_s: float
    took_s: float
    ok: bool
    good: bool = False
    on_time: bool | None = None
    decision_id: str = ""
    offer: str = ""
    usd: float = 0.0
    n_attempts: int = 0
    error: str = ""
    best_usd: float = 0.0
    best_good: bool = False
    cheapest_usd: float = 0.0
    cheapest_good: bool = False


class Yardstick(Struct, frozen=True):
    """The two offers that simple buyers of a class would always use."""

    best: Offer
    cheapest: Offer


def yardsticks(
    catalogue: Catalogue, behaviour: Behaviour, classes: Iterable[DemoClass]
) -> dict[str, Yardstick]:
    """Always-best and always-cheapest per class."""
    items = [generate(task, 10**9 + k) for task in TASKS for k in range(_SAMPLE)]
    right = {
        model.id: sum(behaviour.right_share(model.id, item.difficulty) for item in items)
        for model in catalogue.models
        if Capability.EMBEDDINGS not in model.mask
    }
    found = {}
    for demo_class in classes:
        offers = [
            o for o in catalogue.offers if o.model in right and _may_buy(o, catalogue, demo_class)
        ]
        cost = {o.id: sum(_usd(o, behaviour, item) for item in items) for o in offers}
        best = max(offers, key=lambda o: (right[o.model], -cost[o.id]))
        found[demo_class.name] = Yardstick(best, min(offers, key=lambda o: cost[o.id]))
    return found


def measure(bought: Bought, item: TaskItem, yardstick: Yardstick, behaviour: Behaviour) -> None:
    """Fill in what the two simple buyers would have got and paid."""
    bought.best_usd = _usd(yardstick.best, behaviour, item)
    bought.best_good = behaviour.counterfactual(yardstick.best.model, item).good
    bought.cheapest_usd = _usd(yardstick.cheapest, behaviour, item)
    bought.cheapest_good = behaviour.counterfactual(yardstick.cheapest.model, item).good


class Totals(Struct, frozen=True, kw_only=True):
    """Sums and shares over some of the requests; `on_time_share` is of those with a deadline."""

    requests: int
    failed: int
    usd: float
    usd_always_best: float
    usd_always_cheapest: float
    good_share: float
    good_share_always_best: float
    good_share_always_cheapest: float
    on_time_share: float | None


def totals(requests: Sequence[Bought]) -> Totals:
    """Totals of `requests`."""
    n = max(len(requests), 1)
    timed = [b for b in requests if b.on_time is not None]
    return Totals(
        requests=len(requests),
        failed=sum(not b.ok for b in requests),
        usd=sum(b.usd for b in requests),
        usd_always_best=sum(b.best_usd for b in requests),
        usd_always_cheapest=sum(b.cheapest_usd for b in requests),
        good_share=sum(b.good for b in requests) / n,
        good_share_always_best=sum(b.best_good for b in requests) / n,
        good_share_always_cheapest=sum(b.cheapest_good for b in requests) / n,
        on_time_share=sum(bool(b.on_time) for b in timed) / len(timed) if timed else None,
    )


def _may_buy(offer: Offer, catalogue: Catalogue, demo_class: DemoClass) -> bool:
    provider = catalogue.provider(offer.provider)
    if not demo_class.regions:
        return True
    return (offer.region or provider.jurisdiction) in demo_class.regions and not provider.trains


def _usd(offer: Offer, behaviour: Behaviour, item: TaskItem) -> float:
    would = behaviour.counterfactual(offer.model, item)
    return offer.prices.cost_nusd(would.input_tokens, would.output_tokens) * 1e-9
