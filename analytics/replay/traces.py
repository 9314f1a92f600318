"""What was measured of sellers and buyers: latencies, arrivals, offers, prices, incidents.

Each reader takes a path and returns columns in time order. Blank prices are unknown (NaN),
never zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from analytics.replay.files import Floats, Table, epoch_s, read_jsonl


class OfferRow(Struct, frozen=True, kw_only=True):
    """A line of `market/offers.csv`: which outcomes and which latencies an offer is made of.

    Prices are US dollars per million tokens, None where unknown.
    """

    market: str
    offer: str
    provider: str
    latency_model: str
    quality_model: str
    input_usd_per_mtok: float | None
    output_usd_per_mtok: float | None


class LatencySamples(NamedTuple):
    """Timed requests in time order; every column has shape (n,). NaN where not measured.

    Attributes
    ----------
    source : str
    at_s : start of the run (thefastest) or its end (llmperf), seconds since the epoch
    provider, model, region : list of str
    ttft_s, total_s : seconds
    in_tokens, out_tokens : counts
    error_code : list of str, "" for a success
    """

    source: str
    at_s: Floats
    provider: list[str]
    model: list[str]
    region: list[str]
    ttft_s: Floats
    total_s: Floats
    in_tokens: Floats
    out_tokens: Floats
    error_code: list[str]

    def take(self, rows: list[int]) -> LatencySamples:
        """These rows, in the order given."""
        return LatencySamples(
            source=self.source,
            at_s=self.at_s[rows],
            provider=[self.provider[i] for i in rows],
            model=[self.model[i] for i in rows],
            region=[self.region[i] for i in rows],
            ttft_s=self.ttft_s[rows],
            total_s=self.total_s[rows],
            in_tokens=self.in_tokens[rows],
            out_tokens=self.out_tokens[rows],
            error_code=[self.error_code[i] for i in rows],
        )


class Arrivals(NamedTuple):
    """Requests of a service in order: seconds since the first, tokens in and out; shape (n,)."""

    name: str
    offset_s: Floats
    in_tokens: Floats
    out_tokens: Floats


class PriceEvents(NamedTuple):
    """Listings, repricings and withdrawals in time order; prices in dollars per million tokens."""

    at_s: Floats
    event: list[str]
    provider: list[str]
    model: list[str]
    old_input: Floats
    old_output: Floats
    old_cache_read: Floats
    new_input: Floats
    new_output: Floats
    new_cache_read: Floats


class CatalogueRow(Struct, frozen=True, kw_only=True):
    """A price list entry; dollars per million tokens, None where unknown."""

    key: str
    provider: str
    input_usd_per_mtok: float | None
    output_usd_per_mtok: float | None
    cache_read_usd_per_mtok: float | None


class Incident(Struct, frozen=True, kw_only=True):
    """A provider's own incident report. `impact_level`: 0 none … 3 critical, 4 maintenance."""

    id: str
    provider: str
    name: str
    impact_level: int
    components: list[str]
    started_s: float
    closed_s: float
    updates: list[tuple[str, float]]


def read_offers(path: Path) -> list[OfferRow]:
    """All lines of `market/offers.csv`."""
    table = Table(path)
    names = ("market", "offer", "provider", "latency_model", "quality_model")
    texts = zip(*(table.text(name) for name in names), strict=True)
    prices_in = _known(table.numbers("input_usd_per_mtok"))
    prices_out = _known(table.numbers("output_usd_per_mtok"))
    return [
        OfferRow(
            **dict(zip(names, row, strict=True)),
            input_usd_per_mtok=price_in,
            output_usd_per_mtok=price_out,
        )
        for row, price_in, price_out in zip(texts, prices_in, prices_out, strict=True)
    ]


