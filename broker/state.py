"""The shared state that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from broker.config import ConfigError, Settings
from broker.shared_state import SharedState
from broker.state_redis import RedisState
from broker.state_sqlite import SqliteState


def open_state(settings: Settings) -> SharedState:
    """The backend, not started yet.

    Raises
    ------
    ConfigError
        Redis without its address, or without its extra.
    """
    if settings.state.kind == "sqlite":
        return SqliteState(Path(settings.data_dir) / settings.state.path, settings.state)
    if not settings.state.url:
        raise ConfigError(["state.url: missing; name the Redis, as redis://host:port/0"])
    try:
        return RedisState(settings.state)
    except ImportError as error:
        raise ConfigError(["state.kind: redis needs the extra: model-market-broker[redis]"]) from (
            error
        )
