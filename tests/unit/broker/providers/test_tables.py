"""The tables of providers and models: whole, consistent, and heard by the gates."""

from __future__ import annotations

import typing

import msgspec
import pytest

from bidding.columns import offer_columns
from bidding.market import Capability, Catalogue, Model, Offer, PriceList, Provider, Wire
from broker.providers import capable
from broker.providers.base import Seat
from broker.providers.capable import WIRE_LACKS, completed, missing_packages
from broker.providers.dialects import DIALECTS, EMBEDDINGS
from broker.providers.model_rules import adaptations, rules_of, table
from broker.providers.quirks import known, quirks_of
from broker.wire.needs import needs
from broker.wire.neutral import Message, NeutralRequest, ResponseFormat, Text, Tool, ToolChoice

WIRES = set(typing.get_args(Wire))
PRICES = PriceList(input_nusd_per_mtok=1, output_nusd_per_mtok=1)
EVERYTHING = "streaming tools vision json_schema reasoning logprobs n_choices seed"


def catalogue(*sold: tuple[str, Wire, str]) -> Catalogue:
    """One offer a row: provider, its wire, the model's name there."""
    names = dict.fromkeys((p, w) for p, w, _ in sold)
    return Catalogue(
        providers=[
            Provider(id=p, name=p, wire=w, base_url="https://x.test", jurisdiction="us")
            for p, w in names
        ],
        models=[
            Model(
                id=f"m{i}",
                family="f",
                context_window=10_000,
                max_output_tokens=4096,
                capabilities=EVERYTHING.split(),
            )
            for i in range(len(sold))
        ],
        offers=[
            Offer(provider=p, model=f"m{i}", prices=PRICES, upstream_model=name)
            for i, (p, _, name) in enumerate(sold)
        ],
    ).checked()


def ask(**more: object) -> NeutralRequest:
    return NeutralRequest(model="m", messages=(Message("user", (Text("Hi"),)),), **more)


def may_bid(sold: tuple[str, Wire, str], request: NeutralRequest) -> bool:
    columns = offer_columns(completed(catalogue(sold)))
    wanted = int(needs(request))
    return int(columns.capabilities[0]) & wanted == wanted


def test_every_format_has_a_dialect_its_lacks_and_an_entry() -> None:
    assert set(DIALECTS) == set(WIRE_LACKS) == WIRES
    assert set(EMBEDDINGS) == WIRES - {"anthropic"}
    assert {entry.wire for entry in known().provider.values()} == WIRES


def test_at_least_25_providers_speak_openais_format() -> None:
    spoken = [name for name, entry in known().provider.items() if entry.wire == "openai"]
    assert len(spoken) >= 25
    for name in ("openai", "azure", "groq", "mistral", "deepseek", "openrouter", "ollama", "vllm"):
        assert name in spoken


@pytest.mark.parametrize("name", sorted(known().provider))
def test_an_entry_is_whole(name: str) -> None:
    entry = known().provider[name]
    assert entry.name
    assert entry.docs.startswith("https://")
    assert entry.wire == "litellm" or entry.base_url.startswith(("https://", "http://127.0.0.1"))
    assert entry.jurisdiction is None or len(entry.jurisdiction) == 2
    Capability.from_names(entry.lacks)


def test_rules_name_capabilities_that_exist() -> None:
    for rule in table():
        Capability.from_names(rule.lacks)
    for lacks in WIRE_LACKS.values():
        Capability.from_names(lacks)


@pytest.mark.parametrize(
    ("name", "entry"),
    [("azure-eu", "azure"), ("azure-v1-eu", "azure-v1"), ("nobody", "any other")],
)
def test_an_id_takes_the_longest_entry_that_begins_it(name: str, entry: str) -> None:
    found = quirks_of(
        Provider(id=name, name=name, wire="openai", base_url="https://x.test", jurisdiction="us")
    )
    table = known().provider
    assert found is (table[entry] if entry in table else known().default)


def test_a_provider_may_name_its_entry_and_the_wire_decides() -> None:
    named = Provider(
        id="ours", name="", wire="openai", base_url="", jurisdiction="us", quirks="mistral"
    )
    assert quirks_of(named).rename == {"seed": "random_seed"}
    claude = Provider(id="deepseek", name="", wire="anthropic", base_url="", jurisdiction="cn")
    assert quirks_of(claude) is known().provider["anthropic"]


TOOL = Tool(name="f")
SCHEMA = ResponseFormat(kind="json_schema", schema=msgspec.Raw(b"{}"))
OBJECT = ResponseFormat(kind="json_object")