def read_thefastest(path: Path) -> LatencySamples:
    """Probes of public endpoints; failed ones were left out by the source."""
    table = Table(path)
    nothing = np.full(table.n_rows, np.nan)
    samples = LatencySamples(
        source="thefastest",
        at_s=table.times("time_utc"),
        provider=table.text("provider"),
        model=table.text("model"),
        region=table.text("region"),
        ttft_s=table.numbers("ttft_s"),
        total_s=table.numbers("total_s"),
        in_tokens=nothing,
        out_tokens=table.numbers("out_tokens"),
        error_code=[""] * table.n_rows,
    )
    return samples.take(np.argsort(samples.at_s, kind="stable").tolist())


def read_llmperf(path: Path) -> LatencySamples:
    """Timed requests in runs; `region` is where the client stood. Ordered by run, then within."""
    table = Table(path)
    samples = LatencySamples(
        source="llmperf",
        at_s=table.numbers("run_unix"),
        provider=table.text("provider"),
        model=table.text("model"),
        region=["us-west-2"] * table.n_rows,
        ttft_s=table.numbers("ttft_s"),
        total_s=table.numbers("e2e_s"),
        in_tokens=table.numbers("in_tokens"),
        out_tokens=table.numbers("out_tokens"),
        error_code=table.text("error_code"),
    )
    return samples.take(np.lexsort((table.numbers("seq"), samples.at_s)).tolist())


def read_arrivals(path: Path) -> Arrivals:
    """An Azure trace (`offset_s`) or the synthetic Mooncake one (`offset_ms`), in time order."""
    table = Table(path)
    in_ms = "offset_ms" in table.header
    offset_s = table.numbers("offset_ms") * 1e-3 if in_ms else table.numbers("offset_s")
    order = np.argsort(offset_s, kind="stable")
    return Arrivals(
        name=path.name.split(".")[0],
        offset_s=offset_s[order],
        in_tokens=table.numbers("in_tokens")[order],
        out_tokens=table.numbers("out_tokens")[order],
    )


def read_price_events(path: Path) -> PriceEvents:
    """`prices/models_dev_events.csv`: when the catalogue learnt of each change."""
    table = Table(path)
    order = np.argsort(table.times("time_utc"), kind="stable")

    def words(name: str) -> list[str]:
        column = table.text(name)
        return [column[i] for i in order.tolist()]

    def dollars(name: str) -> Floats:
        return table.numbers(name)[order]

    return PriceEvents(
        at_s=table.times("time_utc")[order],
        event=words("event"),
        provider=words("provider"),
        model=words("model"),
        old_input=dollars("old_input"),
        old_output=dollars("old_output"),
        old_cache_read=dollars("old_cache_read"),
        new_input=dollars("new_input"),
        new_output=dollars("new_output"),
        new_cache_read=dollars("new_cache_read"),
    )


def read_catalogue(path: Path) -> list[CatalogueRow]:
    """A `prices/litellm_*.csv` catalogue, or the models.dev snapshot (its key is the model)."""
    table = Table(path)
    key = "key" if "key" in table.header else "model"
    prices = [
        _known(table.numbers(name))
        for name in ("input_usd_per_mtok", "output_usd_per_mtok", "cache_read_usd_per_mtok")
    ]
    return [
        CatalogueRow(
            key=row[0],
            provider=row[1],
            input_usd_per_mtok=row[2],
            output_usd_per_mtok=row[3],
            cache_read_usd_per_mtok=row[4],
        )
        for row in zip(table.text(key), table.text("provider"), *prices, strict=True)
    ]


def read_incidents(path: Path) -> list[Incident]:
    """`status/incidents.jsonl`, by start; `updates` are (stage, seconds since the epoch)."""
    found = [_incident(record) for record in read_jsonl(path)]
    return sorted(found, key=lambda incident: incident.started_s)


def _incident(record: dict[str, Any]) -> Incident:
    started_s = epoch_s(record["started_at"])
    return Incident(
        id=record["id"],
        provider=record["provider"],
        name=record["name"],
        impact_level=record["impact_level"],
        components=list(record["components"]),
        started_s=started_s,
        closed_s=epoch_s(record["closed_at"]) if record.get("closed_at") else started_s,
        updates=[(u["status"], epoch_s(u["at"])) for u in record["updates"]],
    )


def _known(values: Floats) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
