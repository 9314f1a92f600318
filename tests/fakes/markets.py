"""Small catalogues for tests: prices, skills and speeds chosen so that answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bidding.book import MarketBook
from bidding.estimators.quality_skill import TaskSkill
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.quote import Quote
from bidding.skill import Skill


def price(input_usd: float, output_usd: float | None = None) -> PriceList:
    """Prices in dollars per million tokens."""
    output = 4 * input_usd if output_usd is None else output_usd
    return PriceList(
        input_nusd_per_mtok=round(input_usd * 1e9), output_nusd_per_mtok=round(output * 1e9)
    )


def catalogue(n_models: int = 4, n_providers: int = 3) -> Catalogue:
    """`n_models` × `n_providers` offers; model k costs 2**k times model 0 and is better."""
    providers = [
        Provider(
            id=f"p{i}",
            name=f"P{i}",
            wire="openai",
            base_url=f"http://127.0.0.1:{9000 + i}",
            jurisdiction="eu" if i == 0 else "us",
            retention_days=0 if i == 1 else 30,
            trains=i == 2,
        )
        for i in range(n_providers)
    ]
    models = [
        Model(
            id=f"m{k}",
            family="f",
            context_window=8_000 * 2**k,
            max_output_tokens=4_096,
            capabilities=["streaming", "tools"] if k else ["streaming"],
            prior_quality=0.5 + 0.45 * k / max(n_models - 1, 1),
        )
        for k in range(n_models)
    ]
    offers = [
        Offer(provider=p.id, model=m.id, prices=price(0.1 * 2**k * (1 + 0.1 * i)))
        for i, p in enumerate(providers)
        for k, m in enumerate(models)
    ]
    return Catalogue(providers=providers, models=models, offers=offers, tasks=["math"])


def quote(offer: str, *, ttft_ms: float = 300.0, fail_share: float = 0.01, at_us: int = 1) -> Quote:
    """A well-known offer with the given median TTFT."""
    return Quote(
        offer=offer,
        at_us=at_us,
        ttft_log_ms=math.log(ttft_ms),
        ttft_log_sd=0.3,
        ttft_n=200.0,
        tpot_log_ms=math.log(10.0),
        tpot_log_sd=0.2,
        tpot_n=200.0,
        fail_share=fail_share,
        fail_n=200.0,
    )


def skill(
    shares: Sequence[float], *, task: str = "math", sd: float = 0.05, at_us: int = 1
) -> Skill:
    """Model k is right with `shares[k]`."""
    models = [f"m{k}" for k in range(len(shares))]
    return Skill(
        task=task,
        at_us=at_us,
        quality=TaskSkill(
            task=task,
            at_us=at_us,
            models=models,
            theta=[math.log(s / (1 - s)) for s in shares],
            theta_sd=[sd] * len(shares),
            n_labels=[500.0] * len(shares),
        ),
        models=models,
        out_log_tokens=[math.log(100.0)] * len(shares),
        out_log_sd=[0.1] * len(shares),
    )


def book(n_models: int = 4, n_providers: int = 3) -> MarketBook:
    """A book with known quotes and skills: better models are dearer."""
    made = MarketBook(catalogue(n_models, n_providers))
    for offer in made.offers.offer_ids:
        made.apply_quote(quote(offer))
    made.apply_skill(skill([0.5 + 0.45 * k / max(n_models - 1, 1) for k in range(n_models)]))
    return made
