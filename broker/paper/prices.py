"""A provider's public price list, live: what it charges now, repricings included."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from bidding.market import Offer, PriceList
from bidding.units import usd_from_nusd
from broker.paper.faults import Fault, FaultBoard


def live_prices(offer: Offer, board: FaultBoard) -> PriceList:
    """What `offer` charges under the repricing that is on, if any."""
    spec = board.of(offer.id).get(Fault.REPRICE)
    if spec is None:
        return offer.prices
    prices = offer.prices

    def times(nusd: int | None, factor: float) -> int | None:
        return None if nusd is None else round(nusd * factor)

    return msgspec.structs.replace(
        prices,
        input_nusd_per_mtok=round(prices.input_nusd_per_mtok * spec.input_factor),
        output_nusd_per_mtok=round(prices.output_nusd_per_mtok * spec.output_factor),
        cache_read_nusd_per_mtok=times(prices.cache_read_nusd_per_mtok, spec.input_factor),
        cache_write_nusd_per_mtok=times(prices.cache_write_nusd_per_mtok, spec.input_factor),
    )


def price_page(
    provider_id: str, offers: list[Offer], board: FaultBoard, updated_s: float
) -> dict[str, Any]:
    """The page at `GET /prices`: US dollars per million tokens, one row an offer that is sold."""
    rows = []
    for offer in offers:
        if Fault.WITHDRAW in board.of(offer.id):
            continue
        prices = live_prices(offer, board)
        row: dict[str, Any] = {
            "offer": offer.id,
            "model": offer.model,
            "upstream_model": offer.wire_model,
            "region": offer.region,
        }
        for name in ("input", "output", "cache_read", "cache_write"):
            nusd = getattr(prices, f"{name}_nusd_per_mtok")
            row[f"{name}_usd_per_mtok"] = None if nusd is None else usd_from_nusd(nusd)
        rows.append(row)
    updated_at = datetime.fromtimestamp(updated_s, UTC).isoformat(timespec="milliseconds")
    return {"provider": provider_id, "currency": "USD", "updated_at": updated_at, "prices": rows}
