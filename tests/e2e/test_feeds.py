"""Prices and incidents on their whole way: a seller's page, the log, the auction, people's eyes."""

from __future__ import annotations

from typing import Any

import pytest

from broker.feed_desk import confirmed, understood
from tests.fakes.up_rig import Market, polled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SELLER = "nscale"


async def priced(market: Market, offer: str) -> float:
    """What a request to this offer is expected to cost, by an auction now."""
    asked = {"prompt": "hi", "input_tokens": 100_000, "max_output_tokens": 1}
    reply = await market.send("POST", "/v1/auctions", json={**asked, "model": offer})
    assert reply.status == 200, reply.body
    return float(reply.body["ranked"][0]["cost_usd"])


async def reprice(market: Market, model: str, factor: float | None) -> None:
    kinds = (
        []
        if factor is None
        else [{"kind": "reprice", "input_factor": factor, "output_factor": factor}]
    )
    await market.control("PATCH", f"sellers/{SELLER}/{model}", {"faults": kinds})


async def shown(market: Market) -> dict[str, Any]:
    body = (await market.send("GET", "/v1/feeds")).body
    assert isinstance(body, dict)
    return body


async def test_a_raised_price_is_what_the_next_auction_bids_and_a_wild_one_never(
    market: Market,
) -> None:
    offer = next(o for o in market.up.catalogue.offers if o.provider == SELLER and not o.region)
    before = await priced(market, offer.id)
    try:
        await reprice(market, offer.model, 2.0)

        async def doubled() -> bool:
            return abs(await priced(market, offer.id) / before - 2.0) < 0.01

        await polled(doubled, "the new price is bid", 15.0)
        quoted = await market.quote(offer.id)
        assert quoted["input_usd_per_mtok"] == pytest.approx(
            2 * offer.prices.input_nusd_per_mtok / 1e9, rel=1e-5
        )
        await reprice(market, offer.model, 200.0)

        async def held() -> dict[str, Any] | None:
            prices = (await shown(market))["held_prices"]
            return next((p for p in prices if p["offer"] == offer.id), None)

        found = await polled(held, "the wild price is shown as held", 15.0)
        assert "fold" in found["why"]
        assert abs(await priced(market, offer.id) / before - 2.0) < 0.01
        await confirmed(market.up.settings, offer.id)

        async def believed() -> bool:
            return abs(await priced(market, offer.id) / before - 200.0) < 1.0

        await polled(believed, "ops' word puts it in force", 15.0)
    finally:
        await reprice(market, offer.model, None)


async def test_what_its_seller_lists_no_longer_is_not_bought_until_it_is_back(
    market: Market,
) -> None:
    sold = [o for o in market.up.catalogue.offers if o.provider == SELLER and not o.region]
    offer = sold[-1]  # at its list price still
    before = await priced(market, offer.id)

    async def auction() -> dict[str, Any]:
        asked = {"prompt": "hi", "max_output_tokens": 1, "model": offer.id}
        body = (await market.send("POST", "/v1/auctions", json=asked)).body
        assert isinstance(body, dict)
        return body

    async def gone() -> bool:
        return [w["offer"] for w in (await shown(market))["withdrawn"]] == [offer.id]

    async def unsold() -> bool:
        told = await auction()
        return told["winner"] is None and "unpriced" in str(told["no_bids"])

    async def back() -> bool:
        return (await auction())["winner"] is not None

    path = f"sellers/{SELLER}/{offer.model}"
    try:
        await market.control("PATCH", path, {"faults": [{"kind": "withdraw"}]})
        await polled(gone, "the withdrawal is shown", 15.0)
        await polled(unsold, "nobody can buy it", 15.0)
        assert (await market.ask(offer.id)).status in (422, 503)
    finally:
        await market.control("PATCH", path, {"faults": []})
    await polled(back, "it is sold again", 15.0)
    assert await priced(market, offer.id) == before
    assert (await shown(market))["withdrawn"] == []


async def test_an_incident_is_shown_moves_its_offers_and_reaches_history(market: Market) -> None:
    offer = next(o for o in market.up.catalogue.offers if o.provider == SELLER).id
    before = (await market.quote(offer))["fail_share"]
    told = {"name": "Errors everywhere", "impact": "major", "components": ["API"]}
    opened = await market.control("POST", f"sellers/{SELLER}/incidents", told)

    async def going_on() -> dict[str, Any] | None:
        incidents = (await shown(market))["incidents"]
        return next((i for i in incidents if i["incident"] == opened["id"]), None)

    found = await polled(going_on, "the incident is shown", 15.0)
    assert (found["severity"], found["concerns"]) == ("major", "provider")

    async def believed() -> bool:
        return bool((await market.quote(offer))["fail_share"] > before + 0.05)

    await polled(believed, "the incident moves the quote", 15.0)
    resolved = {"status": "resolved", "body": "Over"}
    await market.control("PATCH", f"sellers/{SELLER}/incidents/{opened['id']}", resolved)

    async def over() -> bool:
        return await going_on() is None

    await polled(over, "its end is heard", 15.0)

    async def lifted() -> bool:
        return bool((await market.quote(offer))["fail_share"] < before + 0.01)

    await polled(lifted, "its end lifts it", 15.0)

    async def kept() -> bool:
        sql = f"SELECT state FROM market.incidents WHERE incident_id = '{opened['id']}' ORDER BY at"
        return [r[0] for r in await market.rows(sql)] == ["investigating", "resolved"]

    await polled(kept, "history has both words", 30.0)


async def test_every_feed_is_fresh_and_measured(market: Market) -> None:
    async def fresh() -> bool:
        data = (await shown(market))["data"]
        return len(data) == 2 * len(market.up.catalogue.providers) and all(
            f["state"] == "fresh" and not f["refused"] for f in data
        )

    await polled(fresh, "all feeds are fresh", 30.0)
    text = (await market.send("GET", "/metrics")).body.decode()
    assert f'broker_feed_stale{{feed="{SELLER}-status"}} 0.0' in text
    assert f'broker_feed_age_seconds{{feed="{SELLER}-prices"}}' in text


async def test_a_feed_is_fetched_once_and_told(market: Market) -> None:
    told = await understood(market.up.settings, f"{SELLER}-prices")
    assert told["understood"]
    n_sold = sum(o.provider == SELLER for o in market.up.catalogue.offers)
    assert told["n_offers"] == n_sold
    told = await understood(market.up.settings, f"{SELLER}-status")
    assert "API" in told["components"]
