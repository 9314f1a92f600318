"""LiteLLM's SDK as a seller among others, against paper sellers: OpenAI's format, and formats that
LiteLLM translates to by itself, which is also a second opinion on the paper sellers' formats.
"""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bidding.market import Model, Offer, PriceList, Provider
from bidding.outcome import FailureClass
from broker.paper.serve import PaperMarket
from broker.paper.wires import key_at
from broker.providers.base import Seat
from broker.providers.dialects import dialect_of
from broker.upstream import Upstream
from broker.wire.neutral import (
    Answer,
    Embedding,
    Failed,
    Message,
    NeutralRequest,
    Text,
    Tool,
    ToolChoice,
    collect,
)
from tests.contract.test_paper_dialects import CITY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("litellm") is None, reason="needs the extra [litellm]"
    ),
    pytest.mark.filterwarnings("ignore"),
]
REACHED = {
    "openai": ("openai", "openai/gpt-4o-mini", ""),
    "anthropic": ("anthropic", "anthropic/claude-haiku-4-5", ""),
    "cohere": ("cohere", "cohere_chat/command-r", "/chat"),
    "bedrock": (
        "aws",
        "bedrock/converse/regional.anthropic.claude-haiku-4-5-20251001-v1:0",
        "",
    ),
    "gemini": ("gemini", "gemini/gemini-1.5-flash", ""),
}
ONLY_TEXT = {"cohere"}
"""LiteLLM 1.110 wants Cohere's streams without `event:` lines, and leaves tool choice out."""


class Reached:
    """Buys through LiteLLM from one paper seller."""

    def __init__(self, market: PaperMarket, upstream: Upstream) -> None:
        self._market = market
        self._upstream = upstream

    async def buy(self, name: str, request: NeutralRequest, model: str | None = None) -> Any:
        at, wire_model, path = REACHED[name]
        seller = self._market.catalogue.provider(at)
        provider = Provider(
            id="litellm",
            name="LiteLLM",
            wire="litellm",
            base_url=seller.base_url + path,
            jurisdiction="us",
            region="us-east-1" if at == "aws" else None,
        )
        prices = PriceList(input_nusd_per_mtok=1, output_nusd_per_mtok=1)
        upstream_model = model or wire_model
        seat = Seat(
            offer=Offer(
                provider="litellm", model="m", prices=prices, upstream_model=upstream_model
            ),
            provider=provider,
            model=Model(id="m", family="f", context_window=10_000, max_output_tokens=4096),
            key=key_at(seller, self._market.api_key),
        )
        dialect = dialect_of(seat, request)
        call = dialect.build(request, seat, stream=request.stream)
        reply = await self._upstream.call(call, provider)
        events, body = [], b""
        reader = dialect.reader(stream=request.stream, seat=seat)
        while piece := await reply.read():
            body += piece
            if reply.status == 200:
                events += reader.feed(piece)
            if reader.done:
                break
        reply.close()
        if reply.status != 200:
            return dialect.refusal(reply.status, body, None, seat)
        events += reader.close()
        bad = [e for e in events if isinstance(e, Failed)]
        return bad[0] if bad else collect(events)


@pytest_asyncio.fixture
async def reached() -> AsyncIterator[Reached]:
    sellers = sorted({at for at, _, _ in REACHED.values()})
    market = PaperMarket(time_scale=0.001, providers=sellers)
    await market.start()
    upstream = Upstream()
    await upstream.start()
    yield Reached(market, upstream)
    await upstream.close()
    await market.stop()


def ask(text: str, **more: Any) -> NeutralRequest:
    return NeutralRequest(model="m", messages=(Message("user", (Text(text),)),), **more)


@pytest.mark.parametrize("name", REACHED)
async def test_text_and_tools_through_litellm(reached: Reached, name: str) -> None:
    whole = await reached.buy(name, ask("Hello there."))
    assert isinstance(whole, Answer), whole
    assert whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.output_tokens > 0
    if name in ONLY_TEXT:
        return
    streamed = await reached.buy(name, ask("Hello there.", stream=True))
    assert isinstance(streamed, Answer), streamed
    assert streamed.choices[0].text == whole.choices[0].text
    tool = Tool(name="get_weather", description="Weather", parameters=CITY)
    called = await reached.buy(
        name, ask("Go", tools=(tool,), tool_choice=ToolChoice("required"), stream=True)
    )
    assert isinstance(called, Answer), called
    assert called.choices[0].tool_calls[0].name == "get_weather"
    assert called.choices[0].finish == "tool_calls"


async def test_refusals_have_their_class(reached: Reached) -> None:
    missing = await reached.buy("openai", ask("Hi"), model="openai/gpt-none")
    assert (missing.failure, missing.http_status) == (FailureClass.MODEL_MISSING, 404)
    unknown = await reached.buy("openai", ask("Hi"), model="nobody-we-know/x")
    assert unknown.failure in (FailureClass.MODEL_MISSING, FailureClass.BAD_REQUEST)


async def test_embeddings_through_litellm(reached: Reached) -> None:
    request = NeutralRequest(model="m", messages=(), embedding=Embedding(inputs=("a", "b")))
    answer = await reached.buy("openai", request, model="openai/text-embedding-3-small")
    assert [v.index for v in answer.vectors] == [0, 1]


async def test_it_is_not_imported_until_it_is_used() -> None:
    code = "import broker.app, sys; sys.exit('litellm' in sys.modules or 'botocore' in sys.modules)"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=False)
    assert done.returncode == 0
