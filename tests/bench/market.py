"""A market and its traffic for the benches: varied, seeded, made of plain facts.

Twenty apps of five tenants ask in their own SLA classes; their prompts differ in length from call
to call, so that some hundred kinds of request are alive at once. As in real life each request is
a new object with an SLA of its own: nothing is compared by identity.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec
import numpy as np

from bidding.book import MarketBook
from bidding.estimators.quality_skill import TaskSkill
from bidding.features import N_FEATURES
from bidding.market import Capability, Catalogue, Model, Offer, PriceList, Provider
from bidding.pacing import ClassPrices
from bidding.quote import Quote
from bidding.request import BidRequest, Compliance, Sla
from bidding.skill import Skill

TASKS: Final = ("chat", "math", "extract", "classify")
N_BASIS: Final = 3


class App(NamedTuple):
    """One caller: what it asks, how long its prompts are (log-normal), its share of traffic."""

    tenant: str
    task: str
    sla: bytes
    max_output_tokens: int | None
    needs: int
    log_tokens: float
    share: float


_SLAS: Final = (
    Sla(),
    Sla(quality=0.8),
    Sla(quality=0.9, ttft_ms=1_000),
    Sla(quality=0.95),
    Sla(quality=0.9, latency_ms=4_000, percentile=0.9),
    Sla(value_usd=0.001, ttft_ms=500, max_cost_usd=0.01),
    Sla(quality=0.85, compliance=Compliance(regions=("eu",))),
    Sla(quality=0.7, strict=True, ttft_ms=2_000),
    Sla(quality=0.9, max_cost_usd=0.002, compliance=Compliance(no_training=True, zdr=True)),
    Sla(quality=0.8, ttft_ms=800, latency_ms=8_000),
)


def apps(seed: int = 1) -> list[App]:
    """Twenty apps; the k-th has a share of traffic that falls as 1/(k+1)."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(20):
        sla = _SLAS[k % len(_SLAS)]
        needs = (0, 0, int(Capability.TOOLS), int(Capability.STREAMING))[k % 4]
        made.append(
            App(
                tenant=f"tenant-{k % 5}",
                task=TASKS[k % 3] if k % 7 else "unheard-of",
                sla=msgspec.json.encode(sla),
                max_output_tokens=(None, 256, 1_024)[k % 3],
                needs=needs,
                log_tokens=float(rng.uniform(4.5, 8.0)),
                share=1.0 / (k + 1),
            )
        )
    return made


def requests(n: int, *, with_features: bool = False, seed: int = 2) -> list[BidRequest]:
    """`n` requests of the apps, in random order."""
    rng = np.random.default_rng(seed)
    callers = apps()
    shares = np.array([a.share for a in callers])
    made = []
    for k in rng.choice(len(callers), size=n, p=shares / shares.sum()).tolist():
        app = callers[k]
        features = tuple(rng.standard_normal(N_FEATURES).tolist()) if with_features else ()
        made.append(
            BidRequest(
                tenant=app.tenant,
                task=app.task,
                sla=msgspec.json.decode(app.sla, type=Sla),
                input_tokens=int(min(np.exp(rng.normal(app.log_tokens, 0.7)), 100_000)),
                max_output_tokens=app.max_output_tokens,
                needs=app.needs,
                features=features,
                streaming=bool(k % 2),
            )
        )
    return made


