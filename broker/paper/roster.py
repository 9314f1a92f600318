"""Who sells what in the paper market: the part chosen by hand.

Providers, models and the offers between them are real; their prices, latencies and skills are
not written here but looked up by `remake.py` under the names given here. Where a model was
never measured, `skill` names the nearest one that was and `skill_note` says so; likewise the
latency shape of an offer is that of the nearest endpoint measured at the same provider.
"""

from __future__ import annotations

from typing import NamedTuple

from bidding.market import Wire


class ProviderRow(NamedTuple):
    """A provider and the endpoints (`provider/model[@probe region]`) that lend it latency."""

    id: str
    name: str
    wire: Wire
    jurisdiction: str
    retention_days: int
    trains: bool
    small: str
    large: str
    eu: str | None = None
    capacity: int = 256


class ModelRow(NamedTuple):
    """A model; `skill` is its name in ZeroEval, `size` picks the latency endpoint.

    A skill `a+b` is that of `a`, and of `b` on the data sets that `a` was not run on.
    """

    id: str
    family: str
    size: str
    context_window: int
    max_output_tokens: int
    capabilities: str
    skill: str
    skill_note: str = "measured"
    reasoning_ratio: float = 0.0


class OfferRow(NamedTuple):
    """An offer; `price` is `provider:model` in genai-prices, times `factor`."""

    provider: str
    model: str
    price: str
    region: str | None = None
    factor: float = 1.0
    note: str = ""


PROVIDERS = (
    ProviderRow("openai", "OpenAI", "openai", "us", 30, False,
                "openai/gpt-3.5-turbo-0125", "openai/gpt-4-turbo", capacity=512),
    ProviderRow("azure", "Microsoft Azure", "openai", "us", 30, False,
                "azure.eastus2/gpt-3.5-turbo", "azure.westus/gpt-4-1106-preview",
                "azure.frcentral/gpt-4-1106-preview@cdg", 512),
    ProviderRow("anthropic", "Anthropic", "anthropic", "us", 30, False,
                "anthropic/claude-3-haiku-20240307", "anthropic/claude-3-opus-20240229"),
    ProviderRow("aws", "AWS Bedrock", "bedrock", "us", 0, False,
                "anthropic/claude-3-haiku-20240307", "anthropic/claude-3-opus-20240229",
                "anthropic/claude-3-haiku-20240307@cdg", 512),
    ProviderRow("google", "Google Vertex AI", "vertex", "us", 1, False,
                "google/gemini-pro", "google/gemini-1.5-pro-preview-0409",
                "google/gemini-pro@cdg", 512),
    ProviderRow("gemini", "Google AI Studio", "gemini", "us", 30, False,
                "google/gemini-pro", "google/gemini-1.5-pro-preview-0409"),
    ProviderRow("mistral", "Mistral AI", "openai", "eu", 30, False,
                "octoai/mixtral-8x7b-instruct@cdg", "octoai/llama-2-70b-chat@cdg"),
    ProviderRow("groq", "Groq", "openai", "us", 0, False,
                "groq/llama-3-8b-chat", "groq/llama-3-70b-chat", capacity=128),
    ProviderRow("together", "Together AI", "openai", "us", 0, False,
                "together/llama-3-8b-chat", "together/llama-3-70b-chat"),
    ProviderRow("fireworks", "Fireworks AI", "openai", "us", 0, False,
                "fireworks/llama-3-8b-chat", "fireworks/llama-3-70b-chat"),
    ProviderRow("deepseek", "DeepSeek", "anthropic", "cn", 365, True,
                "anyscale/llama-3-8b-chat", "anyscale/llama-3-70b-chat"),
    ProviderRow("xai", "xAI", "openai", "us", 30, True,
                "perplexity/sonar-medium-chat", "perplexity/pplx-70b-chat", capacity=128),
    ProviderRow("novita", "Novita AI", "openai", "us", 7, True,
                "anyscale/llama-3-8b-chat", "anyscale/llama-2-70b-chat", capacity=128),
    ProviderRow("nebius", "Nebius", "openai", "eu", 0, False,
                "octoai/llama-2-13b-chat@cdg", "octoai/llama-2-70b-chat@cdg"),
    ProviderRow("ovhcloud", "OVHcloud", "openai", "eu", 0, False,
                "together/llama-2-13b-chat@cdg", "together/llama-2-70b-chat@cdg", capacity=128),
    ProviderRow("cohere", "Cohere", "cohere", "us", 30, False,
                "cohere/command-r", "cohere/command-r-plus"),
    ProviderRow("cerebras", "Cerebras", "openai", "us", 0, False,
                "groq/llama-3-8b-chat", "groq/llama-3-70b-chat", capacity=96),
    ProviderRow("sambanova", "SambaNova", "openai", "us", 0, False,
                "groq/llama-3-8b-chat", "groq/llama-3-70b-chat", capacity=96),
    ProviderRow("databricks", "Databricks", "openai", "us", 0, False,
                "octoai/llama-2-13b-chat", "databricks/llama-2-70b-chat"),
    ProviderRow("cloudflare", "Cloudflare Workers AI", "openai", "us", 0, False,
                "cloudflare/llama-2-7b-chat-int8", "cloudflare/llama-2-7b-chat-fp16"),
    ProviderRow("nscale", "Nscale", "openai", "eu", 0, False,
                "octoai/llama-2-13b-chat@cdg", "octoai/mixtral-8x7b-instruct@cdg", capacity=128),
)  # fmt: skip

