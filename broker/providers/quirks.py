"""How known providers differ from the format they speak, as data: `providers.toml`, typed.

What a provider refuses although its format has a word for it is listed in `lacks`: it becomes a
gate, so that such a request never gets there. `drop` lists hints alone, whose loss changes no
answer. Everything else is a matter of names and places.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from bidding.market import Provider, Wire
from bidding.outcome import FailureClass

_AUTH = "^(bearer|none|header:[a-z0-9-]+|query:[a-z0-9_-]+)$"


class LimitHeaders(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By which headers a provider tells what is left of our quota there."""

    requests_limit: str | None = None
    requests_left: str | None = None
    requests_reset: str | None = None
    tokens_limit: str | None = None
    tokens_left: str | None = None
    tokens_reset: str | None = None


OPENAI_LIMITS = LimitHeaders(
    requests_limit="x-ratelimit-limit-requests",
    requests_left="x-ratelimit-remaining-requests",
    requests_reset="x-ratelimit-reset-requests",
    tokens_limit="x-ratelimit-limit-tokens",
    tokens_left="x-ratelimit-remaining-tokens",
    tokens_reset="x-ratelimit-reset-tokens",
)


class PromptCache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provider keeps of a prompt: prefixes of `least_tokens` and more, in whole blocks, for
    `ttl_s` after they were last used; with `marked`, only up to where the app marked it.
    """

    least_tokens: int = 1024
    block_tokens: int = 128
    ttl_s: float = 300.0
    marked: bool = False


class Quirks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider.

    Attributes
    ----------
    docs : its API reference, the source of what stands here
    base_url : where it is; `{...}` is for you to fill in
    jurisdiction, retention_days, trains : as its terms state them; absent where they do not
    auth : `bearer`, `none`, `header:NAME` or `query:NAME`
    path, embeddings_path : `{model}` stands for the model's name there
    query : parameters of every call
    max_tokens, rename : what parameters are called there
    drop : hints it refuses, whose loss changes no answer
    lacks : capabilities none of its offers has
    effort : how reasoning effort is said
    max_temperature : a higher one is lowered to this
    stream_usage : whether it knows `stream_options.include_usage`
    usage_at : where the usage of a stream stands if not at `usage`
    extra_headers : headers of every call
    error_codes, statuses : what its own codes and statuses mean, before the common tables
    limits : where it says what is left of our quota
    prompt_cache : what it keeps of prompts, for offers that have a price for reading it
    on_hang_up : whether it stops writing, and billing, a stream whose reader has gone
    """

    name: str = ""
    docs: str = ""
    wire: Wire = "openai"
    base_url: str = ""
    key_env: str | None = None
    jurisdiction: str | None = None
    retention_days: int | None = None
    trains: bool | None = None
    auth: Annotated[str, Meta(pattern=_AUTH)] = "bearer"
    path: str = "/chat/completions"
    embeddings_path: str = "/embeddings"
    query: dict[str, str] = {}
    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    rename: dict[str, str] = {}
    drop: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    effort: Literal["reasoning_effort", "reasoning", "none"] = "reasoning_effort"
    max_temperature: float = 2.0
    stream_usage: bool = True
    usage_at: Literal["usage", "x_groq", "choice"] = "usage"
    extra_headers: dict[str, str] = {}
    error_codes: dict[str, FailureClass] = {}
    statuses: dict[int, FailureClass] = {}
    limits: LimitHeaders = OPENAI_LIMITS
    prompt_cache: PromptCache = PromptCache()
    on_hang_up: Literal["stops", "goes_on", "unknown"] = "unknown"


class Known(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `providers.toml`."""

    default: Quirks
    provider: dict[str, Quirks]


@cache
def known() -> Known:
    """The shipped table. Raises `msgspec.ValidationError` where it contradicts its type."""
    text = files("broker.providers").joinpath("providers.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Known, strict=False)


def quirks_of(provider: Provider) -> Quirks:
    """The deviations of `provider`."""
    return _named(provider.quirks or provider.id, provider.wire)


@cache
def _named(name: str, wire: Wire) -> Quirks:
    """An entry is for the wire it names alone: Gemini resold in OpenAI's format has none of it."""
    table = known().provider
    entry = table.get(name)
    if entry is None:
        stems = [stem for stem in table if name.startswith(stem + "-")]
        entry = table[max(stems, key=len)] if stems else known().default
    if entry.wire == wire:
        return entry
    home = {"anthropic": "anthropic", "gemini": "gemini", "vertex": "google", "bedrock": "aws"}
    return table[home.get(wire, wire)] if wire != "openai" else known().default
