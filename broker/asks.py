"""A seller's spot ask: `POST /v1/asks`, a signed body in, a record for the log out.

Whoever sells an offer may ask less than its list price, for a while and for so many tokens. The
body is signed with the seller's Ed25519 key, whose public half is in the policy of its API key,
and the signature is kept beside the very bytes that were signed: months later anyone can tell what
a seller asked. The same body sent twice is the same ask, as its id is that of the signature; one
signed minutes ago is refused, so that an old ask cannot be put in force again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from bidding.asks import lowered
from bidding.book import MarketBook
from bidding.errors import BadRequest
from bidding.market import PriceList
from bidding.units import NUSD_PER_USD
from broker.auth import Caller
from broker.errors import NotAllowed, NotFound
from broker.wire.json_guard import decode_strictly
from feeds.market_records import AskRecord

SIGNATURE: Final = "x-broker-signature"
MAX_BODY_BYTES: Final = 16_384
FRESH_US: Final = 300 * 10**6
MAX_TERM_US: Final = 7 * 86_400 * 10**6
_Usd = Annotated[float, Meta(ge=0.0, le=1e6)]


class AskPrices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dollars per million tokens, and per request; what is left out stays at its list price."""

    input_usd_per_mtok: _Usd | None = None
    output_usd_per_mtok: _Usd | None = None
    cache_read_usd_per_mtok: _Usd | None = None
    request_usd: _Usd | None = None


class AskBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`at_us` is when it was signed; it holds from `from_us` (or then) until `until_us`, for
    `capacity_tokens` in and out (None: any number). One that has ended takes the last one back.
    """

    offer: Annotated[str, Meta(min_length=3, max_length=256)]
    at_us: Annotated[int, Meta(ge=0)]
    until_us: Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)]
    prices: AskPrices
    from_us: Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)] | None = None
    capacity_tokens: Annotated[int, Meta(gt=0, le=10**15)] | None = None


_decoder = msgspec.json.Decoder(AskBody)


def ask_record(
    body: bytes, signature: str, caller: Caller, book: MarketBook, now_us: int
) -> AskRecord:
    """The ask in a body, once it is known to be the seller's own.

    Raises
    ------
    NotAllowed
        The key may not sell, has no public key, or the signature is not its own.
    NotFound
        No such offer, or not one of the seller's.
    BadRequest
        Signed too long ago, ends too late, or asks nothing below the list.
    """
    verify(body, signature, caller)
    said = decode_strictly(
        body, _decoder, [*AskBody.__struct_fields__, *AskPrices.__struct_fields__]
    )
    row = book.offers.row_of.get(said.offer)
    own = caller.policy.models
    if row is None or not own or not book.offers.named(own)[row]:
        raise NotFound(f"no offer {said.offer!r} that this key sells")
    if abs(said.at_us - now_us) > FRESH_US:
        raise BadRequest(
            "the ask was signed more than five minutes away from now",
            path="at_us",
            remedy="sign it anew with the present time",
        )
    from_us = said.at_us if said.from_us is None else said.from_us
    if said.until_us > now_us + MAX_TERM_US:
        raise BadRequest(
            "the ask ends more than seven days from now", path="until_us", remedy="renew it instead"
        )
    listed = book.prices(row)
    prices = _prices(said.prices, listed)
    if said.until_us > now_us and lowered(listed, prices) == listed:
        raise BadRequest(
            "no price of the ask is below the offer's list price",
            path="prices",
            remedy=f"ask less than {listed.input_nusd_per_mtok / NUSD_PER_USD:g} or"
            f" {listed.output_nusd_per_mtok / NUSD_PER_USD:g} USD per million tokens in or out",
        )
    return AskRecord(
        ask_id=f"ask_{hashlib.sha256(signature.encode()).hexdigest()[:24]}",
        offer=said.offer,
        at_us=now_us,
        prices=prices,
        from_us=from_us,
        until_us=said.until_us,
        capacity_tokens=said.capacity_tokens,
        seller=caller.tenant,
        key_id=caller.key_id,
        signature=signature,
        signed=body.decode(),
    )


def verify(body: bytes, signature: str, caller: Caller) -> None:
    """Whether `signature` over `body` is by the private half of the caller's key. Raises
    `NotAllowed`.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not caller.policy.public_key:
        raise NotAllowed("this key has no public key to check an ask with")
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(caller.policy.public_key))
        public.verify(base64.b64decode(signature, validate=True), body)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise NotAllowed(
            f"the signature in {SIGNATURE} is not this key's over this body"
        ) from error


def _prices(asked: AskPrices, listed: PriceList) -> PriceList:
    def nusd(usd: float | None, usual: int) -> int:
        return usual if usd is None else round(usd * NUSD_PER_USD)

    cached = asked.cache_read_usd_per_mtok
    return PriceList(
        input_nusd_per_mtok=nusd(asked.input_usd_per_mtok, listed.input_nusd_per_mtok),
        output_nusd_per_mtok=nusd(asked.output_usd_per_mtok, listed.output_nusd_per_mtok),
        cache_read_nusd_per_mtok=None if cached is None else round(cached * NUSD_PER_USD),
        request_nusd=nusd(asked.request_usd, listed.request_nusd),
    )
