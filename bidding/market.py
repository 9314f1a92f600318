"""The nouns of the market: providers, models, price lists, offers, and the catalogue of them.

An *offer* is one model at one provider (and region or tier) with its price list: it is what
is bought, and the arm of the bandit. Its id is `provider/model[@region]`. Everything here is
what is *known* of an offer; what is *believed* of it is in `quote.py`.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from bidding.errors import BadCatalogue, UnknownModel
from bidding.units import tokens_cost_nusd

Wire = Literal["openai", "anthropic", "gemini", "vertex", "bedrock", "cohere", "litellm"]
MOST_NUSD: Final = 10**18
"""Prices below a thousand million dollars a million tokens: what 64 bits hold, times nine."""
NonNegative = Annotated[int, Meta(ge=0)]


class Capability(enum.IntFlag):
    """What a model can do beyond text in, text out; a request's needs are a mask of these.

    Those up to `SEED` are listed by the models that can. The rest (`COMMON`) every chat model
    has unless its offer is known to lack it: what a wire format has no word for, what a seller
    refuses, what a model was not made to take.
    """

    TOOLS = 1
    VISION = 2
    JSON_SCHEMA = 4
    REASONING = 8
    STREAMING = 16
    LOGPROBS = 32
    EMBEDDINGS = 64
    PROMPT_CACHE = 128
    N_CHOICES = 256
    SEED = 512
    CHAT = 1 << 10
    STOP = 1 << 11
    TOP_K = 1 << 12
    LOGIT_BIAS = 1 << 13
    PENALTIES = 1 << 14
    IMAGE_URL = 1 << 15
    FORCED_TOOL = 1 << 16
    NAMED_TOOL = 1 << 17
    NO_TOOL = 1 << 18
    SERIAL_TOOLS = 1 << 19
    DIMENSIONS = 1 << 20
    TOKEN_INPUT = 1 << 21
    JSON_OBJECT = 1 << 22
    BATCH_INPUT = 1 << 23
    VERBOSITY = 1 << 24
    STRICT_TOOLS = 1 << 25
    NO_USER = 1 << 26
    ASSISTANT_FIRST = 1 << 27
    BLANK_STOP = 1 << 28
    MANY_STOPS = 1 << 29

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Capability:
        """The mask of `names` (lower case). Raises `KeyError` on an unknown one."""
        mask = cls(0)
        for name in names:
            mask |= cls[name.upper()]
        return mask

    def names(self) -> list[str]:
        """Lower-case names of the bits set, in declaration order."""
        return [c.name.lower() for c in Capability if c in self and c.name]


COMMON = Capability((1 << 30) - (1 << 10))
"""What need not be listed: `IMAGE_URL` is images by address (where images are read at all),
`FORCED_TOOL`, `NAMED_TOOL`, `NO_TOOL` the values of tool choice, `SERIAL_TOOLS` one call at a
time, `STRICT_TOOLS` arguments held to their schema, `NO_USER` instructions without any words of
a user's, `ASSISTANT_FIRST` a conversation that the assistant begins, `BLANK_STOP` to stop at mere
white space, `MANY_STOPS` at more than four sequences; `DIMENSIONS`, `TOKEN_INPUT` and
`BATCH_INPUT` (several at once) concern embeddings.
"""
_OF_EMBEDDINGS = Capability.DIMENSIONS | Capability.TOKEN_INPUT | Capability.BATCH_INPUT


class ContextTier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of the whole call once the prompt is longer than `above_input_tokens`."""

    above_input_tokens: NonNegative
    input_nusd_per_mtok: NonNegative
    output_nusd_per_mtok: NonNegative
    cache_read_nusd_per_mtok: NonNegative | None = None