_BASE = "streaming"
_OPEN = "streaming tools json_schema seed n_choices"
_GPT = "streaming tools vision json_schema logprobs seed n_choices prompt_cache"
_CLAUDE = "streaming tools vision prompt_cache"
_GEMINI = "streaming tools vision json_schema prompt_cache seed n_choices"
_NEAR = "nearest measured"

MODELS = (
    ModelRow("gpt-4o", "gpt", "large", 128_000, 16_384, _GPT, "gpt-4o-2024-08-06"),
    ModelRow("gpt-4o-mini", "gpt", "small", 128_000, 16_384, _GPT, "gpt-4o-mini-2024-07-18"),
    ModelRow("gpt-4-turbo", "gpt", "large", 128_000, 4_096, "streaming tools vision logprobs seed "
             "n_choices", "gpt-4-turbo-2024-04-09"),
    ModelRow("gpt-3.5-turbo", "gpt", "small", 16_385, 4_096, "streaming tools logprobs seed "
             "n_choices", "gpt-3.5-turbo-0125"),
    ModelRow("o1", "gpt", "large", 200_000, 100_000, "streaming tools vision json_schema reasoning "
             "prompt_cache", "o1-preview-2024-09-12+o1-mini-2024-09-12", _NEAR, 6.0),
    ModelRow("o1-mini", "gpt", "large", 128_000, 65_536, "streaming reasoning prompt_cache",
             "o1-mini-2024-09-12", "measured", 5.0),
    ModelRow("claude-3.5-sonnet", "claude", "large", 200_000, 8_192, _CLAUDE,
             "claude-3-5-sonnet-20241022"),
    ModelRow("claude-3.5-haiku", "claude", "small", 200_000, 8_192, _CLAUDE,
             "claude-3-5-haiku-20241022"),
    ModelRow("claude-3-opus", "claude", "large", 200_000, 4_096, _CLAUDE, "claude-3-opus-20240229"),
    ModelRow("claude-3-sonnet", "claude", "large", 200_000, 4_096, _CLAUDE,
             "claude-3-sonnet-20240229"),
    ModelRow("claude-3-haiku", "claude", "small", 200_000, 4_096, _CLAUDE,
             "claude-3-haiku-20240307"),
    ModelRow("claude-haiku-4.5", "claude", "small", 200_000, 64_000, _CLAUDE + " json_schema",
             "claude-3-5-haiku-20241022", _NEAR),
    ModelRow("gemini-1.5-pro", "gemini", "large", 2_000_000, 8_192, _GEMINI, "gemini-1.5-pro"),
    ModelRow("gemini-1.5-flash", "gemini", "small", 1_000_000, 8_192, _GEMINI, "gemini-1.5-flash"),
    ModelRow("gemini-2.0-flash", "gemini", "small", 1_000_000, 8_192, _GEMINI,
             "gemini-1.5-flash-exp-0827", _NEAR),
    ModelRow("llama-3.1-8b", "llama", "small", 128_000, 8_192, _OPEN, "Meta-Llama-3.1-8B-Instruct"),
    ModelRow("llama-3.1-70b", "llama", "large", 128_000, 8_192, _OPEN,
             "Meta-Llama-3.1-70B-Instruct"),
    ModelRow("llama-3.1-405b", "llama", "large", 128_000, 8_192, _OPEN,
             "Meta-Llama-3.1-405B-Instruct@hyperbolic"),
    ModelRow("llama-3.3-70b", "llama", "large", 128_000, 8_192, _OPEN,
             "Meta-Llama-3.1-70B-Instruct", _NEAR),
    ModelRow("llama-3-8b", "llama", "small", 8_192, 4_096, _BASE, "Meta-Llama-3-8B-Instruct"),
    ModelRow("llama-3-70b", "llama", "large", 8_192, 4_096, _BASE, "Meta-Llama-3-70B-Instruct"),
    ModelRow("mixtral-8x7b", "mistral", "small", 32_768, 8_192, _BASE,
             "Mixtral-8x7B-Instruct-v0.1"),
    ModelRow("mistral-large-2", "mistral", "large", 128_000, 8_192, _OPEN, "Mistral-Large-2"),
    ModelRow("mistral-nemo", "mistral", "small", 128_000, 8_192, _OPEN,
             "Mistral-Nemo-Instruct-2407"),
    ModelRow("qwen2.5-72b", "qwen", "large", 32_000, 8_192, _OPEN, "Qwen2.5-72B-Instruct"),
    ModelRow("qwen2.5-vl-72b", "qwen", "large", 32_000, 8_192, _OPEN + " vision",
             "Qwen2.5-72B-Instruct", _NEAR),
    ModelRow("qwen2-7b", "qwen", "small", 32_768, 8_192, _BASE, "Qwen2-7B-Instruct"),
    ModelRow("deepseek-v3", "deepseek", "large", 64_000, 8_192,
             "streaming tools prompt_cache", "deepseek-v2.5-0908", _NEAR),
    ModelRow("grok-2", "grok", "large", 131_072, 8_192, _OPEN, "grok-2-1212"),
    ModelRow("gemma-2-2b", "gemma", "small", 8_192, 4_096, _BASE, "gemma-2-2b-it"),
    ModelRow("gemma-2-9b", "gemma", "small", 8_192, 4_096, _BASE, "gemma-2-9b-it"),
    ModelRow("gemma-2-27b", "gemma", "large", 8_192, 4_096, _BASE,
             "gemma-2-27b-it+gemma-2-27b-it@together"),
    ModelRow("command-r", "command", "small", 128_000, 4_096, "streaming tools seed", "command-r"),
    ModelRow("command-r-plus", "command", "large", 128_000, 4_096, "streaming tools seed",
             "command-r-plus"),
    ModelRow("phi-3-mini", "phi", "small", 128_000, 4_096, _BASE, "Phi-3-mini-4k-instruct"),
    ModelRow("phi-3.5-mini", "phi", "small", 128_000, 4_096, _BASE, "Phi-3.5-mini-instruct"),
)  # fmt: skip

