"""Prompts, where an operator chose to keep those of a tenant: sealed before they leave the process.

By default nothing of a prompt is kept anywhere. For the tenants named in `[privacy]`, the request
as the app sent it is compressed and encrypted (Fernet: AES-128-CBC with HMAC-SHA256) and goes by a
topic of its own into a table of its own, which analysts do not see and whose contents are erased
at their time. Whoever reads the log, the spool's file or the store finds ciphertext.

Keys rotate by being listed: the first seals, every one opens. A key may be dropped once what it
sealed has expired, and dropping it makes that unreadable everywhere at once, backups included.
"""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from bidding.errors import MarketError
from feeds.clock import Clock
from feeds.records import DecisionRecord, PromptRecord

logger = logging.getLogger(__name__)

FILE: Final = "file:"
_US_PER_DAY: Final = 86_400_000_000
_LARGEST_OPENED: Final = 64 * 1024 * 1024


class PrivacySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose prompts are kept, under which keys, for how long.

    Attributes
    ----------
    keep_prompts_of : tenants; nobody unless named
    prompt_keys : Fernet keys, or `file:PATH` of one a line; the first seals, all of them open
    prompt_ttl_days : when what was kept is erased; the log keeps it a day at most
    most_prompt_bytes : a larger request is not kept
    """

    keep_prompts_of: list[str] = []
    prompt_keys: list[str] = []
    prompt_ttl_days: Annotated[int, Meta(ge=2, le=3650)] = 30
    most_prompt_bytes: Annotated[int, Meta(ge=1024, le=2_000_000)] = 262_144


class VaultFault(MarketError):
    """Prompts cannot be sealed or opened as configured; the message says what to change."""


class Vault:
    """Seals and opens.

    Raises
    ------
    VaultFault
        No key, one that is none, or `cryptography` is not installed.
    """

    def __init__(self, settings: PrivacySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._tenants = frozenset(settings.keep_prompts_of)
        self._fernet = _fernet(settings.prompt_keys)

    def keeps(self, tenant: str) -> bool:
        """Whether this tenant's prompts are kept."""
        return tenant in self._tenants

    def seal(self, record: DecisionRecord, body: bytes) -> PromptRecord | None:
        """The request of a decision, sealed; None where it is too large."""
        if len(body) > self._settings.most_prompt_bytes:
            return None
        now_us = self._clock.now_us()
        return PromptRecord(
            decision_id=record.decision_id,
            tenant=record.tenant,
            session=record.session,
            at_us=now_us,
            expires_at_us=now_us + self._settings.prompt_ttl_days * _US_PER_DAY,
            body=self._fernet.encrypt(zlib.compress(body)).decode("ascii"),
        )

    def open(self, sealed: str) -> bytes:
        """What was sealed.

        Raises
        ------
        VaultFault
            None of the keys fits, or it was tampered with.
        """
        from cryptography.fernet import InvalidToken

        try:
            inflate = zlib.decompressobj()
            return inflate.decompress(self._fernet.decrypt(sealed.encode()), _LARGEST_OPENED)
        except (InvalidToken, zlib.error, ValueError) as error:
            raise VaultFault("no key in prompt_keys opens this prompt") from error


def vault_of(settings: PrivacySettings, clock: Clock) -> Vault | None:
    """The vault, where somebody's prompts are to be kept. Raises `VaultFault`."""
    return Vault(settings, clock) if settings.keep_prompts_of else None


def _fernet(given: list[str]) -> Any:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as error:
        raise VaultFault("privacy.prompt_keys: install the extra [privacy]") from error
    keys = [key for text in given for key in _keys_in(text)]
    if not keys:
        raise VaultFault("privacy.prompt_keys: missing; make one with `broker prompt-key`")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError as error:
        raise VaultFault("privacy.prompt_keys: one is no Fernet key (32 bytes, base64)") from error


def _keys_in(text: str) -> list[str]:
    if not text.startswith(FILE):
        return [text]
    path = Path(text.removeprefix(FILE))
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise VaultFault(f"privacy.prompt_keys: {path} cannot be read") from error


def new_prompt_key() -> str:
    """A fresh key."""
    from cryptography.fernet import Fernet

    key: bytes = Fernet.generate_key()
    return key.decode()
