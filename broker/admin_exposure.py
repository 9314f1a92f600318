"""Who reaches the operators' port: browsers from one origin, other machines only with keys."""

from __future__ import annotations

import ipaddress

from broker.config import ConfigError, Settings
from feeds.compacted import latest
from feeds.control_records import KeyRecord
from feeds.topics import KEYS


def page_origin(settings: Settings) -> str:
    """Where browsers load the market page from."""
    gateway = settings.gateway
    host = f"[{gateway.host}]" if ":" in gateway.host else gateway.host
    return settings.admin.page_origin or f"http://{host}:{gateway.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; a name other than localhost is not believed."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine while nobody could be told from anybody.

    Raises
    ------
    ConfigError
        No key, configured or on the log, has the scope ops.
    """
    if is_loopback(settings.admin.host) or any("ops" in k.scopes for k in settings.keys):
        return
    for record, _ in (await latest(settings.kafka, KEYS)).values():
        if isinstance(record, KeyRecord) and "ops" in record.scopes and not record.revoked:
            return
    raise ConfigError(
        [
            f"admin.host: {settings.admin.host} is not loopback and no key has the scope ops; "
            "make one with `broker key create --scope ops`"
        ]
    )
