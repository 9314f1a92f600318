"""API keys: who calls, and what for.

Keys are random (192 bits) with a public prefix; only their SHA-256 is kept anywhere. Looking a
key up costs the same whether it exists or not: the digest is computed first and the dictionary
is keyed by the whole digest. Tenant and scopes come from the key, never from a body.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, Literal

from msgspec import Struct

from broker.errors import NotAllowed, NotAuthenticated
from feeds.records import KeyRecord

Scope = Literal["app", "analyst", "ops", "seller"]
SCOPES: Final[tuple[Scope, ...]] = ("app", "analyst", "ops", "seller")
PREFIX: Final = "mmb_"


class Caller(Struct, frozen=True):
    """Whoever holds a key: the tenant it belongs to and what it may do."""

    key_id: str
    tenant: str
    scopes: tuple[str, ...]


def digest_of(key: str) -> str:
    """SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key(
    tenant: str, scopes: tuple[Scope, ...], *, at_us: int, by: str, label: str = ""
) -> tuple[str, KeyRecord]:
    """A fresh key, shown once, and the record that is kept of it."""
    key_id = secrets.token_hex(4)
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(24)}"
    record = KeyRecord(
        key_id=key_id,
        digest=digest_of(key),
        tenant=tenant,
        scopes=list(scopes),
        at_us=at_us,
        by=by,
        label=label,
    )
    return key, record


class KeyRing:
    """All keys known, by digest; fed from configuration and from `control.keys`."""

    def __init__(self) -> None:
        self._by_digest: dict[str, KeyRecord] = {}
        self._digest_of_id: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def apply(self, record: KeyRecord) -> None:
        """Take in a key's newest record; a rotated digest replaces the old one."""
        old = self._digest_of_id.get(record.key_id)
        if old is not None and old != record.digest:
            self._by_digest.pop(old, None)
        self._by_digest[record.digest] = record
        self._digest_of_id[record.key_id] = record.digest

    def caller(self, authorization: str | None, now_us: int) -> Caller:
        """Who sent this `Authorization` header (or bare key).

        Raises
        ------
        NotAuthenticated
            No key, or one that is unknown, revoked or expired; the message never says which key.
        """
        scheme, _, rest = (authorization or "").partition(" ")
        key = rest.strip() if scheme.lower() == "bearer" else (authorization or "").strip()
        record = self._by_digest.get(digest_of(key))
        if not key:
            raise NotAuthenticated("no API key was sent")
        if record is None:
            raise NotAuthenticated("this API key is not known here")
        if record.revoked:
            raise NotAuthenticated("this API key was revoked")
        if record.expires_at_us is not None and now_us >= record.expires_at_us:
            raise NotAuthenticated("this API key has expired")
        return Caller(record.key_id, record.tenant, tuple(record.scopes))


def require(caller: Caller, scope: Scope) -> None:
    """Raise `NotAllowed` unless the caller has `scope`."""
    if scope not in caller.scopes:
        raise NotAllowed(f"this key lacks the scope {scope!r}; it has {', '.join(caller.scopes)}")
