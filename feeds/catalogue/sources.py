"""Every source of prices by name: its parser, where it is, and what it calls our providers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from feeds.catalogue import (
    genai_package,
    litellm_prices,
    models_dev,
    openrouter,
    own_toml,
    price_page,
)
from feeds.catalogue.listing import PriceSheet
from feeds.errors import BadRecord


class PriceSource(Struct, frozen=True, kw_only=True):
    """`names` maps the source's names of providers to the market's; others are taken as they are.

    A source without `parse` needs no document: `local` reads what is installed.
    """

    name: str
    url: str = ""
    parse: Callable[[bytes], PriceSheet] | None = None
    local: Callable[[], PriceSheet] | None = None
    names: Mapping[str, str] = {}


SOURCES: Final[dict[str, PriceSource]] = {
    s.name: s
    for s in (
        PriceSource(
            name=genai_package.NAME,
            local=genai_package.listings,
            names={"x-ai": "xai", "google": "gemini"},
        ),
        PriceSource(
            name=openrouter.NAME, url="https://openrouter.ai/api/v1/models", parse=openrouter.parse
        ),
        PriceSource(
            name=litellm_prices.NAME,
            url="https://raw.githubusercontent.com/BerriAI/litellm/main/"
            "model_prices_and_context_window.json",
            parse=litellm_prices.parse,
            names={
                "bedrock": "aws",
                "bedrock_converse": "aws",
                "cohere_chat": "cohere",
                "fireworks_ai": "fireworks",
                "together_ai": "together",
                "vertex_ai-anthropic_models": "google",
                "vertex_ai-language-models": "google",
                "vertex_ai-llama_models": "google",
            },
        ),
        PriceSource(
            name=models_dev.NAME,
            url="https://models.dev/api.json",
            parse=models_dev.parse,
            names={
                "amazon-bedrock": "aws",
                "cloudflare-workers-ai": "cloudflare",
                "fireworks-ai": "fireworks",
                "google": "gemini",
                "google-vertex": "google",
                "google-vertex-anthropic": "google",
                "moonshotai": "moonshot",
                "novita-ai": "novita",
                "togetherai": "together",
                "zhipuai": "zhipu",
            },
        ),
        PriceSource(name=own_toml.NAME, parse=own_toml.parse),
        PriceSource(name=price_page.NAME, parse=price_page.parse),
    )
}


def source(name: str) -> PriceSource:
    """The source of that name. Raises `BadRecord` when there is none."""
    found = SOURCES.get(name)
    if found is None:
        raise BadRecord(f"no source of prices {name!r}; there are {', '.join(SOURCES)}")
    return found
