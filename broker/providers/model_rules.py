"""What must change per model, whoever sells it: `models.toml`, typed.

A limit or a name is mapped (a temperature above the most a model takes is lowered to it, one it
does not take at all is left out, since it then samples at its own); what a model cannot do is
in `lacks` and becomes a gate. `adaptations` says in words what was mapped for a request.
"""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from bidding.market import Wire
from broker.providers.base import Seat
from broker.wire.neutral import Image, Message, NeutralRequest, Text

_VENDOR = re.compile(r"^(?:[a-z]{2,8}\.)?[a-z0-9]+\.(?=[a-z])|^.*/")


class ModelRules(Struct, frozen=True, kw_only=True):
    """How one model differs.

    Attributes
    ----------
    max_tokens : the parameter's name, where the model decides it rather than the provider
    max_temperature : a higher one is lowered to this
    temperature, top_p : `fixed`: not taken; `not_with_temperature`: only one of the two
    system : the role of system messages; `user`: it has none, so they lead the first turn
    thinking : reasoning is asked for by a budget of tokens, a level, or effort alone
    skip_thought_signature : calls handed back need a signature, or the word to go without
    lacks : capabilities it does not have
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"] | None = None
    max_temperature: float = 2.0
    temperature: Literal["free", "fixed"] = "free"
    top_p: Literal["free", "fixed", "not_with_temperature"] = "free"
    system: Literal["system", "developer", "user"] = "system"
    thinking: Literal["budget", "level", "adaptive"] = "budget"
    skip_thought_signature: bool = False
    lacks: frozenset[str] = frozenset()


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the table: for which models, and what of `ModelRules` it sets."""

    match: tuple[str, ...]
    wire: Wire | None = None
    max_tokens: Literal["max_tokens", "max_completion_tokens"] | UnsetType = UNSET
    max_temperature: float | UnsetType = UNSET
    temperature: Literal["free", "fixed"] | UnsetType = UNSET
    top_p: Literal["free", "fixed", "not_with_temperature"] | UnsetType = UNSET
    system: Literal["system", "developer", "user"] | UnsetType = UNSET
    thinking: Literal["budget", "level", "adaptive"] | UnsetType = UNSET
    skip_thought_signature: bool | UnsetType = UNSET
    lacks: frozenset[str] = frozenset()

    def fits(self, names: tuple[str, ...], wire: Wire) -> bool:
        """Whether it is about a model of these names in this format."""
        if self.wire not in (None, wire):
            return False
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.match)


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    rule: tuple[Rule, ...]


@cache
def table() -> tuple[Rule, ...]:
    """The shipped rules, in order."""
    text = files("broker.providers").joinpath("models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Table).rule


@cache
def rules_of(model: str, wire_model: str, wire: Wire) -> ModelRules:
    """What holds for a model by its id and its name at the provider.

    Examples
    --------
    >>> rules_of("o1-mini", "o1-mini-2024-09-12", "openai").system
    'user'
    >>> rules_of("claude-3-haiku", "us.anthropic.claude-3-haiku-v1:0", "bedrock").thinking
    'budget'
    """
    names = (bare(model), bare(wire_model))
    found: dict[str, object] = {}
    lacks: set[str] = set()
    for rule in table():
        if rule.fits(names, wire):
            lacks |= rule.lacks
            set_fields = (f for f in rule.__struct_fields__ if f not in ("match", "wire", "lacks"))
            for name in set_fields:
                value = getattr(rule, name)
                if value is not UNSET:
                    found[name] = value
    return msgspec.convert({**found, "lacks": sorted(lacks)}, ModelRules)


def bare(name: str) -> str:
    """A model's name without a vendor's or region's prefix, lower case.

    Examples
    --------
    >>> bare("eu.meta.llama3-1-8b-instruct-v1:0"), bare("meta-llama/Llama-3-8b"), bare("o1-mini")
    ('llama3-1-8b-instruct-v1:0', 'llama-3-8b', 'o1-mini')
    >>> bare("gemini-1.5-pro"), bare("regional.anthropic.claude-3-opus")
    ('gemini-1.5-pro', 'claude-3-opus')
    """
    return _VENDOR.sub("", name.lower())


def rules_for(seat: Seat) -> ModelRules:
    """What holds for the model of `seat`."""
    return rules_of(seat.offer.model, seat.offer.wire_model, seat.provider.wire)


def sampling(
    request: NeutralRequest, rules: ModelRules, *, most: float = 2.0
) -> tuple[float | None, float | None]:
    """Temperature and top_p as the model takes them; `most` is the format's highest."""
    temperature, top_p = request.temperature, request.top_p
    if temperature is not None:
        fixed = rules.temperature == "fixed"
        temperature = None if fixed else min(temperature, most, rules.max_temperature)
    if rules.top_p == "fixed" or (
        rules.top_p == "not_with_temperature" and temperature is not None
    ):
        top_p = None
    return temperature, top_p


def led_by_user(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """`messages` for a model without a system role: what stood there leads the next user turn,
    or makes one.
    """
    out: list[Message] = []
    waiting: list[Text | Image] = []
    for message in messages:
        if message.role == "system":
            waiting += [p for p in message.parts if isinstance(p, Text)]
        elif waiting and message.role == "user":
            out.append(msgspec.structs.replace(message, parts=(*waiting, *message.parts)))
            waiting = []
        else:
            out.append(message)
    if waiting:
        out.append(Message("user", tuple(waiting)))
    return tuple(out)


def adaptations(request: NeutralRequest, seat: Seat, *, most: float = 2.0) -> tuple[str, ...]:
    """What was mapped for the model of `seat`, in words fit for a record."""
    rules = rules_for(seat)
    temperature, top_p = sampling(request, rules, most=most)
    said = []
    if request.temperature is not None and temperature != request.temperature:
        said.append("temperature omitted" if temperature is None else f"temperature {temperature}")
    if request.top_p is not None and top_p is None:
        said.append("top_p omitted")
    if rules.system == "user" and any(m.role == "system" for m in request.messages):
        said.append("system as user")
    return tuple(said)
