"""Remake `market_data.json`: `python -m broker.paper.remake --data ../shared/data`.

Prices come from the `genai-prices` package (its offline data), latency shapes from
thefastest.ai's probes, skills from ZeroEval's outcomes. Two estimates are made with care:

- A probe whose tokens all came at once says nothing of the time per token, so TPOT uses only
  probes above 1 ms a token, and middle and spread are the median and the quartiles' distance.
- A model seen on a few items of a difficulty gets a rate from those and from a logistic curve
  through all its items, weighted as if the curve were 40 items; rates then never rise with
  difficulty. Difficulty of an item is its rank by the share of models that fail it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import genai_prices
import msgspec
import numpy as np
from genai_prices.data import providers as price_providers
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize

from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.units import NUSD_PER_USD
from broker.paper import roster
from broker.paper.kinds import TASKS
from broker.paper.market_data import N_DIFFICULTIES, MarketData, Shape, Skill, Source

CURVE_WEIGHT_ITEMS = 40.0
MIN_TPOT_MS = 1.0
TPOT_LOG_SD_BOUNDS = (0.08, 0.5)
TTFT_LOG_SD_BOUNDS = (0.08, 0.6)
N_ORDINARY = 7
Rows = Iterable[dict[str, str]]


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a gzipped CSV."""
    with gzip.open(path, "rt", newline="") as lines:
        yield from csv.DictReader(lines)


def shape_named(name: str, samples: Rows) -> Shape:
    """The latency of `provider/model[@region]`; probes from Virginia unless a region is given."""
    endpoint, _, region = name.partition("@")
    provider, _, model = endpoint.partition("/")
    ttft: list[float] = []
    tpot: list[float] = []
    for row in samples:
        if row["provider"] != provider or row["region"] != (region or "iad"):
            continue
        if row["model"] == model:
            ttft.append(math.log(1000 * float(row["ttft_s"])))
        n_further = int(row["out_tokens"] or 0) - 1
        if n_further < 1:
            continue
        per_token_ms = 1000 * (float(row["total_s"]) - float(row["ttft_s"])) / n_further
        if row["model"] == model and per_token_ms > MIN_TPOT_MS:
            tpot.append(math.log(per_token_ms))
    if not ttft:
        raise ValueError(f"thefastest has no probes of {name!r}")
    if len(tpot) < 3:  # every answer came in one piece: the least we can tell apart
        tpot = [math.log(MIN_TPOT_MS)]
    return Shape(
        ttft_log_ms=round(float(np.median(ttft)), 3),
        ttft_log_sd=_spread(ttft, TTFT_LOG_SD_BOUNDS),
        tpot_log_ms=round(float(np.median(tpot)), 3),
        tpot_log_sd=_spread(tpot, TPOT_LOG_SD_BOUNDS),
        n=len(ttft),
    )


def _spread(logs: list[float], bounds: tuple[float, float]) -> float:
    low, high = np.percentile(logs, [25, 75])
    return round(float(np.clip((high - low) / 1.349, *bounds)), 3)


def skill_rates(outcomes: list[dict[str, str]]) -> dict[str, list[float]]:
    """Share of right answers of each ZeroEval model at ten difficulties, easiest first."""
    by_item: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in outcomes:
        if "+" not in row["model"]:
            by_item[row["dataset"], row["item"]].append(int(row["correct"]))
    items = sorted(by_item, key=lambda item: -float(np.mean(by_item[item])))
    rank = {item: (i + 0.5) / len(items) for i, item in enumerate(items)}
    seen: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for row in outcomes:
        seen[row["model"]].append((rank[row["dataset"], row["item"]], int(row["correct"])))
    return {model: _rates(np.array(pairs, dtype=float)) for model, pairs in seen.items()}


