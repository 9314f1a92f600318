"""LangChain's ChatOpenAI and the `instructor` package, unchanged, against the broker."""

from __future__ import annotations

import instructor
import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.fakes.up_rig import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")
QUESTION = "What is 6 * 7?"


class Sum(pydantic.BaseModel):
    """The answer to a sum."""

    answer: int


@tool
def get_weather(city: str) -> str:
    """How warm it is in a city."""
    return f"22 degrees in {city}"


def _chat(market: Market, model: str = "market:math") -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{market.url}/v1",
        api_key=pydantic.SecretStr(market.up.keys["app"]),
        model=model,
        max_retries=0,
    )


async def test_langchain_whole_and_streamed(market: Market) -> None:
    chat = _chat(market)
    whole = await chat.ainvoke(QUESTION)
    assert whole.text
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0
    pieces = [piece async for piece in chat.astream(QUESTION)]
    assert "".join(piece.text for piece in pieces)
    assert len(pieces) > 1


async def test_langchain_tools_there_and_back(market: Market) -> None:
    chat = _chat(market, "market").bind_tools([get_weather])
    question = HumanMessage("Use get_weather for Rome.")
    asked = await chat.ainvoke([question])
    (call,) = asked.tool_calls
    assert call["name"] == "get_weather"
    result = ToolMessage("22 degrees", tool_call_id=call["id"])
    told = await chat.ainvoke([question, asked, result])
    assert "22 degrees" in told.text


async def test_langchain_structured_output(market: Market) -> None:
    told = await _chat(market).with_structured_output(Sum).ainvoke(QUESTION)
    assert isinstance(told, Sum)


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
async def test_instructor(market: Market, mode: instructor.Mode) -> None:
    async with market.client() as client:
        told = await instructor.from_openai(client, mode=mode).chat.completions.create(
            model="market:math",
            response_model=Sum,
            max_retries=0,
            messages=[{"role": "user", "content": QUESTION}],
        )
    assert isinstance(told, Sum)
