"""What each offer lacks, from the tables: its wire format, its provider, its model.

A request that needs what an offer lacks never reaches it: the gates turn it away before price,
with its reason on record. So nothing an app asked for is dropped on the way.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import msgspec

from bidding.market import Catalogue, Offer, Provider
from broker.providers.model_rules import bare, rules_of
from broker.providers.quirks import quirks_of

WIRE_LACKS: dict[str, frozenset[str]] = {
    "openai": frozenset(),
    "anthropic": frozenset(
        {"logprobs", "n_choices", "seed", "logit_bias", "penalties", "embeddings"}
        | {"verbosity", "no_user", "blank_stop"}
    ),
    "gemini": frozenset({"logprobs", "logit_bias", "serial_tools", "image_url", "token_input"})
    | {"verbosity", "strict_tools", "no_user", "many_stops"},
    "vertex": frozenset({"logprobs", "logit_bias", "serial_tools", "token_input"})
    | {"verbosity", "strict_tools", "no_user", "many_stops"},
    "bedrock": frozenset(
        {"logprobs", "n_choices", "seed", "logit_bias", "penalties", "top_k", "no_tool"}
        | {"serial_tools", "image_url", "json_object", "token_input", "verbosity", "no_user"}
        | {"assistant_first"}
    ),
    "cohere": frozenset(
        {"logprobs", "n_choices", "logit_bias", "named_tool", "serial_tools", "token_input"}
        | {"verbosity", "many_stops"}
    ),
    "litellm": frozenset({"token_input"}),
}
"""What a format has no word for."""

_NO_HINTS = frozenset({"verbosity"})
"""What a provider may refuse and is no hint: without it the answer is another."""

NEEDS_PACKAGE = {"bedrock": "botocore", "litellm": "litellm"}
"""Formats that need an extra of the same name, by the package it brings."""


def completed(catalogue: Catalogue) -> Catalogue:
    """`catalogue` with every offer's `lacks` filled in; offers whose format needs a package that
    is not installed are disabled.
    """
    providers = {p.id: p for p in catalogue.providers}
    offers = [_completed(offer, providers[offer.provider]) for offer in catalogue.offers]
    return msgspec.structs.replace(catalogue, offers=offers)


def missing_packages(catalogue: Catalogue) -> dict[str, str]:
    """Providers whose format needs an extra that is not installed: id to the extra's name."""
    return {p.id: p.wire for p in catalogue.providers if not installed(p.wire)}


@cache
def installed(wire: str) -> bool:
    """Whether the format can be spoken here. Looks for the package, without importing it."""
    package = NEEDS_PACKAGE.get(wire)
    return package is None or importlib.util.find_spec(package) is not None


def _completed(offer: Offer, provider: Provider) -> Offer:
    lacks = set(offer.lacks) | lacking(offer, provider)
    return msgspec.structs.replace(
        offer, lacks=sorted(lacks), enabled=offer.enabled and installed(provider.wire)
    )


def lacking(offer: Offer, provider: Provider) -> frozenset[str]:
    """What the tables say `offer` lacks."""
    wire = provider.wire
    if wire == "vertex" and bare(offer.wire_model).startswith("claude"):
        of_wire = WIRE_LACKS["anthropic"]
    else:
        of_wire = WIRE_LACKS[wire]
    rules = rules_of(offer.model, offer.wire_model, wire)
    quirks = quirks_of(provider)
    return of_wire | quirks.lacks | (quirks.drop & _NO_HINTS) | rules.lacks
