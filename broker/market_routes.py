"""What the market looks like, for apps and people: `/v1/models`, `/v1/market`.

Pure: from the live market to values ready to be encoded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bidding.found_tasks import root_of
from bidding.units import NUSD_PER_USD
from broker.live_market import LiveMarket


def models_body(market: LiveMarket) -> dict[str, Any]:
    """OpenAI's list of models: the market itself, every canonical model, every offer."""
    created = market.view.at_us // 1_000_000

    def entry(name: str, owner: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": owner}

    models = {m.id: m for m in market.catalogue.models}
    data = [entry("market", "broker")]
    data += [
        entry(f"market:{task}", "broker") for task in market.book.tasks() if root_of(task) == task
    ]
    data += [entry(name, models[name].family) for name in market.book.offers.model_ids]
    data += [entry(name, name.partition("/")[0]) for name in market.book.offers.offer_ids]
    return {"object": "list", "data": data}


def market_body(market: LiveMarket, now_us: int) -> dict[str, Any]:
    """Every offer's quote and price in force, and every SLA class's prices, and the kinds of
    work found among requests that name no task."""
    view = market.view
    latency = view.quotes.latency
    health = market.health()
    ages_us = market.book.quote_age_us(now_us).tolist()
    per_mtok_usd = 1e6 / NUSD_PER_USD
    offers = [
        {
            "offer": offer,
            "provider": view.offers.provider_ids[view.offers.provider[row]],
            "model": view.offers.model_ids[view.offers.model[row]],
            "ttft_ms": _rounded(math.exp(latency.ttft_log_ms[row])),
            "tpot_ms": _rounded(math.exp(latency.tpot_log_ms[row])),
            "ttft_n": _rounded(latency.ttft_n[row]),
            "fail_share": round(float(view.quotes.fail_share[row]), 5),
            "capacity_share": round(float(view.quotes.capacity_share[row]), 5),
            "health": "open" if view.circuit_open[row] else health[row],
            "in_flight": int(view.n_inflight[row]),
            "input_usd_per_mtok": _rounded(view.prices.input_nusd[row] * per_mtok_usd),
            "output_usd_per_mtok": _rounded(view.prices.output_nusd[row] * per_mtok_usd),
            "quote_age_s": round(ages_us[row] * 1e-6, 3) if ages_us[row] < now_us else None,
        }
        for row, offer in enumerate(view.offers.offer_ids)
    ]
    classes = [
        {
            "sla_class": c.sla_class,
            "quality_price_usd": c.quality_price_nusd / NUSD_PER_USD,
            "punctuality_price_usd": c.punctuality_price_nusd / NUSD_PER_USD,
            "promised_quality": c.target_quality,
            "delivered_quality": c.delivered_quality,
            "promised_on_time": c.target_on_time,
            "delivered_on_time": c.delivered_on_time,
            "requests": c.n,
            "quality_binding": c.quality_binding,
            "punctuality_binding": c.punctuality_binding,
        }
        for c in view.classes.values()
    ]
    return {
        "object": "list",
        "view": view.number,
        "at_us": view.at_us,
        "params_version": market.params.version,
        "data": offers,
        "classes": classes,
        "found_tasks": [
            {"task": t.task, "name": t.name, "requests": _rounded(t.n)} for t in view.found.tasks
        ],
    }


def _rounded(value: float | np.floating[Any]) -> float:
    """Six significant digits: plenty for reading, and short."""
    return float(f"{float(value):.6g}")
