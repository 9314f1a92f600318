"""The real `openai` and `anthropic` clients against paper sellers, as against real ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

from broker.paper.serve import PaperMarket
from broker.paper.tasks import check, generate
from broker.paper.tokens import prompt_tokens

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
OPENAI_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
ANTHROPIC_TOOL = {"name": "get_weather", "description": "Weather", "input_schema": WEATHER}
LONG = "Each of these words counts for something in the end. " * 200


@pytest_asyncio.fixture
async def market() -> AsyncIterator[PaperMarket]:
    market = PaperMarket(time_scale=0.01, providers=["openai", "anthropic", "groq"])
    await market.start()
    yield market
    await market.stop()


@pytest_asyncio.fixture
async def gpt(market: PaperMarket) -> AsyncIterator[AsyncOpenAI]:
    base_url = market.catalogue.provider("openai").base_url
    async with AsyncOpenAI(base_url=base_url, api_key=market.api_key, max_retries=0) as client:
        yield client


@pytest_asyncio.fixture
async def claude(market: PaperMarket) -> AsyncIterator[AsyncAnthropic]:
    base_url = market.catalogue.provider("anthropic").base_url
    async with AsyncAnthropic(base_url=base_url, api_key=market.api_key, max_retries=0) as client:
        yield client


async def test_served_answers_are_what_counterfactual_says(market: PaperMarket, gpt: Any) -> None:
    n_good = 0
    for seed in range(40):
        item = generate(("math", "extract", "classify", "code")[seed % 4], seed)
        said = await gpt.chat.completions.create(
            model="gpt-3.5-turbo", messages=[{"role": "user", "content": item.prompt}]
        )
        expected = market.behaviour.counterfactual("gpt-3.5-turbo", item)
        assert said.usage is not None
        assert check(item, said.choices[0].message.content or "") == expected.good
        assert said.usage.prompt_tokens == expected.input_tokens
        assert said.usage.completion_tokens == expected.output_tokens
        assert said.choices[0].finish_reason == "stop"
        n_good += expected.good
    assert 0 < n_good < 40


async def test_an_openai_stream_says_the_same_as_the_whole_answer(gpt: Any) -> None:
    item = generate("math", 12)
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": item.prompt}]}
    whole = await gpt.chat.completions.create(**asked)
    text, usage, n_chunks, finish = "", None, 0, None
    options = {"include_usage": True}
    async for chunk in await gpt.chat.completions.create(
        **asked, stream=True, stream_options=options
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            n_chunks += bool(choice.delta.content)
            finish = choice.finish_reason or finish
    assert text == whole.choices[0].message.content
    assert usage == whole.usage
    assert finish == "stop"
    assert n_chunks > 5


async def test_an_anthropic_stream_says_the_same_as_the_whole_answer(
    claude: Any,
) -> None:
    item = generate("code", 12)
    asked = {
        "model": "claude-3-5-sonnet",
        "max_tokens": 500,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": item.prompt}],
    }
    whole = await claude.messages.create(**asked)
    streamed = await claude.messages.create(**asked, stream=True)
    kinds = [event.type async for event in streamed if event.type != "ping"]
    async with claude.messages.stream(**asked) as stream:
        final = await stream.get_final_message()
    assert final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert whole.usage.input_tokens == prompt_tokens(["Be brief.", item.prompt])
    assert final.stop_reason == "end_turn"
    deltas = kinds.count("content_block_delta")
    assert deltas > 3
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_the_synchronous_clients_work_too(market: PaperMarket) -> None:
    item = generate("classify", 3)
    gpt_url = market.catalogue.provider("openai").base_url
    claude_url = market.catalogue.provider("anthropic").base_url

    def ask() -> tuple[str, str]:
        with OpenAI(base_url=gpt_url, api_key=market.api_key, max_retries=0) as client:
            said = client.chat.completions.create(
                model="o1", messages=[{"role": "user", "content": item.prompt}]
            )
        with Anthropic(base_url=claude_url, api_key=market.api_key, max_retries=0) as client:
            message = client.messages.create(
                model="claude-3-opus-latest",
                max_tokens=100,
                messages=[{"role": "user", "content": [{"type": "text", "text": item.prompt}]}],
            )
        assert said.usage is not None
        assert said.usage.completion_tokens_details is not None
        assert (said.usage.completion_tokens_details.reasoning_tokens or 0) > 0
        texts = [block.text for block in message.content if block.type == "text"]
        return said.choices[0].message.content or "", texts[0]

    for text in await asyncio.to_thread(ask):
        assert check(item, text)


@pytest.mark.parametrize("choice", ["required", {"function": {"name": "get_weather"}}, "auto"])
async def test_openai_tools(gpt: Any, choice: object) -> None:
    if isinstance(choice, dict):
        choice = {"type": "function", **choice}
    asked: Any = {
        "model": "gpt-4o",
        "tools": [OPENAI_TOOL],
        "tool_choice": choice,
        "messages": [{"role": "user", "content": "Use get_weather for Leeds."}],
    }
    said = await gpt.chat.completions.create(**asked)
    assert said.choices[0].finish_reason == "tool_calls"
    call = (said.choices[0].message.tool_calls or [])[0]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    name, arguments = "", ""
    async for chunk in await gpt.chat.completions.create(**asked, stream=True):
        for part in chunk.choices[0].delta.tool_calls or []:
            assert part.function is not None
            name += part.function.name or ""
            arguments += part.function.arguments or ""
    assert name == "get_weather"
    assert json.loads(arguments) == json.loads(call.function.arguments)
    messages = [
        *asked["messages"],
        said.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "11 degrees"},
    ]
    after = await gpt.chat.completions.create(
        model="gpt-4o", tools=[OPENAI_TOOL], messages=messages
    )
    assert "11 degrees" in (after.choices[0].message.content or "")


async def test_tools_are_left_alone_unless_asked_for(gpt: Any) -> None:
    said = await gpt.chat.completions.create(
        model="gpt-4o", tools=[OPENAI_TOOL], messages=[{"role": "user", "content": "Hello there"}]
    )
    assert said.choices[0].message.tool_calls is None


async def test_anthropic_tools(claude: Any) -> None:
    asked: Any = {
        "model": "claude-3-haiku",
        "max_tokens": 200,
        "tools": [ANTHROPIC_TOOL],
        "tool_choice": {"type": "any"},
        "messages": [{"role": "user", "content": "What about Leeds?"}],
    }
    said = await claude.messages.create(**asked)
    assert said.stop_reason == "tool_use"
    assert said.content[0].name == "get_weather"
    async with claude.messages.stream(**asked) as stream:
        final = await stream.get_final_message()
    assert final.content[0].input == said.content[0].input
    result = {"type": "tool_result", "tool_use_id": said.content[0].id, "content": "9 degrees"}
    asked["messages"] = [
        *asked["messages"],
        {"role": "assistant", "content": [block.model_dump() for block in said.content]},
        {"role": "user", "content": [result]},
    ]
    after = await claude.messages.create(**asked)
    assert "9 degrees" in after.content[0].text


async def test_json_modes(gpt: Any) -> None:
    item = generate("math", 8)
    messages = [{"role": "user", "content": item.prompt}]
    loose = await gpt.chat.completions.create(
        model="gpt-4o", messages=messages, response_format={"type": "json_object"}
    )
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    strict = await gpt.chat.completions.create(
        model="gpt-4o",
        messages=messages,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    for said in (loose, strict):
        text = said.choices[0].message.content or ""
        assert set(json.loads(text)) == {"answer"}
        assert check(item, text)


async def test_max_tokens_stop_and_n(gpt: Any, claude: Any) -> None:
    messages = [{"role": "user", "content": "Tell me something."}]
    cut = await gpt.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=5)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 5
    stopped = await gpt.chat.completions.create(
        model="gpt-4o", messages=messages, stop=["question"]
    )
    assert stopped.choices[0].message.content == "Thank you for the "
    several = await gpt.chat.completions.create(model="gpt-4o", messages=messages, n=3)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    short = await claude.messages.create(
        model="claude-3-haiku", max_tokens=5, messages=[{"role": "user", "content": "Go on."}]
    )
    assert short.stop_reason == "max_tokens"
    ended = await claude.messages.create(
        model="claude-3-haiku",
        max_tokens=50,
        stop_sequences=["question"],
        messages=[{"role": "user", "content": "Go on."}],
    )
    assert (ended.stop_reason, ended.stop_sequence) == ("stop_sequence", "question")


async def test_long_prompts_are_cached(gpt: Any, claude: Any) -> None:
    messages = [{"role": "user", "content": LONG}]
    cached = []
    for _ in range(2):
        said = await gpt.chat.completions.create(model="gpt-4o", messages=messages)
        assert said.usage is not None
        assert said.usage.prompt_tokens_details is not None
        cached.append(said.usage.prompt_tokens_details.cached_tokens)
    assert cached[0] == 0
    assert cached[1] is not None
    assert cached[1] >= 1024
    block = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    asked = {"model": "claude-3-5-sonnet", "max_tokens": 20}
    marked = [{"role": "user", "content": [block]}]
    first = (await claude.messages.create(**asked, messages=marked)).usage
    second = (await claude.messages.create(**asked, messages=marked)).usage
    unmarked = (await claude.messages.create(**asked, messages=messages)).usage
    total = prompt_tokens([LONG])
    assert (first.cache_read_input_tokens, first.cache_creation_input_tokens) == (0, total)
    assert (second.cache_read_input_tokens or 0) >= 1024
    assert (
        second.input_tokens
        + (second.cache_read_input_tokens or 0)
        + (second.cache_creation_input_tokens or 0)
        == total
    )
    assert (unmarked.input_tokens, unmarked.cache_read_input_tokens) == (total, 0)


async def test_refusals_are_shaped_as_the_clients_expect(
    market: PaperMarket, gpt: Any, claude: Any
) -> None:
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as missing:
        await gpt.chat.completions.create(model="gpt-99", messages=messages)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await gpt.with_options(api_key="sk-wrong").chat.completions.create(
            model="gpt-4o", messages=messages
        )
    with pytest.raises(openai.BadRequestError) as long:
        await gpt.chat.completions.create(
            model="gpt-3.5-turbo", messages=[{"role": "user", "content": "word " * 20_000}]
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="messages"):
        await gpt.chat.completions.create(model="gpt-4o", messages=[])
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        await gpt.chat.completions.create(model="o1-mini", messages=messages, tools=[OPENAI_TOOL])
    with pytest.raises(anthropic.NotFoundError) as absent:
        await claude.messages.create(model="claude-9", max_tokens=5, messages=messages)
    assert "not_found_error" in str(absent.value.body)
    with pytest.raises(anthropic.AuthenticationError):
        await claude.with_options(api_key="wrong").messages.create(
            model="claude-3-haiku", max_tokens=5, messages=messages
        )
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        await claude.post("/v1/messages", body={"model": "x", "messages": messages}, cast_to=dict)
    assert market.ledgers()["openai"].refused == 5
    assert market.ledgers()["openai"].billed_nusd == 0


async def test_answers_carry_a_request_id_and_limits(gpt: Any) -> None:
    raw = await gpt.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
    )
    assert raw.headers["x-request-id"].startswith("req_openai_")
    assert int(raw.headers["x-ratelimit-limit-requests"]) > 0
    listed = [model.id async for model in gpt.models.list()]
    assert "gpt-4o" in listed
