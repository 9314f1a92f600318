"""The market's history in a notebook: a clickhouse-connect client of the read-only account.

    import analytics

    ch = analytics.client()      # of the broker running here; or client("broker.toml")
    ch.query("SELECT count() FROM attempts").first_row
    ch.query_df("SELECT * FROM offer_minutes")                                     # pandas
    ch.query_df_arrow("SELECT * FROM offer_minutes", dataframe_library="polars")   # polars

The client is clickhouse-connect's own, with all it can do; only address and account are filled
in. Frames need the extra `[notebook]`. Nobody needs the writer's password for this: of a
configuration, only `[store]`'s address and `[analyst]` are used.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
import msgspec
from clickhouse_connect.driver.client import Client
from msgspec import Struct, field

from analytics.errors import StoreRejected, StoreUnavailable
from analytics.store import DRIVER_ERRORS, StoreSettings, mapped

CONFIG_VARIABLE: Final = "BROKER_CONFIG"
_PREFIX: Final = "BROKER__"
_SECTIONS: Final = ("store", "analyst")
_LONGEST_ANSWER_S: Final = 600


class _Analyst(Struct, frozen=True):
    username: str = "analyst"
    password: str = ""


class _Config(Struct, frozen=True):
    """What we need of a broker's configuration; the rest is not read."""

    store: StoreSettings = field(default_factory=StoreSettings)
    analyst: _Analyst = field(default_factory=_Analyst)


def client(config: str | Path | None = None, **more: Any) -> Client:
    """A clickhouse-connect client that may read the market's views and nothing else.

    Parameters
    ----------
    config : the broker's configuration, TOML or JSON. Without one: the file that the environment
        variable BROKER_CONFIG names, `broker.toml` or `broker.json` in this folder, or that of the
        newest `broker up` of this user on this machine. `BROKER__STORE__…` and `BROKER__ANALYST__…`
        of the environment count before the file.
    more : handed on to `clickhouse_connect.get_client`

    Raises
    ------
    StoreUnavailable
        No broker was found, or its store does not answer.
    StoreRejected
        The configuration cannot be read, or the password is wrong.
    """
    return connect(analyst_settings(config, os.environ), **more)


def connect(settings: StoreSettings, **more: Any) -> Client:
    """The client at `settings`, whose account is the analyst's; errors as `client`."""
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "username": settings.username,
        "password": settings.password,
        "interface": "https" if settings.secure else "http",
        "database": settings.database,
        "connect_timeout": settings.connect_timeout_s,
        "send_receive_timeout": _LONGEST_ANSWER_S,
        "compress": settings.secure,
        "tz_mode": "aware",
    }
    try:
        return clickhouse_connect.get_client(**{**options, **more})
    except DRIVER_ERRORS as error:
        raise mapped(error, f"connecting to {settings.host}:{settings.port}") from error


def analyst_settings(config: str | Path | None, environ: Mapping[str, str]) -> StoreSettings:
    """Where the store is, and the analyst's account, from a file and the environment.

    Raises
    ------
    StoreUnavailable, StoreRejected
        As `client`.
    """
    told = _told(environ)
    path = Path(config) if config is not None else _found(environ)
    if path is None and not told:
        raise StoreUnavailable(
            "no broker found: start one with `broker up`, or name its configuration,"
            f' client("broker.toml") or {CONFIG_VARIABLE}'
        )
    data = {} if path is None else _read(path)
    merged = {name: {**data.get(name, {}), **told.get(name, {})} for name in _SECTIONS}
    try:
        found = msgspec.convert(merged, _Config, strict=False)
    except msgspec.ValidationError as error:
        raise StoreRejected(f"{path or 'environment'}: {error}") from error
    return msgspec.structs.replace(
        found.store, username=found.analyst.username, password=found.analyst.password
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise StoreRejected(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise StoreRejected(f"{path}: cannot be read: {error}") from error
    return data if isinstance(data, dict) else {}


def _told(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = {}
    for name, value in environ.items():
        section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
        if name.startswith(_PREFIX) and section in _SECTIONS and key:
            told.setdefault(section, {})[key] = value
    return told


def _found(environ: Mapping[str, str]) -> Path | None:
    """The configuration to use where none was named."""
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named)
    for here in (Path("broker.toml"), Path("broker.json")):
        if here.is_file():
            return here
    running = []
    for path in Path(tempfile.gettempdir()).glob("broker-*/broker.json"):
        status = path.stat()
        if status.st_uid == os.getuid():
            running.append((status.st_mtime, path))
    return max(running)[1] if running else None
