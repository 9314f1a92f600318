"""How OpenAI-compatible sellers differ from OpenAI, as data.

A seller not listed is taken to speak OpenAI's format to the letter, with the older
`max_tokens`, which nearly all of them understand. Sources are the vendors' API references.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from bidding.market import Provider


class Quirks(Struct, frozen=True, kw_only=True):
    """One seller's deviations.

    `drop` lists hints it refuses, whose loss changes no answer; `rename` parameters that go by
    another name there. Parameters it cannot honour are capabilities its models lack, and thus
    gates, so they never get here.
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    path: str = "/chat/completions"
    auth_header: str = "Authorization"
    auth_prefix: str = "Bearer "
    stream_usage: bool = True
    effort: Literal["reasoning_effort", "reasoning", "none"] = "reasoning_effort"
    max_temperature: float = 2.0
    drop: frozenset[str] = frozenset()
    rename: tuple[tuple[str, str], ...] = ()
    extra_headers: tuple[tuple[str, str], ...] = ()


_NO_HINTS = frozenset({"metadata", "prompt_cache_key", "verbosity", "user"})
_NO_CACHE_KEY = frozenset({"metadata", "prompt_cache_key", "verbosity"})

DEFAULT = Quirks(drop=_NO_CACHE_KEY)

QUIRKS: dict[str, Quirks] = {
    "openai": Quirks(max_tokens="max_completion_tokens"),
    "azure": Quirks(
        max_tokens="max_completion_tokens", auth_header="api-key", auth_prefix="", drop=_NO_HINTS
    ),
    "groq": Quirks(max_tokens="max_completion_tokens", drop=_NO_CACHE_KEY),
    "cerebras": Quirks(max_tokens="max_completion_tokens", drop=_NO_CACHE_KEY),
    "mistral": Quirks(
        drop=_NO_HINTS | {"logit_bias"},
        rename=(("seed", "random_seed"),),
        effort="none",
        max_temperature=1.5,
        stream_usage=False,
    ),
    "deepseek": Quirks(drop=_NO_HINTS, effort="none"),
    "xai": Quirks(max_tokens="max_completion_tokens", drop=_NO_CACHE_KEY),
    "perplexity": Quirks(drop=_NO_HINTS, stream_usage=False, max_temperature=1.99),
    "openrouter": Quirks(drop=_NO_CACHE_KEY, effort="reasoning"),
    "cohere": Quirks(drop=_NO_HINTS, max_temperature=1.0),
    "google": Quirks(drop=_NO_HINTS),
    "sambanova": Quirks(drop=_NO_HINTS, max_temperature=1.0),
    "ollama": Quirks(drop=_NO_HINTS),
    "vllm": Quirks(drop=_NO_CACHE_KEY),
    "together": DEFAULT,
    "fireworks": DEFAULT,
    "deepinfra": DEFAULT,
    "novita": DEFAULT,
    "hyperbolic": DEFAULT,
    "nebius": DEFAULT,
    "lepton": DEFAULT,
    "anyscale": DEFAULT,
    "octo": DEFAULT,
    "moonshot": Quirks(drop=_NO_HINTS, max_temperature=1.0),
    "qwen": Quirks(drop=_NO_HINTS),
    "zhipu": Quirks(drop=_NO_HINTS, max_temperature=1.0),
    "lmstudio": Quirks(drop=_NO_HINTS),
    "llamacpp": Quirks(drop=_NO_HINTS),
}
"""By provider id; an id such as `azure-eu` takes the longest entry that begins it."""


def quirks_of(provider: Provider) -> Quirks:
    """The deviations of `provider`."""
    found = QUIRKS.get(provider.id)
    if found is not None:
        return found
    stems = [name for name in QUIRKS if provider.id.startswith(name + "-")]
    return QUIRKS[max(stems, key=len)] if stems else DEFAULT
