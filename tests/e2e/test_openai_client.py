"""The real `openai` client, unchanged, against the broker: every way it talks to us."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import openai
import pydantic
import pytest

from tests.fakes.up_rig import QUESTION, Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

WEATHER: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": WEATHER, "strict": True},
}
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}


class Sum(pydantic.BaseModel):
    answer: int


async def test_chat_whole_and_streamed(market: Market) -> None:
    async with market.client() as client:
        whole = await client.chat.completions.create(model="market:math", messages=QUESTION)
        assert whole.id.startswith("chatcmpl-")
        assert whole.choices[0].message.content
        text, usage = "", None
        async for chunk in await client.chat.completions.create(
            model="market:math",
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
        ):
            usage = chunk.usage or usage
            text += "".join(c.delta.content or "" for c in chunk.choices)
        assert text
        assert usage is not None
        assert usage.completion_tokens > 0


async def test_the_synchronous_client(market: Market) -> None:
    def ask() -> tuple[str, str, int]:
        with openai.OpenAI(
            base_url=f"{market.url}/v1", api_key=market.up.keys["app"], max_retries=0
        ) as client:
            whole = client.chat.completions.create(model="market", messages=QUESTION)
            stream = client.chat.completions.create(model="market", messages=QUESTION, stream=True)
            text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
            return whole.choices[0].message.content or "", text, len(list(client.models.list()))

    whole, streamed, n_models = await asyncio.to_thread(ask)
    assert whole
    assert streamed
    assert n_models > 100


async def test_chat_tools_there_and_back(market: Market) -> None:
    messages: list[Any] = [{"role": "user", "content": "Use get_weather for Rome."}]
    async with market.client() as client:
        asked = await client.chat.completions.create(
            model="market", messages=messages, tools=[TOOL]
        )
        message = asked.choices[0].message
        assert asked.choices[0].finish_reason == "tool_calls"
        assert message.tool_calls
        call = message.tool_calls[0]
        messages += [
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"},
        ]
        told = await client.chat.completions.create(model="market", messages=messages, tools=[TOOL])
        assert "22 degrees" in (told.choices[0].message.content or "")
        async with client.chat.completions.stream(
            model="market", messages=messages[:1], tools=[TOOL]
        ) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.tool_calls
        assert final.choices[0].message.tool_calls[0].function.name == "get_weather"


async def test_chat_structured_output_is_parsed(market: Market) -> None:
    async with market.client() as client:
        parsed = await client.chat.completions.parse(
            model="market:math", messages=QUESTION, response_format=Sum
        )
    assert isinstance(parsed.choices[0].message.parsed, Sum)


async def test_responses_whole_streamed_and_parsed(market: Market) -> None:
    async with market.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="market:math", input="What is 6 * 7?", instructions="Be brief."
        )
        whole = raw.parse()
        assert whole.output_text
        assert whole.id == "resp_" + raw.headers["x-broker-decision"].removeprefix("dec_")
        async with client.responses.stream(model="market:math", input="What is 6 * 7?") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert final.output_text
        assert final.usage is not None
        assert final.usage.output_tokens > 0
        parsed = await client.responses.parse(
            model="market:math", input="What is 6 * 7?", text_format=Sum
        )
        assert isinstance(parsed.output_parsed, Sum)


async def test_responses_tools_there_and_back(market: Market) -> None:
    async with market.client() as client:
        conversation: list[Any] = [{"role": "user", "content": "Use get_weather for Rome."}]
        asked = await client.responses.create(
            model="market", input=conversation, tools=[FLAT_TOOL], tool_choice="required"
        )
        (call,) = [item for item in asked.output if item.type == "function_call"]
        conversation += [item.to_dict() for item in asked.output]
        conversation.append(
            {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}
        )
        told = await client.responses.create(model="market", input=conversation, tools=[FLAT_TOOL])
        assert "22 degrees" in told.output_text


async def test_responses_that_are_not_stored_say_so(market: Market) -> None:
    async with market.client() as client:
        with pytest.raises(openai.BadRequestError, match="not stored here") as caught:
            await client.responses.create(
                model="market", input="hi", previous_response_id="resp_00"
            )
    assert caught.value.param == "previous_response_id"


async def test_embeddings_are_bought_among_sellers_of_one_model(market: Market) -> None:
    texts = ["the cat sat on the mat", "the cat sat on a mat", "quarterly results beat forecasts"]
    async with market.client() as client:
        raw = await client.embeddings.with_raw_response.create(
            model="text-embedding-3-small", input=texts
        )
        packed = raw.parse()
        plain = await client.embeddings.create(
            model="text-embedding-3-small", input=texts, encoding_format="float"
        )
        short = await client.embeddings.create(
            model="text-embedding-3-small", input=texts[0], dimensions=256
        )
        with pytest.raises(openai.BadRequestError, match="do not mix"):
            await client.embeddings.create(model="market", input=texts)
        with pytest.raises(openai.UnprocessableEntityError, match="capability"):
            await client.embeddings.create(model="gpt-4o", input=texts)
        with pytest.raises(openai.UnprocessableEntityError, match="capability"):
            await client.embeddings.create(model="bge-m3", input=texts, dimensions=256)
        with pytest.raises(openai.UnprocessableEntityError, match="capability"):
            await client.chat.completions.create(model="bge-m3", messages=QUESTION)
    assert raw.headers["x-broker-offer"].partition("/")[2] == "text-embedding-3-small"
    assert float(raw.headers["x-broker-cost-usd"]) > 0
    vectors = np.array([d.embedding for d in packed.data])
    assert vectors.shape == (3, 1536)
    assert np.allclose(vectors, [d.embedding for d in plain.data])
    near = vectors @ vectors.T
    assert near[0, 1] > near[0, 2] + 0.3
    assert len(short.data[0].embedding) == 256
    decision = raw.headers["x-broker-decision"]
    told = (await market.send("GET", f"/v1/decisions/{decision}")).body
    bidders = {bid["offer"] for bid in told["decided"]["ranked"]}
    assert bidders == {"openai/text-embedding-3-small", "azure/text-embedding-3-small"}
