"""The shipped figures of the paper market and how they are read.

`market_data.json` is made by `remake.py`; nothing in it is a prompt or an answer of anybody,
only names, prices and rates. `Shape` is a latency in log-milliseconds, `Skill.rates` the share
of right answers at ten difficulties, easiest tenth first.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from bidding.market import Catalogue

N_DIFFICULTIES = 10


class Shape(Struct, frozen=True, kw_only=True):
    """Log-normal TTFT and TPOT (time per output token) of an endpoint, from `n` probes."""

    ttft_log_ms: float
    ttft_log_sd: float
    tpot_log_ms: float
    tpot_log_sd: float
    n: int


class Skill(Struct, frozen=True, kw_only=True):
    """How often a model is right, and how much it writes compared with the average model.

    `reasoning_ratio` is hidden reasoning per visible token: an assumption, never measured.
    """

    measured_as: str
    note: str
    rates: Annotated[list[float], Meta(min_length=N_DIFFICULTIES, max_length=N_DIFFICULTIES)]
    verbosity: float
    reasoning_ratio: float = 0.0


class Source(Struct, frozen=True, kw_only=True):
    """Where figures come from, under which licence."""

    what: str
    source: str
    licence: str
    attribution: str


class MarketData(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a seller is made of. `shape_of` maps offer ids to names in `shapes`."""

    sources: list[Source]
    catalogue: Catalogue
    shapes: dict[str, Shape]
    shape_of: dict[str, str]
    price_notes: dict[str, str]
    skills: dict[str, Skill]
    capacities: dict[str, int]

    def at(self, provider_urls: dict[str, tuple[str, str]]) -> Catalogue:
        """The catalogue of `provider_urls` alone, each given as (base_url, status_url)."""
        providers = [
            msgspec.structs.replace(p, base_url=urls[0], status_url=urls[1])
            for p in self.catalogue.providers
            if (urls := provider_urls.get(p.id)) is not None
        ]
        offers = [o for o in self.catalogue.offers if o.provider in provider_urls]
        sold = {o.model for o in offers}
        models = [m for m in self.catalogue.models if m.id in sold]
        return Catalogue(
            providers=providers, models=models, offers=offers, tasks=self.catalogue.tasks
        ).checked()


@cache
def load() -> MarketData:
    """The shipped figures, checked. Raises `msgspec.ValidationError`, `BadCatalogue`."""
    raw = files("broker.paper").joinpath("market_data.json").read_bytes()
    data = msgspec.json.decode(raw, type=MarketData)
    data.catalogue.checked()
    return data