class PriceList(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """List prices of an offer in nano-dollars per million tokens (and per request).

    `tiers` stand in ascending order; the last one that the prompt exceeds holds for all of the
    call. `reasoning` None: hidden reasoning costs what output costs. Batch prices are what the
    provider's deferred queue charges; nothing here buys there yet.
    """

    input_nusd_per_mtok: NonNegative
    output_nusd_per_mtok: NonNegative
    cache_read_nusd_per_mtok: NonNegative | None = None
    cache_write_nusd_per_mtok: NonNegative | None = None
    request_nusd: NonNegative = 0
    image_nusd: NonNegative = 0
    reasoning_nusd_per_mtok: NonNegative | None = None
    batch_input_nusd_per_mtok: NonNegative | None = None
    batch_output_nusd_per_mtok: NonNegative | None = None
    tiers: tuple[ContextTier, ...] = ()

    def for_prompt(self, input_tokens: int) -> PriceList:
        """The prices that hold for a prompt of this length."""
        held = [t for t in self.tiers if input_tokens > t.above_input_tokens]
        if not held:
            return self
        return replace(
            self,
            input_nusd_per_mtok=held[-1].input_nusd_per_mtok,
            output_nusd_per_mtok=held[-1].output_nusd_per_mtok,
            cache_read_nusd_per_mtok=held[-1].cache_read_nusd_per_mtok,
            tiers=(),
        )

    @property
    def is_sane(self) -> bool:
        """Whether every price is a number that a seller can ask; nothing checks it when made."""
        stated = [
            getattr(part, name) for part in (self, *self.tiers) for name in part.__struct_fields__
        ]
        return all(p is None or isinstance(p, tuple) or 0 <= p < MOST_NUSD for p in stated)

    def cost_nusd(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cached_tokens: int = 0,
        written_tokens: int = 0,
    ) -> int:
        """What a call costs: cached and cache-written tokens are part of `input_tokens`.

        The tier is that of the prompt's length.

        Examples
        --------
        >>> prices = PriceList(input_nusd_per_mtok=10**9, output_nusd_per_mtok=2 * 10**9)
        >>> prices.cost_nusd(1000, 500)
        2000000
        """
        if self.tiers and input_tokens > self.tiers[0].above_input_tokens:
            return self.for_prompt(input_tokens).cost_nusd(
                input_tokens,
                output_tokens,
                cached_tokens=cached_tokens,
                written_tokens=written_tokens,
            )
        read = self.cache_read_nusd_per_mtok
        write = self.cache_write_nusd_per_mtok
        cached = min(cached_tokens, input_tokens) if read is not None else 0
        written = min(written_tokens, input_tokens - cached) if write is not None else 0
        total = self.request_nusd
        total += tokens_cost_nusd(self.input_nusd_per_mtok, input_tokens - cached - written)
        total += tokens_cost_nusd(self.output_nusd_per_mtok, output_tokens)
        total += tokens_cost_nusd(read or 0, cached) + tokens_cost_nusd(write or 0, written)
        return total


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who runs models, under which law, and what it does with what it is sent.

    `retention_days` 0 means zero data retention; `trains` that prompts may train models.
    `limit_rpm` and `limit_tpm` are the quotas of our account there; None is unlimited.
    `quirks` names its entry among the known providers where its id does not; `region` is what
    its wire format needs to know beside the address (AWS region for signatures).
    """

    id: str
    name: str
    wire: Wire
    base_url: str
    jurisdiction: str
    retention_days: NonNegative = 30
    trains: bool = False
    pii_allowed: bool = True
    status_url: str | None = None
    key_env: str | None = None
    limit_rpm: Annotated[int, Meta(gt=0)] | None = None
    limit_tpm: Annotated[int, Meta(gt=0)] | None = None
    limit_concurrency: Annotated[int, Meta(gt=0)] = 1024
    quirks: str | None = None
    region: str | None = None


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A canonical model, whoever runs it."""

    id: str
    family: str
    context_window: Annotated[int, Meta(gt=0)]
    max_output_tokens: Annotated[int, Meta(gt=0)]
    capabilities: list[str] = []
    prior_quality: Annotated[float, Meta(ge=0, le=1)] | None = None

    @property
    def mask(self) -> Capability:
        """What it can do, `COMMON` included; one that makes embeddings does not chat."""
        listed = Capability.from_names(self.capabilities)
        if Capability.EMBEDDINGS in listed:
            return listed | _OF_EMBEDDINGS
        return listed | COMMON


class Offer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model at one provider: what is bought. `upstream_model` is its name over there;
    `lacks` are capabilities of the model that this offer does not have.
    """

    provider: str
    model: str
    prices: PriceList
    region: str | None = None
    upstream_model: str | None = None
    enabled: bool = True
    lacks: list[str] = []

    @property
    def id(self) -> str:
        base = f"{self.provider}/{self.model}"
        return f"{base}@{self.region}" if self.region else base

    @property
    def wire_model(self) -> str:
        """The name by which the provider knows the model."""
        return self.upstream_model or self.model


class Catalogue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All providers, models and offers. `checked()` refuses one that contradicts itself."""

    providers: list[Provider]
    models: list[Model]
    offers: list[Offer]
    tasks: list[str] = field(default_factory=list)

    def checked(self) -> Catalogue:
        """Self, if every reference resolves and ids are unique; else `BadCatalogue`."""
        faults: list[str] = []
        providers = _by_id(((p.id, p) for p in self.providers), "provider", faults)
        models = _by_id(((m.id, m) for m in self.models), "model", faults)
        _by_id(((o.id, o) for o in self.offers), "offer", faults)
        for model in self.models:
            unknown = [c for c in model.capabilities if c.upper() not in Capability.__members__]
            if unknown:
                faults.append(f"model {model.id}: unknown capabilities {unknown}")
        for offer in self.offers:
            unknown = [c for c in offer.lacks if c.upper() not in Capability.__members__]
            if unknown:
                faults.append(f"offer {offer.id}: unknown capabilities {unknown}")
            if not offer.prices.is_sane:
                faults.append(f"offer {offer.id}: a price is negative or not a number")
            if offer.provider not in providers:
                faults.append(f"offer {offer.id}: unknown provider {offer.provider!r}")
            if offer.model not in models:
                faults.append(f"offer {offer.id}: unknown model {offer.model!r}")
        if faults:
            raise BadCatalogue(faults)
        return self

    def provider(self, provider_id: str) -> Provider:
        """The provider called `provider_id`. Raises `KeyError`."""
        return {p.id: p for p in self.providers}[provider_id]


def _by_id(
    pairs: Iterable[tuple[str, object]], kind: str, faults: list[str]
) -> Mapping[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            faults.append(f"{kind} {key}: listed twice")
        found[key] = value
    return found


def resolve_name(name: str, known: Iterable[str]) -> str:
    """`name` if known, else `UnknownModel` with up to three near names.

    Examples
    --------
    >>> resolve_name("gpt-4o", ["gpt-4o", "gpt-4o-mini"])
    'gpt-4o'
    """
    names = list(known)
    if name in names:
        return name
    raise UnknownModel(name, difflib.get_close_matches(name, names, n=3, cutoff=0.4))
