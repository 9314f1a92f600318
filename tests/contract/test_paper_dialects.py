"""Our adapters against paper sellers over real HTTP: every dialect, every feature it carries.

What is asked is the same everywhere, so the answers must be too: a model is right about the
same items at every seller of it, whatever format the seller speaks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from bidding.columns import offer_columns
from bidding.market import Catalogue
from bidding.outcome import FailureClass
from broker.paper.serve import PaperMarket
from broker.paper.tasks import check, generate
from broker.paper.wires import key_at
from broker.providers.base import Seat
from broker.providers.capable import completed
from broker.providers.dialects import dialect_of
from broker.upstream import Upstream
from broker.wire.needs import needs
from broker.wire.neutral import (
    Answer,
    Embedding,
    Failed,
    Image,
    Message,
    NeutralRequest,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    collect,
)

SELLERS = {
    "openai": "openai/gpt-4o-mini",
    "azure": "azure/gpt-4o-mini",
    "databricks": "databricks/llama-3.1-8b",
    "anthropic": "anthropic/claude-haiku-4.5",
    "gemini": "gemini/gemini-1.5-flash",
    "vertex-gemini": "google/gemini-1.5-flash",
    "vertex-claude": "google/claude-haiku-4.5",
    "bedrock": "aws/claude-haiku-4.5",
    "bedrock-eu-llama": "aws/llama-3.1-8b",
    "cohere": "cohere/command-r",
}
EMBEDDERS = (
    "openai/text-embedding-3-small",
    "azure/text-embedding-3-small",
    "gemini/gemini-embedding-001",
    "google/gemini-embedding-001",
    "aws/titan-embed-v2",
    "cohere/embed-v4",
    "databricks/bge-large-en-v1.5",
)
CITY = msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}')
WEATHER = Tool(name="get_weather", description="Weather", parameters=CITY)
PNG = Image(media_type="image/png", data="iVBORw0KGgo=")


class Buyer:
    """Buys from one offer, as an attempt does, without the clocks."""

    def __init__(self, market: PaperMarket, upstream: Upstream) -> None:
        self.catalogue: Catalogue = completed(market.catalogue)
        self._api_key = market.api_key
        self._upstream = upstream
        self._columns = offer_columns(self.catalogue)

    def seat(self, offer_id: str, key: str | None = None) -> Seat:
        offer = next(o for o in self.catalogue.offers if o.id == offer_id)
        provider = self.catalogue.provider(offer.provider)
        model = next(m for m in self.catalogue.models if m.id == offer.model)
        return Seat(
            offer=offer,
            provider=provider,
            model=model,
            key=key or key_at(provider, self._api_key),
        )

    def can(self, offer_id: str, request: NeutralRequest) -> bool:
        """Whether the gate lets `request` through to the offer."""
        wanted = int(needs(request))
        return int(self._columns.capabilities[self._columns.row_of[offer_id]]) & wanted == wanted

    async def buy(self, offer_id: str, request: NeutralRequest, key: str | None = None) -> Any:
        """The collected answer, or `Failed`."""
        seat = self.seat(offer_id, key)
        dialect = dialect_of(seat, request)
        reply = await self._upstream.call(
            dialect.build(request, seat, stream=request.stream), seat.provider
        )
        body = b""
        events = []
        try:
            reader = dialect.reader(stream=request.stream, seat=seat)
            while piece := await reply.read():
                body += piece
                events += reader.feed(piece) if reply.status == 200 else []
            if reply.status != 200:
                return dialect.refusal(reply.status, body, None, seat)
            events += reader.close()
        finally:
            reply.close()
        bad = [e for e in events if isinstance(e, Failed)]
        return bad[0] if bad else collect(events)


@pytest_asyncio.fixture
async def buyer() -> AsyncIterator[Buyer]:
    providers = ["openai", "azure", "databricks", "anthropic", "gemini", "google", "aws", "cohere"]
    market = PaperMarket(time_scale=0.001, providers=providers)
    await market.start()
    upstream = Upstream()
    await upstream.start()
    yield Buyer(market, upstream)
    await upstream.close()
    await market.stop()


def ask(text: str, *more: Message, **fields: Any) -> NeutralRequest:
    first = (Message("system", (Text("Be brief."),)), Message("user", (Text(text),)))
    return NeutralRequest(model="market", messages=(*first, *more), **fields)


@pytest.mark.parametrize("name", SELLERS)
async def test_text_streamed_and_not(buyer: Buyer, name: str) -> None:
    item = generate("math", 12)
    whole = await buyer.buy(SELLERS[name], ask(item.prompt, temperature=0.0, top_p=0.9))
    streamed = await buyer.buy(SELLERS[name], ask(item.prompt, stream=True))
    assert isinstance(whole, Answer), whole
    assert isinstance(streamed, Answer), streamed
    assert whole.choices[0].text == streamed.choices[0].text != ""
    assert whole.choices[0].finish == streamed.choices[0].finish == "stop"
    assert whole.usage == streamed.usage
    assert whole.usage is not None
    assert whole.usage.input_tokens > 10 < whole.usage.output_tokens
    short = await buyer.buy(SELLERS[name], ask(item.prompt, max_output_tokens=3))
    assert short.choices[0].finish == "length"


async def test_a_model_says_the_same_whatever_format_its_seller_speaks(buyer: Buyer) -> None:
    item = generate("classify", 7)
    said = [
        (await buyer.buy(SELLERS[name], ask(item.prompt))).choices[0].text
        for name in ("anthropic", "vertex-claude", "bedrock")
    ]
    assert len(set(said)) == 1
    assert check(item, said[0]) in (True, False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", SELLERS)
async def test_tools_there_and_back(buyer: Buyer, name: str, stream: bool) -> None:
    offer = SELLERS[name]
    mode = "required" if buyer.can(offer, forced(stream)) else "auto"
    first = await buyer.buy(
        offer,
        ask("Call get_weather.", tools=(WEATHER,), tool_choice=ToolChoice(mode), stream=stream),
    )
    assert isinstance(first, Answer), first
    (choice,) = first.choices
    assert choice.finish == "tool_calls"
    (call,) = choice.tool_calls
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "city"}
    spoken = (Text(choice.text),) if choice.text else ()
    second = await buyer.buy(
        offer,
        ask(
            "Call get_weather.",
            Message("assistant", (*spoken, ToolCall(call.id, call.name, call.arguments))),
            Message("tool", (ToolResult(call.id, (Text("18 C"),)),)),
            tools=(WEATHER,),
            stream=stream,
        ),
    )
    assert isinstance(second, Answer), second
    assert "18 C" in second.choices[0].text


def forced(stream: bool) -> NeutralRequest:
    return ask("x", tools=(WEATHER,), tool_choice=ToolChoice("required"), stream=stream)


@pytest.mark.parametrize("name", SELLERS)
async def test_schemas_and_images_are_carried_or_gated(buyer: Buyer, name: str) -> None:
    form = ResponseFormat(kind="json_schema", name="place", schema=CITY)
    wanted = {
        "schema": ask("Name a city.", response_format=form),
        "image": NeutralRequest(
            model="market", messages=(Message("user", (Text("What is it?"), PNG)),)
        ),
        "named": ask("Go", tools=(WEATHER,), tool_choice=ToolChoice("named", "get_weather")),
        "stop": ask("Tell me of costs.", stop=("cost",)),
    }
    allowed = {what for what, request in wanted.items() if buyer.can(SELLERS[name], request)}
    lacking = {
        "databricks": {"image"},
        "bedrock-eu-llama": {"schema", "image", "named"},
        "cohere": {"schema", "image", "named"},
    }
    assert allowed == set(wanted) - lacking.get(name, set())
    for what in allowed:
        answer = await buyer.buy(SELLERS[name], wanted[what])
        assert isinstance(answer, Answer), (what, answer)
        if what == "schema":
            assert json.loads(answer.choices[0].text) == {"city": "city"}


@pytest.mark.parametrize("offer", EMBEDDERS)
async def test_embeddings(buyer: Buyer, offer: str) -> None:
    def wanted(*texts: str, n: int | None = None) -> NeutralRequest:
        return NeutralRequest(
            model="m", messages=(), embedding=Embedding(inputs=texts, dimensions=n)
        )

    texts = ("a red apple", "a red pear")
    assert buyer.can(offer, wanted(texts[0]))
    several = wanted(*texts) if buyer.can(offer, wanted(*texts)) else wanted(texts[0])
    answer = await buyer.buy(offer, several)
    assert isinstance(answer, Answer), answer
    assert [v.index for v in answer.vectors] == list(range(len(several.embedding.inputs)))
    assert sum(x * x for x in answer.vectors[0].values) == pytest.approx(1.0, abs=1e-3)
    if buyer.can(offer, wanted("x", n=64)):
        short = await buyer.buy(offer, wanted("x", n=64))
        assert len(short.vectors[0].values) == 64


async def test_the_same_vectors_at_every_seller_of_a_model(buyer: Buyer) -> None:
    request = NeutralRequest(model="m", messages=(), embedding=Embedding(inputs=("a b",)))
    for pair in (EMBEDDERS[:2], EMBEDDERS[2:4]):
        first, second = [await buyer.buy(offer, request) for offer in pair]
        assert first.vectors == second.vectors


@pytest.mark.parametrize("name", SELLERS)
async def test_a_wrong_key_is_refused_as_such(buyer: Buyer, name: str) -> None:
    wrong = "AKIDPAPER:wrong" if name.startswith("bedrock") else "wrong"
    failed = await buyer.buy(SELLERS[name], ask("Hi"), key=wrong)
    assert isinstance(failed, Failed)
    assert failed.failure is FailureClass.AUTH


async def test_bedrock_takes_an_api_key_as_well(buyer: Buyer) -> None:
    answer = await buyer.buy(SELLERS["bedrock"], ask("Hi"), key="sk-paper")
    assert isinstance(answer, Answer)


async def test_bedrock_refuses_a_key_of_another_account(buyer: Buyer) -> None:
    failed = await buyer.buy(SELLERS["bedrock"], ask("Hi"), key="AKIDOTHER:sk-paper")
    assert failed.failure is FailureClass.AUTH