_AZURE_NOTE = "OpenAI's list price, which Azure charges too"
_AZURE_EU_NOTE = "OpenAI's list price plus the 10 % of Azure's EU data zone"
_GOOGLE_EU_NOTE = "EU endpoint at the global list price"

_SOLD: dict[str, dict[str, str]] = {
    "openai": {
        "gpt-4o": "openai:gpt-4o",
        "gpt-4o-mini": "openai:gpt-4o-mini",
        "gpt-4-turbo": "openai:gpt-4-turbo",
        "gpt-3.5-turbo": "openai:gpt-3.5-turbo",
        "o1": "openai:o1",
        "o1-mini": "openai:o1-mini",
    },
    "azure": {
        "o1": "azure:o1",
        "o1-mini": "azure:o1-mini",
        "phi-3-mini": "azure:phi-3-mini-128k-instruct",
        "phi-3.5-mini": "azure:phi-3.5-mini-128k-instruct",
    },
    "anthropic": {
        "claude-3.5-sonnet": "anthropic:claude-3-5-sonnet",
        "claude-3.5-haiku": "anthropic:claude-3-5-haiku-latest",
        "claude-3-opus": "anthropic:claude-3-opus-latest",
        "claude-3-sonnet": "anthropic:claude-3-sonnet",
        "claude-3-haiku": "anthropic:claude-3-haiku",
        "claude-haiku-4.5": "anthropic:claude-haiku-4-5",
    },
    "aws": {
        "claude-3.5-sonnet": "aws:regional.anthropic.claude-3-5-sonnet-20241022-v2:0",
        "claude-3.5-haiku": "aws:regional.anthropic.claude-3-5-haiku-20241022-v1:0",
        "claude-3-opus": "aws:regional.anthropic.claude-3-opus-20240229-v1:0",
        "claude-3-sonnet": "aws:regional.anthropic.claude-3-sonnet-20240229-v1:0",
        "claude-3-haiku": "aws:regional.anthropic.claude-3-haiku-20240307-v1:0",
        "claude-haiku-4.5": "aws:regional.anthropic.claude-haiku-4-5-20251001-v1:0",
        "llama-3.1-8b": "aws:meta.llama3-1-8b-instruct-v1:0",
        "llama-3.1-70b": "aws:meta.llama3-1-70b-instruct-v1:0",
        "llama-3.3-70b": "aws:meta.llama3-3-70b-instruct-v1:0",
        "llama-3-8b": "aws:meta.llama3-8b-instruct-v1:0",
        "llama-3-70b": "aws:meta.llama3-70b-instruct-v1:0",
        "mixtral-8x7b": "aws:mistral.mixtral-8x7b-instruct-v0:1",
    },
    "google": {
        "gemini-1.5-pro": "google:gemini-1.5-pro",
        "gemini-1.5-flash": "google:gemini-1.5-flash",
        "gemini-2.0-flash": "google:gemini-2.0-flash",
        "claude-3.5-sonnet": "google:claude-3-5-sonnet",
        "claude-3.5-haiku": "google:claude-3-5-haiku",
        "claude-3-haiku": "google:claude-3-haiku",
        "claude-3-opus": "google:claude-3-opus",
        "claude-haiku-4.5": "google:claude-haiku-4-5",
        "gemma-2-27b": "google:gemma-2-27b-it",
    },
    "gemini": {
        "gemini-1.5-pro": "google:gemini-1.5-pro",
        "gemini-1.5-flash": "google:gemini-1.5-flash",
        "gemini-2.0-flash": "google:gemini-2.0-flash",
    },
    "mistral": {
        "mistral-large-2": "mistral:mistral-large",
        "mistral-nemo": "mistral:mistral-nemo",
        "mixtral-8x7b": "mistral:mixtral-8x7b",
    },
    "groq": {
        "llama-3.1-8b": "groq:llama-3.1-8b-instant",
        "llama-3.1-70b": "groq:llama-3.1-70b-versatile",
        "llama-3.3-70b": "groq:llama-3.3-70b-versatile",
        "llama-3-8b": "groq:llama3-8b-8192",
        "llama-3-70b": "groq:llama3-70b-8192",
        "mixtral-8x7b": "groq:mixtral-8x7b-32768",
        "gemma-2-9b": "groq:gemma2-9b-it",
    },
    "together": {
        "llama-3.1-8b": "together:meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        "llama-3.1-70b": "together:meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo",
        "llama-3.1-405b": "together:meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo",
        "llama-3.3-70b": "together:meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "llama-3-8b": "together:meta-llama/Meta-Llama-3-8B-Instruct-Turbo",
        "llama-3-70b": "together:meta-llama/Meta-Llama-3-70B-Instruct-Turbo",
        "mixtral-8x7b": "together:mistralai/Mixtral-8x7B-Instruct-v0.1",
    },
    "fireworks": {
        "llama-3.1-8b": "fireworks:llama-v3p1-8b-instruct",
        "qwen2.5-vl-72b": "fireworks:qwen2p5-vl-72b-instruct",
        "deepseek-v3": "fireworks:deepseek-v3-0324",
    },
    "deepseek": {"deepseek-v3": "deepseek:deepseek-chat"},
    "xai": {"grok-2": "x-ai:grok-2-1212"},
    "novita": {
        "llama-3-8b": "novita:meta-llama/llama-3-8b-instruct",
        "llama-3-70b": "novita:meta-llama/llama-3-70b-instruct",
        "llama-3.1-8b": "novita:meta-llama/llama-3.1-8b-instruct",
        "llama-3.1-70b": "novita:meta-llama/llama-3.1-70b-instruct",
        "llama-3.3-70b": "novita:meta-llama/llama-3.3-70b-instruct",
        "gemma-2-9b": "novita:google/gemma-2-9b-it",
        "mistral-nemo": "novita:mistralai/mistral-nemo",
        "qwen2-7b": "novita:qwen/qwen-2-7b-instruct",
        "qwen2.5-72b": "novita:qwen/qwen-2.5-72b-instruct",
        "deepseek-v3": "novita:deepseek/deepseek_v3",
    },
    "nebius": {
        "qwen2.5-vl-72b": "huggingface_nebius:Qwen/Qwen2.5-VL-72B-Instruct",
        "deepseek-v3": "huggingface_nebius:deepseek-ai/DeepSeek-V3-0324",
        "gemma-2-2b": "huggingface_nebius:google/gemma-2-2b-it",
        "gemma-2-9b": "huggingface_nebius:google/gemma-2-9b-it",
        "llama-3.1-8b": "huggingface_nebius:meta-llama/Llama-3.1-8B-Instruct",
        "llama-3.3-70b": "huggingface_nebius:meta-llama/Llama-3.3-70B-Instruct",
    },
    "ovhcloud": {
        "llama-3.1-8b": "ovhcloud:Llama-3.1-8B-Instruct",
        "llama-3.3-70b": "ovhcloud:Meta-Llama-3_3-70B-Instruct",
        "mistral-nemo": "ovhcloud:Mistral-Nemo-Instruct-2407",
        "mixtral-8x7b": "ovhcloud:Mixtral-8x7B-Instruct-v0.1",
        "qwen2.5-vl-72b": "ovhcloud:Qwen2.5-VL-72B-Instruct",
    },
    "cohere": {"command-r": "cohere:command-r", "command-r-plus": "cohere:command-r-plus"},
    "cerebras": {
        "llama-3.1-8b": "cerebras:llama3.1-8b",
        "llama-3.3-70b": "cerebras:llama-3.3-70b",
    },
    "sambanova": {
        "llama-3.1-8b": "huggingface_sambanova:meta-llama/Llama-3.1-8B-Instruct",
        "llama-3.3-70b": "huggingface_sambanova:meta-llama/Llama-3.3-70B-Instruct",
        "deepseek-v3": "huggingface_sambanova:deepseek-ai/DeepSeek-V3-0324",
    },
    "databricks": {
        "llama-3.1-8b": "databricks:databricks-meta-llama-3-1-8b-instruct",
        "llama-3.3-70b": "databricks:databricks-meta-llama-3-3-70b-instruct",
    },
    "cloudflare": {
        "llama-3-8b": "cloudflare:@cf/meta/llama-3-8b-instruct",
        "llama-3.1-8b": "cloudflare:@cf/meta/llama-3.1-8b-instruct-fp8-fast",
        "llama-3.1-70b": "cloudflare:@cf/meta/llama-3.1-70b-instruct-fp8-fast",
        "llama-3.3-70b": "cloudflare:@cf/meta/llama-3.3-70b-instruct-fp8-fast",
    },
    "nscale": {
        "llama-3.1-8b": "huggingface_nscale:meta-llama/Llama-3.1-8B-Instruct",
        "llama-3.3-70b": "huggingface_nscale:meta-llama/Llama-3.3-70B-Instruct",
    },
}


def offers() -> list[OfferRow]:
    """All offers, those of a provider together."""
    rows = [
        OfferRow(provider, model, price)
        for provider, sold in _SOLD.items()
        for model, price in sold.items()
    ]
    gpts = ("gpt-4o", "gpt-4o-mini", "gpt-4-turbo", "gpt-3.5-turbo")
    rows += [OfferRow("azure", model, f"openai:{model}", note=_AZURE_NOTE) for model in gpts]
    rows += [
        OfferRow("azure", model, f"openai:{model}", "eu", 1.1, _AZURE_EU_NOTE)
        for model in (*gpts, "o1", "o1-mini")
    ]
    rows += [
        OfferRow("aws", model, price, "eu")
        for model, price in _SOLD["aws"].items()
        if model.startswith("claude")
    ]
    rows += [
        OfferRow("google", model, price, "eu", note=_GOOGLE_EU_NOTE)
        for model, price in _SOLD["google"].items()
        if model.startswith("gemini")
    ]
    order = {row.id: i for i, row in enumerate(PROVIDERS)}
    return sorted(rows, key=lambda row: order[row.provider])