def with_stand_ins(outcomes: list[dict[str, str]], skills: Iterable[str]) -> list[dict[str, str]]:
    """`outcomes` and, for each skill `a+b`, those of `a` and of `b` where `a` was not run."""
    ran: dict[str, set[str]] = defaultdict(set)
    for row in outcomes:
        ran[row["model"]].add(row["dataset"])
    more = []
    for skill in {s for s in skills if "+" in s}:
        first, _, second = skill.partition("+")
        for row in outcomes:
            stands_in = row["model"] == second and row["dataset"] not in ran[first]
            if row["model"] == first or stands_in:
                more.append(row | {"model": skill})
    return outcomes + more


def _rates(pairs: NDArray[np.float64]) -> list[float]:
    hard, right = pairs[:, 0], pairs[:, 1]
    x = np.log(hard / (1 - hard))

    def loss(params: NDArray[np.float64]) -> float:
        logit = params[0] - np.exp(params[1]) * x
        fit = float(np.sum(np.logaddexp(0.0, logit) - right * logit))
        return fit + 0.5 * (float(params[1]) - 0.4) ** 2 / 0.25

    level, log_slope = minimize(loss, np.array([1.0, 0.4])).x
    centres = (np.arange(N_DIFFICULTIES) + 0.5) / N_DIFFICULTIES
    curve = 1 / (1 + np.exp(-(level - np.exp(log_slope) * np.log(centres / (1 - centres)))))
    tenth = np.minimum((hard * N_DIFFICULTIES).astype(int), N_DIFFICULTIES - 1)
    n = np.bincount(tenth, minlength=N_DIFFICULTIES)
    n_right = np.bincount(tenth, weights=right, minlength=N_DIFFICULTIES)
    blended = (n_right + CURVE_WEIGHT_ITEMS * curve) / (n + CURVE_WEIGHT_ITEMS)
    falling = isotonic_regression(blended, weights=n + CURVE_WEIGHT_ITEMS, increasing=False).x
    return [round(float(rate), 4) for rate in falling]


def verbosities(outcomes: list[dict[str, str]]) -> dict[str, float]:
    """Output tokens of each model over the average model's, on the data sets it was run on."""
    logs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in outcomes:
        logs[row["dataset"], row["model"]].append(math.log(max(1.0, float(row["out_tokens"] or 1))))
    centre = {
        dataset: float(np.mean([np.mean(v) for (d, _), v in logs.items() if d == dataset]))
        for dataset in {d for d, _ in logs}
    }
    apart: dict[str, list[float]] = defaultdict(list)
    for (dataset, model), values in logs.items():
        apart[model].append(float(np.mean(values)) - centre[dataset])
    return {model: round(math.exp(float(np.mean(v))), 3) for model, v in apart.items()}


def price_list(row: roster.OfferRow, on: datetime) -> PriceList:
    """List prices of an offer on a day. Raises `KeyError` when genai-prices has none."""
    provider_id, _, model_id = row.price.partition(":")
    provider = next(p for p in price_providers if p.id == provider_id)
    found = next((m for m in provider.models if m.id == model_id), None)
    if found is None:
        raise KeyError(f"genai-prices has no {row.price!r}")
    prices = found.get_prices(on)

    def nusd(name: str) -> int | None:
        usd = getattr(prices, name, None)
        usd = getattr(usd, "base", usd)
        return None if usd is None else round(float(usd) * row.factor * NUSD_PER_USD)

    paid = {name: nusd(f"{name}_mtok") for name in ("input", "output")}
    if paid["input"] is None or paid["output"] is None:
        raise KeyError(f"genai-prices has no price of {row.price!r}")
    return PriceList(
        input_nusd_per_mtok=paid["input"],
        output_nusd_per_mtok=paid["output"],
        cache_read_nusd_per_mtok=nusd("cache_read_mtok"),
        cache_write_nusd_per_mtok=nusd("cache_write_mtok"),
    )


