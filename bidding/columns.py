"""The catalogue as columns: one row an offer, sorted by offer id, made once per catalogue.

What never changes between two views lives here, in the form the gates compare: codes and bit
masks rather than strings.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bidding.market import Capability, Catalogue, Offer, PriceList
from bidding.units import TOKENS_PER_MTOK

if TYPE_CHECKING:
    from bidding.gates import Gated, GateKey

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OfferColumns:
    """Everything fixed about the offers of a catalogue; arrays have shape (n_offers,).

    `gated` keeps what the rules of a kind of request say of them, whatever the market does.
    """

    offer_ids: tuple[str, ...]
    row_of: dict[str, int]
    model_ids: tuple[str, ...]
    provider_ids: tuple[str, ...]
    model: Ints
    family: Ints
    provider: Ints
    jurisdiction: NDArray[np.object_]
    capabilities: Ints
    context_window: Floats
    max_output_tokens: Floats
    retains: Bools
    trains: Bools
    pii_allowed: Bools
    enabled: Bools
    prior_quality: Floats
    smallest_context: float
    smallest_max_output: float
    gated: dict[GateKey, Gated] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.offer_ids)

    def named(self, names: Iterable[str]) -> Bools:
        """Mask of the offers that any of `names` means, as offer, model or provider id."""
        wanted = set(names)
        model = np.array([m in wanted for m in self.model_ids])
        provider = np.array([p in wanted for p in self.provider_ids])
        mask: Bools = model[self.model] | provider[self.provider]
        for name in wanted:
            row = self.row_of.get(name)
            if row is not None:
                mask[row] = True
        return mask


def offer_columns(catalogue: Catalogue) -> OfferColumns:
    """Columns of a checked catalogue."""
    offers = sorted(catalogue.offers, key=lambda o: o.id)
    models = sorted(catalogue.models, key=lambda m: m.id)
    providers = sorted(catalogue.providers, key=lambda p: p.id)
    model_row = {m.id: i for i, m in enumerate(models)}
    families = sorted({m.family for m in models})
    provider_row = {p.id: i for i, p in enumerate(providers)}
    of_model = [models[model_row[o.model]] for o in offers]
    of_provider = [providers[provider_row[o.provider]] for o in offers]
    return OfferColumns(
        offer_ids=tuple(o.id for o in offers),
        row_of={o.id: i for i, o in enumerate(offers)},
        model_ids=tuple(m.id for m in models),
        provider_ids=tuple(p.id for p in providers),
        model=np.array([model_row[o.model] for o in offers], dtype=np.int64),
        family=np.array([families.index(m.family) for m in of_model], dtype=np.int64),
        provider=np.array([provider_row[o.provider] for o in offers], dtype=np.int64),
        jurisdiction=np.array(
            [o.region or p.jurisdiction for o, p in zip(offers, of_provider, strict=True)],
            dtype=object,
        ),
        capabilities=np.array(
            [int(m.mask & ~_lacks(o)) for o, m in zip(offers, of_model, strict=True)],
            dtype=np.int64,
        ),
        context_window=np.array([m.context_window for m in of_model], dtype=np.float64),
        max_output_tokens=np.array([m.max_output_tokens for m in of_model], dtype=np.float64),
        retains=np.array([p.retention_days > 0 for p in of_provider], dtype=bool),
        trains=np.array([p.trains for p in of_provider], dtype=bool),
        pii_allowed=np.array([p.pii_allowed for p in of_provider], dtype=bool),
        enabled=np.array([o.enabled for o in offers], dtype=bool),
        prior_quality=np.array(
            [np.nan if m.prior_quality is None else m.prior_quality for m in of_model]
        ),
        smallest_context=float(min((m.context_window for m in of_model), default=0)),
        smallest_max_output=float(min((m.max_output_tokens for m in of_model), default=0)),
    )


def _lacks(offer: Offer) -> Capability:
    return Capability.from_names(offer.lacks)


@dataclass(frozen=True, slots=True)
class PriceColumns:
    """Prices per token (nusd), and per request; shape (n_offers,).

    `lists` are the price lists themselves. Where some have tiers, prompts fall into bands: `edges`
    are the lengths above which any tier begins, ascending, and the columns are those of band 0,
    the shortest prompts.
    """

    input_nusd: Floats
    output_nusd: Floats
    cache_read_nusd: Floats
    request_nusd: Floats
    lists: tuple[PriceList, ...] = ()
    edges: tuple[int, ...] = ()
    banded: dict[int, PriceColumns] = field(default_factory=dict, compare=False, repr=False)

    def band(self, input_tokens: int) -> int:
        """Which band a prompt of this length is in: how many edges it exceeds."""
        return bisect_left(self.edges, input_tokens) if self.edges else 0

    def of_band(self, band: int) -> PriceColumns:
        """The prices for prompts of a band."""
        if band <= 0 or not self.edges:
            return self
        band = min(band, len(self.edges))
        known = self.banded.get(band)
        if known is None:
            longer = self.edges[band - 1] + 1
            known = price_columns([p.for_prompt(longer) for p in self.lists])
            self.banded[band] = known
        return known


def price_columns(prices: Sequence[PriceList]) -> PriceColumns:
    """Columns of price lists given in row order; without a cache price, cached costs as fresh."""
    per_token = 1.0 / TOKENS_PER_MTOK
    fresh = np.array([p.input_nusd_per_mtok for p in prices], dtype=np.float64) * per_token
    cached = [
        p.input_nusd_per_mtok if p.cache_read_nusd_per_mtok is None else p.cache_read_nusd_per_mtok
        for p in prices
    ]
    return PriceColumns(
        input_nusd=fresh,
        output_nusd=np.array([p.output_nusd_per_mtok for p in prices], dtype=np.float64)
        * per_token,
        cache_read_nusd=np.array(cached, dtype=np.float64) * per_token,
        request_nusd=np.array([p.request_nusd for p in prices], dtype=np.float64),
        lists=tuple(prices),
        edges=tuple(sorted({t.above_input_tokens for p in prices for t in p.tiers})),
    )
