"""The real `anthropic` client, unchanged, against the broker."""

from __future__ import annotations

import anthropic
import pytest

from tests.fakes.up_rig import QUESTION, Market

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_messages_whole_and_streamed(market: Market) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=market.url, api_key=market.up.keys["app"], max_retries=0
    ) as client:
        raw = await client.messages.with_raw_response.create(
            model="market:math", max_tokens=300, messages=QUESTION
        )
        whole = await raw.parse()
        assert whole.content[0].text
        assert whole.usage.output_tokens > 0
        offer = raw.headers["x-broker-offer"]
        assert whole.model == offer.partition("/")[2].partition("@")[0]
        async with client.messages.stream(
            model="market:math", max_tokens=300, messages=QUESTION
        ) as stream:
            pieces = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
        assert "".join(pieces) == final.content[0].text
        assert final.stop_reason == "end_turn"


async def test_errors_come_as_the_clients_own(market: Market) -> None:
    wrong = anthropic.AsyncAnthropic(base_url=market.url, api_key="mmb_wrong", max_retries=0)
    async with wrong as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(model="market", max_tokens=9, messages=QUESTION)
    async with anthropic.AsyncAnthropic(
        base_url=market.url, api_key=market.up.keys["app"], max_retries=0
    ) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(model="no-such-model", max_tokens=9, messages=QUESTION)