def shape_name(row: roster.OfferRow) -> str:
    """The endpoint that lends an offer its latency."""
    provider = next(p for p in roster.PROVIDERS if p.id == row.provider)
    if row.region == "eu" and provider.eu is not None:
        return provider.eu
    size = next(m.size for m in roster.MODELS if m.id == row.model)
    return provider.small if size == "small" else provider.large


def remake(data: Path, on: datetime) -> MarketData:
    """All figures, from the public data under `data` and prices as of `on`."""
    outcomes = with_stand_ins(
        list(read_rows(data / "zeroeval" / "outcomes.csv.gz")), (m.skill for m in roster.MODELS)
    )
    samples = list(read_rows(data / "thefastest" / "samples.csv.gz"))
    rates, wordy = skill_rates(outcomes), verbosities(outcomes)
    rows = roster.offers()
    offers = [
        Offer(
            provider=row.provider,
            model=row.model,
            region=row.region,
            prices=price_list(row, on),
            upstream_model=f"{row.region}." * bool(row.region) + row.price.partition(":")[2],
        )
        for row in rows
    ]
    shape_of = {offer.id: shape_name(row) for offer, row in zip(offers, rows, strict=True)}
    return MarketData(
        sources=_sources(on),
        catalogue=Catalogue(
            providers=[_provider(row) for row in roster.PROVIDERS],
            models=[_model(row, rates[row.skill]) for row in roster.MODELS],
            offers=offers,
            tasks=list(TASKS),
        ).checked(),
        shapes={name: shape_named(name, samples) for name in sorted(set(shape_of.values()))},
        shape_of=shape_of,
        price_notes={o.id: r.note for o, r in zip(offers, rows, strict=True) if r.note},
        skills={
            row.id: Skill(
                measured_as=row.skill,
                note=row.skill_note,
                rates=rates[row.skill],
                verbosity=wordy[row.skill],
                reasoning_ratio=row.reasoning_ratio,
            )
            for row in roster.MODELS
        },
        capacities={row.id: row.capacity for row in roster.PROVIDERS},
    )


def _provider(row: roster.ProviderRow) -> Provider:
    return Provider(
        id=row.id,
        name=row.name,
        wire=row.wire,
        base_url="",
        jurisdiction=row.jurisdiction,
        retention_days=row.retention_days,
        trains=row.trains,
        pii_allowed=not row.trains,
        limit_concurrency=4 * row.capacity,
    )


def _model(row: roster.ModelRow, rates: list[float]) -> Model:
    return Model(
        id=row.id,
        family=row.family,
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        capabilities=row.capabilities.split(),
        prior_quality=round(float(np.mean(rates[:N_ORDINARY])), 3),
    )


def _sources(on: datetime) -> list[Source]:
    return [
        Source(
            what="list prices",
            source=f"PyPI genai-prices {genai_prices.__version__}, prices on {on:%Y-%m-%d}",
            licence="MIT",
            attribution="Pydantic Services Inc.",
        ),
        Source(
            what="latency shapes (probes of April 2024)",
            source="github.com/fixie-ai/thefastest.ai",
            licence="MIT",
            attribution="Fixie.ai, thefastest.ai",
        ),
        Source(
            what="right-answer rates by difficulty, verbosity",
            source="github.com/WildEval/ZeroEval @ 8c1485e (GSM8K, MATH level 5)",
            licence="Apache-2.0",
            attribution="Bill Yuchen Lin, ZeroEval: A Unified Framework for Evaluating "
            "Language Models",
        ),
    ]


def main() -> None:
    """Command line: write the figures next to this file."""
    parser = argparse.ArgumentParser(description="Remake the paper market's figures.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data")
    parser.add_argument("--on", default="2026-11-24", help="day of the list prices")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("market_data.json"))
    options = parser.parse_args()
    on = datetime.fromisoformat(options.on).replace(tzinfo=UTC)
    made = msgspec.json.encode(remake(options.data, on), order="deterministic")
    options.out.write_bytes(msgspec.json.format(made, indent=1) + b"\n")


if __name__ == "__main__":
    main()