@pytest.mark.parametrize(
    ("sold", "request_", "allowed"),
    [
        (("openai", "openai", "gpt-4o"), ask(stop=("x",)), True),
        (("openai", "openai", "o1-2024-12-17"), ask(stop=("x",)), False),
        (("openrouter", "openai", "openai/o3-mini"), ask(stop=("x",)), False),
        (("openai", "openai", "o1-2024-12-17"), ask(temperature=0.0), True),
        (("openai", "openai", "gpt-4o"), ask(top_k=5), False),
        (("anthropic", "anthropic", "claude-3-opus"), ask(top_k=5), True),
        (("anthropic", "anthropic", "claude-3-opus"), ask(seed=1), False),
        (("anthropic", "anthropic", "claude-3-opus"), ask(logit_bias={"1": 1.0}), False),
        (("deepseek", "openai", "deepseek-chat"), ask(response_format=OBJECT), True),
        (("deepseek", "openai", "deepseek-chat"), ask(response_format=SCHEMA), False),
        (("perplexity", "openai", "sonar"), ask(tools=(TOOL,)), False),
        (("gemini", "gemini", "gemini-2.5-pro"), ask(n=2, seed=3), True),
        (("gemini", "gemini", "gemini-2.5-pro"), ask(logprobs=True), False),
        (
            ("gemini", "gemini", "gemini-2.5-pro"),
            ask(tools=(TOOL,), parallel_tool_calls=False),
            False,
        ),
        (
            ("google", "vertex", "claude-sonnet-4-5@20250929"),
            ask(tools=(TOOL,), parallel_tool_calls=False),
            True,
        ),
        (("google", "vertex", "claude-sonnet-4-5@20250929"), ask(seed=1), False),
        (("google", "vertex", "gemini-2.5-pro"), ask(seed=1), True),
        (
            ("aws", "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            ask(response_format=SCHEMA),
            True,
        ),
        (
            ("aws", "bedrock", "anthropic.claude-3-haiku-20240307-v1:0"),
            ask(response_format=SCHEMA),
            False,
        ),
        (
            ("aws", "bedrock", "meta.llama3-1-70b-instruct-v1:0"),
            ask(tools=(TOOL,), tool_choice=ToolChoice("required")),
            False,
        ),
        (("aws", "bedrock", "meta.llama3-1-70b-instruct-v1:0"), ask(tools=(TOOL,)), True),
        (("aws", "bedrock", "meta.llama3-70b-instruct-v1:0"), ask(tools=(TOOL,)), False),
        (
            ("cohere", "cohere", "command-a-03-2025"),
            ask(tools=(TOOL,), tool_choice=ToolChoice("named", "f")),
            False,
        ),
        (
            ("cohere", "cohere", "command-a-03-2025"),
            ask(tools=(TOOL,), tool_choice=ToolChoice("none")),
            True,
        ),
    ],
)
def test_what_an_offer_lacks_keeps_requests_away(
    sold: tuple[str, Wire, str], request_: NeutralRequest, allowed: bool
) -> None:
    assert may_bid(sold, request_) is allowed


def test_chat_and_embeddings_keep_to_their_models() -> None:
    embedder = Model(
        id="e",
        family="f",
        context_window=1,
        max_output_tokens=1,
        capabilities=["embeddings"],
    )
    assert Capability.CHAT not in embedder.mask
    assert (
        Capability.EMBEDDINGS
        not in Model(id="m", family="f", context_window=1, max_output_tokens=1).mask
    )


def test_offers_without_their_package_are_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    sold = catalogue(("aws", "bedrock", "m"), ("openai", "openai", "gpt-4o"))
    monkeypatch.setattr(capable, "installed", lambda wire: wire != "bedrock")
    assert [o.enabled for o in completed(sold).offers] == [False, True]
    assert missing_packages(sold) == {"aws": "bedrock"}


def test_what_was_mapped_is_said_in_words() -> None:
    def said(name: str, **asked: object) -> tuple[str, ...]:
        market = catalogue(("openai", "openai", name))
        seat = Seat(offer=market.offers[0], provider=market.providers[0], model=market.models[0])
        system = Message("system", (Text("Be brief."),))
        request = ask(**asked)
        request.messages = (system, *request.messages)
        return adaptations(request, seat)

    assert said("gpt-4o", temperature=0.3, top_p=0.5) == ()
    assert said("o1", temperature=0.3, top_p=0.5) == ("temperature omitted", "top_p omitted")
    assert said("o1-mini") == ("system as user",)
    assert said("claude-opus-4-1", temperature=0.3, top_p=0.5) == ("top_p omitted",)
    assert said("command-r", temperature=1.5) == ("temperature 1.0",)


@pytest.mark.parametrize(
    ("name", "thinking"),
    [
        ("claude-sonnet-4-5-20250929", "budget"),
        ("claude-3-5-haiku", "budget"),
        ("claude-haiku-4-5", "budget"),
        ("claude-opus-5", "adaptive"),
        ("claude-opus-4-7", "adaptive"),
        ("gemini-2.5-pro", "budget"),
        ("gemini-3-pro-preview", "level"),
    ],
)
def test_how_models_are_told_to_think(name: str, thinking: str) -> None:
    assert rules_of("m", name, "anthropic").thinking == thinking
