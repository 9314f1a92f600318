"""What operators set: live params, keys and their policies, the catalogue.

One Struct a fact, as `feeds.records` has it of requests.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from bidding.market import Catalogue
from bidding.request import Sla
from feeds.records import Int64, TimestampUs, Written


class ParamsRecord(Written, tag_field="kind", tag="params/1", kw_only=True):
    """A version of the live parameters (topic `control.params`, key scope, compacted).

    Of the scope `global` the newest version is in force. Of the scopes `shadow` and `canary` the
    newest record says what is tried, until one with another event. Versions and revisions are
    numbered over all scopes. `share` and `tenant` say whose requests a trial concerns, `until_us`
    when it ends by itself, and `found`, as JSON, what an end was based on.
    """

    scope: str
    version: Int64
    at_us: TimestampUs
    by: str
    why: str
    params: str
    revision: Int64 = 0
    event: Literal["", "set", "shadow", "canary", "promote", "rollback", "end"] = ""
    share: float = 0.0
    tenant: str = ""
    found: str = ""
    until_us: TimestampUs = 0


_Usd = Annotated[float, Meta(ge=0.0, le=1e9)]
_Limit = Annotated[int, Meta(gt=0, le=10**12)]


class KeyPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may do and asks for by default; None or empty: no limit of its own.

    `sla` fills in what requests leave open; its compliance rules bind whatever a request says.
    `models` are the models, offers or providers it may buy. Budgets run by UTC day and month,
    limits over any 60 seconds; `limit_tpm` counts tokens in and out. `cache_age_s` turns the
    exact response cache on for the key, `cache_any` also for requests that are not
    deterministic. `trim` lets conversations that fit nowhere be shortened, oldest turns first.
    `source` names whoever pushes telemetry with the key (empty: its tenant), and `trust` is what
    an event of theirs weighs against one of our own. `public_key` (Ed25519, base64) is what the
    spot asks of a seller's key are checked with; it may ask for the offers in `models`.
    """

    sla: Sla | None = None
    models: tuple[str, ...] = ()
    budget_day_usd: _Usd | None = None
    budget_month_usd: _Usd | None = None
    limit_rpm: _Limit | None = None
    limit_tpm: _Limit | None = None
    cache_age_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    cache_any: bool = False
    trim: bool = False
    source: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    trust: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.3
    public_key: Annotated[str, Meta(pattern=r"^([A-Za-z0-9+/]{43}=)?$")] = ""


class KeyRecord(Written, tag_field="kind", tag="key/1", kw_only=True):
    """An API key, as its SHA-256 only (topic `control.keys`, key id, compacted).

    After a rotation `old_digest` is good as well, until `old_until_us`.
    """

    key_id: str
    digest: str
    tenant: str
    scopes: list[str]
    at_us: TimestampUs
    by: str
    revoked: bool = False
    expires_at_us: TimestampUs | None = None
    label: str = ""
    policy: KeyPolicy = field(default_factory=KeyPolicy)
    old_digest: str = ""
    old_until_us: TimestampUs = 0


class CatalogueRecord(Written, tag_field="kind", tag="catalogue/1", kw_only=True):
    """The whole catalogue, as of now (topic `control.catalogue`, key `catalogue`, compacted).

    With a `digest` it is what a gateway started with, kept under that digest for replays.
    """

    at_us: TimestampUs
    catalogue: Catalogue
    digest: str = ""
