"""Whom LiteLLM's provider prefixes mean among the providers known here."""

from __future__ import annotations

from typing import Final, NamedTuple

from bidding.market import Wire
from broker.providers.quirks import Quirks, known

PREFIXES: Final[dict[str, str]] = {
    "anthropic": "anthropic",
    "azure": "azure",
    "baseten": "baseten",
    "bedrock": "aws",
    "cerebras": "cerebras",
    "cloudflare": "cloudflare",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "dashscope": "dashscope",
    "databricks": "databricks",
    "deepinfra": "deepinfra",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "friendliai": "friendli",
    "gemini": "gemini",
    "github": "github",
    "groq": "groq",
    "hosted_vllm": "vllm",
    "huggingface": "huggingface",
    "hyperbolic": "hyperbolic",
    "lepton": "lepton",
    "lm_studio": "lmstudio",
    "mistral": "mistral",
    "moonshot": "moonshot",
    "nebius": "nebius",
    "novita": "novita",
    "nscale": "nscale",
    "nvidia_nim": "nvidia",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "openai": "openai",
    "openrouter": "openrouter",
    "ovhcloud": "ovhcloud",
    "perplexity": "perplexity",
    "sambanova": "sambanova",
    "scaleway": "scaleway",
    "together_ai": "together",
    "vertex_ai": "google",
    "xai": "xai",
}


class Vendor(NamedTuple):
    """Who a deployment is at: our id, how it is spoken to, its entry, its name for the model."""

    id: str
    wire: Wire
    entry: Quirks | None
    model: str


def vendor_of(name: str, api_base: str | None) -> Vendor:
    """Whom LiteLLM's `model` means: "prefix/model", or a bare name for OpenAI's.

    One that we do not speak to ourselves is reached through LiteLLM's SDK.

    Examples
    --------
    >>> vendor_of("groq/llama-3.1-8b-instant", None)[0::3]
    ('groq', 'llama-3.1-8b-instant')
    >>> vendor_of("replicate/meta/llama", None)[:2]
    ('litellm_replicate', 'litellm')
    """
    prefix, slash, model = name.partition("/")
    if not slash:
        prefix, model = ("anthropic" if name.startswith("claude") else "openai"), name
    known_id = PREFIXES.get(prefix)
    if known_id is None:
        return Vendor(f"litellm_{prefix}".replace("-", "_"), "litellm", None, name)
    entry = known().provider[known_id]
    if known_id == "openai" and api_base and "api.openai.com" not in api_base:
        return Vendor("openai_like", "openai", None, model)
    return Vendor(known_id, entry.wire, entry, model)