def catalogue(n_offers: int) -> Catalogue:
    """A catalogue of `n_offers` = providers × models, every offer with prices of its own."""
    n_models = 10 if n_offers <= 100 else 40
    rng = np.random.default_rng(3)
    providers = [
        Provider(
            id=f"p{i:02d}",
            name=f"Provider {i}",
            wire="openai",
            base_url=f"http://127.0.0.1:{9000 + i}",
            jurisdiction="eu" if i % 3 == 0 else "us",
            retention_days=0 if i % 2 else 30,
            trains=i % 5 == 4,
        )
        for i in range(n_offers // n_models)
    ]
    models = [
        Model(
            id=f"m{k:02d}",
            family=f"f{k % 5}",
            context_window=(32_000, 128_000, 200_000)[k % 3],
            max_output_tokens=8_192,
            capabilities=["streaming", "tools"] if k % 4 else ["streaming"],
            prior_quality=0.5 + 0.45 * k / n_models,
        )
        for k in range(n_models)
    ]
    offers = []
    for provider in providers:
        for k, model in enumerate(models):
            usd = 0.05 * 80 ** (k / n_models) * float(rng.uniform(0.9, 1.3))
            prices = PriceList(
                input_nusd_per_mtok=round(usd * 1e9), output_nusd_per_mtok=round(4e9 * usd)
            )
            offers.append(Offer(provider=provider.id, model=model.id, prices=prices))
    return Catalogue(providers=providers, models=models, offers=offers, tasks=list(TASKS))


class Market:
    """A book that moves: `tick` applies what 100 ms of traffic would teach it."""

    def __init__(self, n_offers: int, seed: int = 4) -> None:
        self.catalogue = catalogue(n_offers)
        self.book = MarketBook(self.catalogue)
        self._rng = np.random.default_rng(seed)
        self._at_us = 0
        self.tick(n_quotes=n_offers)

    @property
    def at_us(self) -> int:
        """The market's time."""
        return self._at_us

    def tick(self, n_quotes: int = 30) -> None:
        """New quotes of some offers and a new skill of every task."""
        self._at_us += 100_000
        ids = self.book.offers.offer_ids
        for row in self._rng.choice(len(ids), size=n_quotes, replace=False).tolist():
            self.book.apply_quote(self._quote(ids[row]))
        for task in TASKS:
            self.book.apply_skill(self._skill(task))

    def _quote(self, offer: str) -> Quote:
        rng = self._rng
        return Quote(
            offer=offer,
            at_us=self._at_us,
            ttft_log_ms=math.log(rng.uniform(150.0, 1_200.0)),
            ttft_log_sd=0.4,
            ttft_n=200.0,
            ttft_per_log_input=0.1,
            tpot_log_ms=math.log(rng.uniform(5.0, 30.0)),
            tpot_log_sd=0.3,
            tpot_n=200.0,
            fail_share=float(rng.uniform(0.0, 0.03)),
            fail_n=200.0,
        )

    def _skill(self, task: str) -> Skill:
        rng = np.random.default_rng(len(task))
        models = [m.id for m in self.catalogue.models]
        n = len(models)
        theta = np.linspace(-0.5, 3.0, n) + self._rng.normal(0.0, 0.05, n)
        loadings = np.column_stack([np.ones(n), rng.normal(0.0, 0.3, (n, N_BASIS - 1))])
        return Skill(
            task=task,
            at_us=self._at_us,
            quality=TaskSkill(
                task=task,
                at_us=self._at_us,
                models=models,
                theta=theta.tolist(),
                theta_sd=[0.2] * n,
                n_labels=[200.0] * n,
                level_sd=0.1,
                prompt_sd=0.5,
                centre=[0.0] * N_FEATURES,
                inv_scale=[1.0] * N_FEATURES,
                basis=rng.normal(0.0, 0.1, (N_BASIS, N_FEATURES)).tolist(),
                loadings=loadings.tolist(),
                spread=rng.normal(0.0, 0.05, (8, N_FEATURES)).tolist(),
                novelty_sd=0.5,
            ),
            models=models,
            out_log_tokens=self._rng.normal(5.0, 0.2, n).tolist(),
            out_log_sd=[0.6] * n,
            classes=[
                ClassPrices(
                    sla_class=key,
                    quality_price_nusd=float(self._rng.uniform(5e5, 5e6)),
                    punctuality_price_nusd=float(self._rng.uniform(5e5, 2e6)),
                )
                for key in _class_keys(task)
            ],
        )


def _class_keys(task: str) -> list[str]:
    asked = [a for a in apps() if a.task == task]
    return sorted({msgspec.json.decode(a.sla, type=Sla).class_key(a.tenant, task) for a in asked})
