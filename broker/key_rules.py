"""What a key's policy makes of a request: the SLA it asks by default, the models it may buy. Pure.

A request may ask for more than its key's default and for other targets, but never loosen its
compliance rules nor buy what the key may not: what holds is the stricter of both.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from bidding.columns import OfferColumns
from bidding.request import Compliance, Sla
from broker.errors import ModelNotAllowed
from feeds.control_records import KeyPolicy

_DEFAULTS: Final = Sla()


def merged_sla(asked: Sla | None, own: Sla | None) -> Sla | None:
    """The request's SLA, what it leaves open filled in from the key's.

    Examples
    --------
    >>> both = merged_sla(Sla(quality=0.9), Sla(ttft_ms=500, compliance=Compliance(zdr=True)))
    >>> (both.quality, both.ttft_ms, both.compliance.zdr)
    (0.9, 500, True)
    """
    if own is None or asked is None:
        return asked if own is None else own
    filled = {
        name: getattr(own, name)
        for name in Sla.__struct_fields__
        if name != "compliance" and getattr(asked, name) == getattr(_DEFAULTS, name)
    }
    both = _stricter(asked.compliance, own.compliance)
    return msgspec.structs.replace(asked, compliance=both, **filled)


def _stricter(asked: Compliance, own: Compliance) -> Compliance:
    """Both rules at once. Regions that exclude each other leave none, which no offer is in."""
    regions = asked.regions or own.regions
    if asked.regions and own.regions:
        regions = tuple(r for r in asked.regions if r in own.regions) or ("none",)
    return Compliance(
        regions=regions,
        zdr=asked.zdr or own.zdr,
        no_training=asked.no_training or own.no_training,
        pii=asked.pii or own.pii,
        # What is allowed by names is intersected where offers are known: `allowed_names`.
        allow=asked.allow or own.allow,
        deny=tuple(dict.fromkeys((*asked.deny, *own.deny))),
    )


def restricted(
    sla: Sla, policy: KeyPolicy, candidates: tuple[str, ...] | None, offers: OfferColumns
) -> Sla:
    """`sla` with its allow-list narrowed to what the key may buy.

    Raises
    ------
    ModelNotAllowed
        None of the candidates the request names may be bought with this key.
    """
    lists = [sla.compliance.allow, policy.models]
    if policy.sla is not None:
        lists.append(policy.sla.compliance.allow)
    named = [names for names in dict.fromkeys(lists) if names]
    if not policy.models and len(named) < 2:
        return sla
    mask = np.ones(len(offers), dtype=bool)
    for names in named:
        mask &= offers.named(names)
    if candidates is not None and not (mask & offers.named(candidates)).any():
        raise ModelNotAllowed(f"this key may not use {', '.join(map(repr, candidates))}")
    ids = tuple(o for o, kept in zip(offers.offer_ids, mask.tolist(), strict=True) if kept)
    allow = named[0] if len(named) == 1 else ids or ("none",)
    compliance = msgspec.structs.replace(sla.compliance, allow=allow)
    return msgspec.structs.replace(sla, compliance=compliance)
