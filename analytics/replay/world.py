"""A market made of real data: who offers what at which price, how well and how fast it answers.

A `World` is the truth that policies are scored against; they see only what the estimators make
of their own outcomes. Answers, token counts, prices and latencies are the data's; an offer is
left out when its price is unknown, its model was not run on the set, or it has no latencies
where a deadline is asked for. Prompts that some model was not run on are left out too, so that
every policy is scored on the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analytics.replay.datasets import DataFolder, QualitySet
from analytics.replay.errors import DatasetMissing
from analytics.replay.files import Floats
from analytics.replay.traces import LatencySamples, OfferRow
from bidding.columns import Ints
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.units import TOKENS_PER_MTOK, nusd_from_usd

LEAST_COVERAGE = 0.9
MARKETS = ("zeroeval_wide", "winter2023", "spring2024")
"""In order of preference where none is named."""

CONTEXT_WINDOW = 1_000_000
STRONG_CALL_USD = 0.001
"""Price of a strong call where a set has no prices: dollars per 1,000 are then the strong share."""


@dataclass(frozen=True, slots=True)
class World:
    """Offers in order of id (the book's rows) over prompts.

    Attributes
    ----------
    market : the one its offers are of, "" where a set has no prices
    catalogue : what the market book is made of
    questions : the prompts, with task, text and lengths
    model_of : model column of each offer, (n_offers,)
    outcome, out_tokens : (n_prompts, n_models)
    cost_nusd : true cost of each prompt at each offer's list price, (n_prompts, n_offers)
    ttft_s : per offer its samples in time order; empty where nothing is known
    latency_span_s : time from the first to the last of them
    """

    market: str
    catalogue: Catalogue
    questions: QualitySet
    offer_ids: tuple[str, ...]
    model_of: Ints
    outcome: Floats
    out_tokens: Floats
    input_nusd: Floats
    output_nusd: Floats
    request_nusd: Floats
    ttft_s: tuple[Floats, ...]
    latency_span_s: float

    def request_s(self, n: int, otherwise: float) -> float:
        """Seconds between `n` requests spread over the latency samples' span, if there are any."""
        return self.latency_span_s / n if self.has_latency else otherwise

    @property
    def models(self) -> list[str]:
        """Model ids, in the order of the columns of `outcome`."""
        return self.questions.models

    @property
    def cost_nusd(self) -> Floats:
        tokens = self.out_tokens[:, self.model_of] * self.output_nusd
        prompts = np.multiply.outer(self.questions.in_tokens, self.input_nusd)
        total: Floats = tokens + prompts + self.request_nusd
        return total

    @property
    def has_latency(self) -> bool:
        return all(len(series) for series in self.ttft_s)


def make_world(
    folder: DataFolder,
    market: str | None,
    questions: QualitySet,
    *,
    needs_latency: bool = False,
) -> World:
    """The market called `market` (None: the one that sells most of the models) over `questions`.

    Raises
    ------
    DatasetMissing
        When no offer is left; the message says how many were left out and why.
    """
    covered = _covered(questions)
    market = market or _widest_market(folder, covered)
    priced = _priced(folder, market)
    offers = [row for row in priced if row.quality_model in covered]
    if not offers and len(covered) == 2 and np.isnan(questions.out_tokens).all():
        return _two_model_world(questions, sorted(covered))
    series, span_s = latencies(folder, market, offers)
    if needs_latency:
        offers = [row for row in offers if len(series.get(row.offer, ()))]
    if not offers:
        raise DatasetMissing(
            f"market {market!r} has no usable offer for {questions.name!r}: {len(priced)} offers "
            f"with prices, {len(covered)} models with outcomes, latencies for {len(series)}"
        )
    offers.sort(key=_offer_id)
    models = sorted({row.quality_model for row in offers})
    kept = _answered_by_all(questions.only_models(models))
    in_usd = np.array([row.input_usd_per_mtok for row in offers], dtype=np.float64)
    out_usd = np.array([row.output_usd_per_mtok for row in offers], dtype=np.float64)
    return World(
        market=market,
        catalogue=_catalogue(offers),
        questions=kept,
        offer_ids=tuple(_offer_id(row) for row in offers),
        model_of=np.array([models.index(row.quality_model) for row in offers], dtype=np.int64),
        outcome=kept.outcome,
        out_tokens=kept.out_tokens,
        input_nusd=in_usd * nusd_from_usd(1.0) / TOKENS_PER_MTOK,
        output_nusd=out_usd * nusd_from_usd(1.0) / TOKENS_PER_MTOK,
        request_nusd=np.zeros(len(offers)),
        ttft_s=tuple(series.get(row.offer, np.zeros(0)) for row in offers),
        latency_span_s=span_s,
    )


def _priced(folder: DataFolder, market: str) -> list[OfferRow]:
    return [
        row
        for row in folder.offers(market)
        if row.input_usd_per_mtok is not None and row.output_usd_per_mtok is not None
    ]


def _widest_market(folder: DataFolder, models: set[str]) -> str:
    """The market that sells most of `models`; the first of equals."""
    n_sold = {
        market: len({row.quality_model for row in _priced(folder, market)} & models)
        for market in folder.markets()
    }
    return max(MARKETS, key=lambda market: n_sold.get(market, -1))


def _offer_id(row: OfferRow) -> str:
    """The id the market gives it: the provider and the model whose answers it sells."""
    return f"{row.provider}/{row.quality_model}"


def _covered(questions: QualitySet) -> set[str]:
    """Models run on nearly all prompts of every task of the set."""
    tasks = np.array(questions.task)
    known = ~np.isnan(questions.outcome)
    share = np.min([known[tasks == task].mean(axis=0) for task in sorted(set(tasks))], axis=0)
    return {m for m, s in zip(questions.models, share.tolist(), strict=True) if s >= LEAST_COVERAGE}


def _answered_by_all(questions: QualitySet) -> QualitySet:
    """The prompts all models answered; a length that was not recorded is the model's mean."""
    kept = questions.take(np.flatnonzero(~np.isnan(questions.outcome).any(axis=1)))
    missing = np.isnan(kept.out_tokens)
    if not missing.any():
        return kept
    n_known = np.maximum((~missing).sum(axis=0), 1)
    means = np.where(missing, 0.0, kept.out_tokens).sum(axis=0) / n_known
    return kept._replace(out_tokens=np.where(missing, means, kept.out_tokens))


def latencies(
    folder: DataFolder, market: str, offers: Sequence[OfferRow]
) -> tuple[dict[str, Floats], float]:
    """Seconds to the first token in time order, per offer; infinite for a failed request.

    Where the source did not measure the first token (it came with the last one) the total stands
    for it.
    """
    if market == "spring2024":
        samples = folder.thefastest()
    elif market == "winter2023":
        samples = folder.llmperf()
    else:
        return {}, 0.0
    by_series: dict[tuple[str, str], list[float]] = {}
    for provider, model, first in zip(
        samples.provider, samples.model, _first_token_s(samples).tolist(), strict=True
    ):
        if not np.isnan(first):
            by_series.setdefault((provider, model), []).append(first)
    series = {
        row.offer: np.array(by_series[row.provider, row.latency_model])
        for row in offers
        if (row.provider, row.latency_model) in by_series
    }
    return series, float(samples.at_s[-1] - samples.at_s[0])


def _first_token_s(samples: LatencySamples) -> Floats:
    first = np.where(np.isnan(samples.ttft_s), samples.total_s, samples.ttft_s)
    failed = np.array([code != "" for code in samples.error_code], dtype=bool)
    return np.where(failed, np.inf, first)


def _two_model_world(questions: QualitySet, models: list[str]) -> World:
    """A weak and a strong model without prices: the weak one is free, so cost is strong calls."""
    kept = _answered_by_all(questions.only_models(models))
    strong = int(np.argmax(kept.outcome.mean(axis=0)))
    per_call = np.zeros(2)
    per_call[strong] = nusd_from_usd(STRONG_CALL_USD)
    rows = [
        OfferRow(
            market="two_models",
            offer=f"any/{model}",
            provider="any",
            latency_model=model,
            quality_model=model,
            input_usd_per_mtok=0.0,
            output_usd_per_mtok=0.0,
        )
        for model in models
    ]
    return World(
        market="",
        catalogue=_catalogue(rows, [int(p) for p in per_call]),
        questions=kept._replace(in_tokens=np.nan_to_num(kept.in_tokens, nan=1.0)),
        offer_ids=tuple(_offer_id(row) for row in rows),
        model_of=np.arange(2),
        outcome=kept.outcome,
        out_tokens=np.nan_to_num(kept.out_tokens, nan=1.0),
        input_nusd=np.zeros(2),
        output_nusd=np.zeros(2),
        request_nusd=per_call,
        ttft_s=(np.zeros(0), np.zeros(0)),
        latency_span_s=0.0,
    )


def _catalogue(rows: Sequence[OfferRow], per_request: Sequence[int] | None = None) -> Catalogue:
    fees = per_request or [0] * len(rows)
    return Catalogue(
        providers=[
            Provider(id=name, name=name, wire="openai", base_url="http://none", jurisdiction="us")
            for name in sorted({row.provider for row in rows})
        ],
        models=[
            Model(
                id=name,
                family=name,
                context_window=CONTEXT_WINDOW,
                max_output_tokens=CONTEXT_WINDOW,
            )
            for name in sorted({row.quality_model for row in rows})
        ],
        offers=[
            Offer(
                provider=row.provider,
                model=row.quality_model,
                region=None,
                prices=PriceList(
                    input_nusd_per_mtok=nusd_from_usd(row.input_usd_per_mtok or 0.0),
                    output_nusd_per_mtok=nusd_from_usd(row.output_usd_per_mtok or 0.0),
                    request_nusd=fee,
                ),
            )
            for row, fee in zip(rows, fees, strict=True)
        ],
    )
