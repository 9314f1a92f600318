"""Keys stay between us and the seller they are for."""

from __future__ import annotations

import pytest

from bidding.errors import BadRequest
from broker.errors import SellersFailed
from tests.fakes.dispatching import market
from tests.fakes.scripted_seller import Connection, ScriptedSeller, refuses, streams


async def test_a_seller_that_echoes_our_key_does_not_leak_it() -> None:
    echo = {"message": "bad parameter for key k-1-very-long, sk-abcdefghijklmnop", "code": "x-sk"}
    async with market(ScriptedSeller(refuses(400, echo))) as m:
        offer = next(iter(m.seats))
        m.seats[offer] = m.seats[offer].__class__(
            offer=m.seats[offer].offer, provider=m.seats[offer].provider, key="k-1-very-long"
        )
        with pytest.raises(BadRequest) as caught:
            await m.dispatcher.run(m.order())
    shown = str(caught.value) + str(m.records)
    assert "k-1-very-long" not in shown
    assert "sk-abcdefghijklmnop" not in shown
    assert "bad parameter" in shown


async def test_a_redirect_is_not_followed() -> None:
    other = ScriptedSeller(streams(["stolen"]))

    async def redirects(c: Connection) -> None:
        await c.whole(b"", 307, location=f"{other.url}/v1/chat/completions")

    async with market(ScriptedSeller(redirects), other) as m:
        with pytest.raises(SellersFailed):
            await m.dispatcher.run(m.order(offers=["a/m"]))
    assert other.calls == []
    assert {end for _, end in m.ends()} == {"malformed"}
