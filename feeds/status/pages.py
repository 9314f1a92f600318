"""Which status pages there are, and which offers an incident on one of them concerns. Pure.

A page names its parts as its owner likes. Per page, `ignore` and `only` say which parts can
concern offers at all (an outage of a chat app is none of ours), `models` what a part's name means;
beyond that, a model concerned is one whose name stands in the title or in a part's name, the
longest name first, so that trouble with gpt-4o-mini is not trouble with gpt-4o. When nothing is
named, all of the provider is.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from bidding.market import Offer
from feeds.errors import BadRecord
from feeds.status.incident import Incident

Scope = Literal["provider", "models", "none"]


class StatusPage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider tells how it is.

    `provider` is the market's id (its `id` when not given). `only` and `ignore` are patterns of
    component names; `models` maps patterns of names and titles to patterns of model ids.
    """

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    format: str
    url: str
    name: str = ""
    provider: str = ""
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    models: dict[str, list[str]] = {}

    @property
    def of(self) -> str:
        """The provider's id in the market."""
        return self.provider or self.id


class _File(Struct, forbid_unknown_fields=True):
    page: list[StatusPage]


class Concern(Struct, frozen=True, kw_only=True):
    """Whom an incident concerns: all of a provider's offers, those of `models`, or none; in
    `regions` only, where offers have one and any are told.
    """

    scope: Scope
    models: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()


@cache
def known_pages() -> tuple[StatusPage, ...]:
    """The pages that ship with the broker."""
    text = files("feeds.status").joinpath("pages.toml").read_text(encoding="utf-8")
    return tuple(pages_from(text))


def pages_from(text: str) -> list[StatusPage]:
    """The pages in a TOML text. Raises `BadRecord` when it is none of them."""
    try:
        return msgspec.convert(tomllib.loads(text), _File).page
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadRecord(f"status pages: {error}") from error


def concern_of(page: StatusPage, incident: Incident, offers: Sequence[Offer]) -> Concern:
    """Whom of a provider's `offers` an incident on its page concerns.

    Examples
    --------
    >>> from bidding.market import PriceList
    >>> free = PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=0)
    >>> offers = [Offer(provider="p", model=m, prices=free) for m in ("gpt-4o", "gpt-4o-mini")]
    >>> told = Incident(id="1", title="Errors on GPT-4o mini", severity="major",
    ...     stage="investigating", since_us=0, told_us=0, updated_us=0)
    >>> page = StatusPage(id="p", format="statuspage", url="https://x")
    >>> concern_of(page, told, offers).models
    ('gpt-4o-mini',)
    """
    parts = [c.lower() for c in incident.components]
    ours = [p for p in parts if not _like(p, page.ignore)]
    if page.only:
        ours = [p for p in ours if _like(p, page.only)]
    title = incident.title.lower()
    if parts and not ours:
        return Concern(scope="none")
    if not parts and not _speaks_of_ours(page, title):
        return Concern(scope="none")
    regions = _regions(incident, offers)
    if regions is None:
        return Concern(scope="none")
    texts = [title, *ours]
    models = {o.model for o in offers}
    meant = {
        model
        for pattern, wanted in page.models.items()
        if any(fnmatchcase(t, pattern) for t in texts)
        for model in models
        if _like(model.lower(), wanted)
    }
    meant |= _named(texts, offers)
    scope: Scope = "models" if meant else "provider"
    return Concern(scope=scope, models=tuple(sorted(meant)), regions=regions)


def is_concerned(concern: Concern, offer: Offer) -> bool:
    """Whether an offer of the page's provider is."""
    if concern.scope == "none":
        return False
    if concern.scope == "models" and offer.model not in concern.models:
        return False
    if not concern.regions or offer.region is None:
        return True
    return _plain(offer.region) in {_plain(r) for r in concern.regions}


def _speaks_of_ours(page: StatusPage, title: str) -> bool:
    """For an incident that names no part: whether its title does not speak of others' alone."""
    if page.only:
        return any(fnmatchcase(title, f"*{p.strip('*')}*") for p in page.only)
    if "api" in re.findall(r"[a-z]+", title):
        return True
    return not any(fnmatchcase(title, f"*{p.strip('*')}*") for p in page.ignore if len(p) > 4)


def _regions(incident: Incident, offers: Sequence[Offer]) -> tuple[str, ...] | None:
    """The regions to heed; None when they are told and all offers lie elsewhere."""
    if not incident.regions:
        return ()
    told = {_plain(r) for r in incident.regions}
    lies = [o.region is None or _plain(o.region) in told for o in offers]
    return incident.regions if any(lies) or not offers else None


def _named(texts: Iterable[str], offers: Sequence[Offer]) -> set[str]:
    names: dict[str, set[str]] = {}
    for offer in offers:
        for name in (offer.model, offer.wire_model.rpartition("/")[2]):
            words = _words(name)
            if any(c.isdigit() for c in words) or " " in words:
                names.setdefault(words, set()).add(offer.model)
    found: set[str] = set()
    for text in texts:
        left = f" {_words(text)} "
        for name in sorted(names, key=len, reverse=True):
            if f" {name} " in left:
                found |= names[name]
                left = left.replace(f" {name} ", " | ")
    return found


def _like(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _plain(region: str) -> str:
    return re.sub(r"[^a-z0-9]", "", region.lower())
