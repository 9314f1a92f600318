"""The real `anthropic` client, unchanged, against the broker."""

from __future__ import annotations

from typing import Any

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


TOOL: Any = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


async def test_tools_there_and_back_whole_and_streamed(market: Market) -> None:
    messages: list[Any] = [{"role": "user", "content": "Use get_weather for Rome."}]
    async with _client(market) as client:
        asked = await client.messages.create(
            model="market", max_tokens=300, messages=messages, tools=[TOOL]
        )
        (call,) = [block for block in asked.content if block.type == "tool_use"]
        assert asked.stop_reason == "tool_use"
        assert call.name == "get_weather"
        assert isinstance(call.input["city"], str)
        async with client.messages.stream(
            model="market", max_tokens=300, messages=messages, tools=[TOOL]
        ) as stream:
            final = await stream.get_final_message()
        assert [b.name for b in final.content if b.type == "tool_use"] == ["get_weather"]
        messages += [
            {"role": "assistant", "content": [b.model_dump(mode="json") for b in asked.content]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees"}
                ],
            },
        ]
        told = await client.messages.create(
            model="market", max_tokens=300, messages=messages, tools=[TOOL]
        )
    assert "22 degrees" in "".join(b.text for b in told.content if b.type == "text")


async def test_thinking_is_bought_only_of_models_that_reason(market: Market) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    async with _client(market) as client:
        raw = await client.messages.with_raw_response.create(
            model="market:math", max_tokens=4000, messages=QUESTION, thinking=thinking
        )
        told = await raw.parse()
        assert told.usage.output_tokens > 0
        with pytest.raises(anthropic.UnprocessableEntityError, match="capability"):
            await client.messages.create(
                model="gpt-3.5-turbo", max_tokens=4000, messages=QUESTION, thinking=thinking
            )
    models = (await market.send("GET", "/v1/models")).body["data"]
    bought = raw.headers["x-broker-offer"]
    assert bought in {model["id"] for model in models}


async def test_tokens_are_counted_before_anything_is_bought(market: Market) -> None:
    async with _client(market) as client:
        short = await client.messages.count_tokens(model="market", messages=QUESTION)
        long = await client.messages.count_tokens(
            model="market", messages=QUESTION, system="Be brief. " * 50, tools=[TOOL]
        )
    assert 0 < short.input_tokens < long.input_tokens - 50


def _client(market: Market) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=market.url, api_key=market.up.keys["app"], max_retries=0
    )
