"""What a call is settled at: the price of the bid that was bought, not that of the catalogue."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bidding.asks import Ask
from bidding.market import PriceList
from feeds.records import AttemptRecord, DecisionRecord
from tests.fakes.gateway_rig import rig


def scaled(prices: PriceList, factor: int) -> PriceList:
    return PriceList(
        input_nusd_per_mtok=prices.input_nusd_per_mtok * factor,
        output_nusd_per_mtok=prices.output_nusd_per_mtok * factor,
    )


async def test_a_call_costs_what_its_seller_asked_when_it_was_bought(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        market = r.gateway.market
        key = r.gateway.key()
        listed = {o.id: o.prices for o in market.catalogue.offers}
        bought: dict[int, int] = {}
        for factor in (1, 3):
            for offer, prices in listed.items():
                market.book.apply_prices(offer, scaled(prices, factor))
            market.refresh()
            assert (await r.ask(key, max_tokens=20)).status == 200
            attempt = (await r.gateway.written(AttemptRecord))[-1]
            expected = scaled(listed[attempt.offer], factor)
            assert attempt.input_tokens > 0
            assert attempt.cost_nusd == expected.cost_nusd(
                attempt.input_tokens, attempt.output_tokens
            )
            decision = (await r.gateway.written(DecisionRecord))[-1]
            assert decision.cost_nusd == attempt.cost_nusd
            bought[factor] = attempt.cost_nusd
        assert bought[3] > 2 * bought[1]
        for offer, prices in listed.items():
            market.book.apply_ask(
                offer, Ask(prices=prices, until_us=market.view.at_us + 3_600_000_000)
            )
        market.refresh()
        assert (await r.ask(key, max_tokens=20)).status == 200
        attempt = (await r.gateway.written(AttemptRecord))[-1]
        held = msgspec.structs.replace(
            listed[attempt.offer], cache_write_nusd_per_mtok=None, tiers=()
        )
        assert attempt.cost_nusd == held.cost_nusd(
            attempt.input_tokens, attempt.output_tokens, cached_tokens=attempt.cached_tokens
        )
