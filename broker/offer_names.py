"""Which offer others mean: providers and models go by several names. Pure."""

from __future__ import annotations

from typing import Final

from bidding.market import Catalogue

ALIASES: Final = {
    # OpenTelemetry's well-known values of gen_ai.provider.name (and of gen_ai.system before it)
    "gcp.gen_ai": ("gemini", "google"),
    "gcp.gemini": ("gemini", "google"),
    "gcp.vertex_ai": ("google", "gemini"),
    "aws.bedrock": ("aws",),
    "azure.ai.openai": ("azure", "azure-v1"),
    "azure.ai.inference": ("azure", "azure-v1"),
    "az.ai.openai": ("azure", "azure-v1"),
    "az.ai.inference": ("azure", "azure-v1"),
    "mistral_ai": ("mistral",),
    "x_ai": ("xai",),
    # LiteLLM's
    "vertex_ai": ("google", "gemini"),
    "gemini": ("gemini", "google"),
    "bedrock": ("aws",),
    "bedrock_converse": ("aws",),
    "azure_ai": ("azure", "azure-v1"),
    "together_ai": ("together",),
    "fireworks_ai": ("fireworks",),
    "cohere_chat": ("cohere",),
    "nvidia_nim": ("nvidia",),
}


class OfferNames:
    """Offers by id, and by any name of their provider and model."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.sold = {o.id: (o.provider, o.model) for o in catalogue.offers}
        self._by_names: dict[tuple[str, str], str] = {}
        for offer in catalogue.offers:
            for name in (offer.model, offer.wire_model, offer.wire_model.rpartition("/")[2]):
                self._by_names.setdefault((offer.provider.lower(), name.lower()), offer.id)

    def find(self, provider: str, model: str) -> str | None:
        """The id of the offer that a provider's and a model's names mean; None when none does.

        A provider's own prefix of a model's name is no part of it (`groq/llama-3-8b`).
        """
        said, name = provider.lower(), model.lower()
        for known in (said, *ALIASES.get(said, ())):
            short = name.removeprefix(f"{said}/").removeprefix(f"{known}/")
            for candidate in (name, short, short.rpartition("/")[2]):
                found = self._by_names.get((known, candidate))
                if found is not None:
                    return found
        return None
