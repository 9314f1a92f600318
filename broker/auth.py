"""API keys: who calls, and what for.

Keys are random (192 bits) with a public prefix; only their SHA-256 is kept anywhere. Looking a
key up costs the same whether it exists or not: the digest is computed first, the dictionary is
keyed by the whole digest, and the comparison takes constant time. Tenant, scopes and policy come
from the key, never from a body.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from msgspec import Struct

from broker.errors import NotAllowed, NotAuthenticated
from feeds.control_records import KeyPolicy, KeyRecord

Scope = Literal["app", "analyst", "ops", "seller", "telemetry"]
SCOPES: Final[tuple[Scope, ...]] = ("app", "analyst", "ops", "seller", "telemetry")
PREFIX: Final = "mmb_"
_NO_DIGEST: Final = "0" * 64
_ANYTHING: Final = KeyPolicy()


class Caller(Struct, frozen=True):
    """Whoever holds a key: the tenant it belongs to, what it may do and asks for by default."""

    key_id: str
    tenant: str
    scopes: tuple[str, ...]
    policy: KeyPolicy = _ANYTHING


def digest_of(key: str) -> str:
    """SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_secret(key_id: str) -> str:
    """A fresh key of this id: its public prefix and 192 random bits."""
    return f"{PREFIX}{key_id}_{secrets.token_urlsafe(24)}"


def new_key(
    tenant: str,
    scopes: tuple[Scope, ...],
    *,
    at_us: int,
    by: str,
    label: str = "",
    expires_at_us: int | None = None,
    policy: KeyPolicy = _ANYTHING,
) -> tuple[str, KeyRecord]:
    """A fresh key, shown once, and the record that is kept of it."""
    key_id = secrets.token_hex(4)
    key = new_secret(key_id)
    record = KeyRecord(
        key_id=key_id,
        digest=digest_of(key),
        tenant=tenant,
        scopes=list(scopes),
        at_us=at_us,
        by=by,
        label=label,
        expires_at_us=expires_at_us,
        policy=policy,
    )
    return key, record


def rotated(record: KeyRecord, *, at_us: int, by: str, overlap_us: int) -> tuple[str, KeyRecord]:
    """A new secret for a key, shown once; the one in use stays good for `overlap_us`."""
    key = new_secret(record.key_id)
    renewed = msgspec.structs.replace(
        record,
        digest=digest_of(key),
        old_digest=record.digest if overlap_us > 0 else "",
        old_until_us=at_us + overlap_us,
        at_us=at_us,
        by=by,
    )
    return key, renewed


class KeyRing:
    """All keys known, by digest; fed from configuration, `control.keys` and the shared state."""

    def __init__(self) -> None:
        self._by_digest: dict[str, KeyRecord] = {}
        self._by_id: dict[str, KeyRecord] = {}
        self._callers: dict[str, Caller] = {}
        self._revoked: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def apply(self, record: KeyRecord) -> None:
        """Take in a key's record, unless a newer one is known."""
        known = self._by_id.get(record.key_id)
        if known is not None:
            if known.at_us > record.at_us:
                return
            for digest in (known.digest, known.old_digest):
                self._by_digest.pop(digest, None)
        self._by_id[record.key_id] = record
        self._by_digest[record.digest] = record
        if record.old_digest:
            self._by_digest[record.old_digest] = record
        self._callers[record.key_id] = Caller(
            record.key_id, record.tenant, tuple(record.scopes), record.policy
        )

    def record(self, key_id: str) -> KeyRecord | None:
        """What is known of a key."""
        return self._by_id.get(key_id)

    def revoke(self, revoked: Mapping[str, int]) -> None:
        """Key ids the shared state holds as revoked, and when: for good, whatever the log says."""
        self._revoked.update(revoked)

    def caller(self, authorization: str | None, now_us: int) -> Caller:
        """Who sent this `Authorization` header (or bare key).

        Raises
        ------
        NotAuthenticated
            No key, or one that is unknown, revoked or expired; the message never says which key.
        """
        scheme, _, rest = (authorization or "").partition(" ")
        key = rest.strip() if scheme.lower() == "bearer" else (authorization or "").strip()
        digest = digest_of(key)
        record = self._by_digest.get(digest)
        is_current = hmac.compare_digest(digest, _NO_DIGEST if record is None else record.digest)
        if not key:
            raise NotAuthenticated("no API key was sent")
        if record is None:
            raise NotAuthenticated("this API key is not known here")
        if not is_current and now_us >= record.old_until_us:
            raise NotAuthenticated("this API key was replaced by a newer one")
        if record.revoked or record.key_id in self._revoked:
            raise NotAuthenticated("this API key was revoked")
        if record.expires_at_us is not None and now_us >= record.expires_at_us:
            raise NotAuthenticated("this API key has expired")
        return self._callers[record.key_id]


def require(caller: Caller, scope: Scope) -> None:
    """Raise `NotAllowed` unless the caller has `scope`."""
    if scope not in caller.scopes:
        raise NotAllowed(f"this key lacks the scope {scope!r}; it has {', '.join(caller.scopes)}")
