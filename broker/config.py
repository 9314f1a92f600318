"""Settings: a file, then the environment, decoded strictly; all faults listed at once.

`Settings` is a frozen Struct of small Structs, one a concern. An unknown key is a fault that
names it and the nearest right one. The environment overrides with `BROKER__SECTION__KEY`; only
its strings are converted loosely. Nothing else in the project reads the environment. Numbers
that are tuned while running are `bidding.params.Params` instead.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from analytics.store import StoreSettings
from bidding.errors import MarketError
from bidding.probing import ProbeSettings
from broker.public_port import PortSettings
from broker.response_cache import CacheSettings
from broker.shared_state import StateSettings
from broker.tracing import OtelSettings
from broker.vault import PrivacySettings
from broker.verify.webhook import VerifySettings
from feeds.control_records import KeyPolicy, KeyRecord
from feeds.estimate import EstimateSettings
from feeds.feed import FeedSettings
from feeds.kafka import KafkaSettings

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(gt=0)]
PREFIX = "BROKER__"
MASK = "***"
S = TypeVar("S", bound=Struct)


class ConfigError(MarketError):
    """The configuration cannot be used; `faults` lists everything wrong with it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("configuration refused:\n" + "\n".join(f"  - {f}" for f in faults))
        self.faults = faults


class GatewaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The public port and what it bears."""

    host: str = "127.0.0.1"
    port: Port = 8080
    max_body_bytes: Count = 1_048_576
    max_telemetry_bytes: Count = 16_777_216
    """Of a body of pushed telemetry, decompressed."""
    body_timeout_s: Seconds = 30.0
    max_in_flight: Count = 2000
    default_deadline_s: Seconds = 600.0
    view_interval_s: Seconds = 0.05
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    recent_decisions: Count = 20_000
    prompt_features: bool = True
    """Whether numbers that tell how hard a prompt is are read from it, bid on and recorded."""
    shadow_time_share: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.05
    """Most of a process's time that goes into what other params would have bought."""
    connections: PortSettings = field(default_factory=PortSettings)
    admin_url: Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+)?$")] = ""
    """Where people's browsers reach the admin port, for the market page; empty: no params there."""


class AdminSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operators' port. `page_origin` is where browsers find the market page; empty: the
    gateway's own address.
    """

    host: str = "127.0.0.1"
    port: Port = 8081
    page_origin: Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+)?$")] = ""


class AnalystSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The analysts' read-only way into ClickHouse."""

    username: str = "analyst"
    password: str = ""


class MetricsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Prometheus reads the services that have no port of their own; 0: nowhere."""

    host: str = "127.0.0.1"
    recorder_port: Port = 0


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that is in force from the start, as the SHA-256 of it."""

    id: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    tenant: str
    scopes: list[str]
    policy: KeyPolicy = field(default_factory=KeyPolicy)

    def record(self) -> KeyRecord:
        """The same as a record: older than any that the log holds."""
        return KeyRecord(
            key_id=self.id,
            digest=self.sha256,
            tenant=self.tenant,
            scopes=self.scopes,
            at_us=0,
            by="configuration",
            policy=self.policy,
        )


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is fixed for the life of a process."""

    data_dir: str = ".broker"
    catalogue: str = ""
    log_level: str = "info"
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    analyst: AnalystSettings = field(default_factory=AnalystSettings)
    probes: ProbeSettings = field(default_factory=ProbeSettings)
    estimate: EstimateSettings = field(default_factory=EstimateSettings)
    feeds: FeedSettings = field(default_factory=FeedSettings)
    state: StateSettings = field(default_factory=StateSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    otel: OtelSettings = field(default_factory=OtelSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    keys: list[KeySettings] = []
    provider_keys: dict[str, str] = {}


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Settings from a TOML file (JSON by its ending; or none) and the environment.

    Raises
    ------
    ConfigError
        Listing every fault: a file that is no TOML, unknown keys with the nearest right one,
        wrong types, values out of bounds.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            data = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}"]) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.DecodeError) as error:
            raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    faults: list[str] = []
    settings = _struct(Settings, data, "", faults, strict=True)
    override: dict[str, Any] = {}
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX):
            _put(override, name.removeprefix(PREFIX).lower().split("__"), value, name, faults)
    merged = _merged(data, override)
    if override:
        _struct(Settings, override, "", faults, strict=False)
        settings = _struct(Settings, merged, "", [], strict=False)
    if faults:
        raise ConfigError(faults)
    return settings


def masked(settings: Settings) -> dict[str, Any]:
    """The settings for the log, every secret replaced."""
    shown: dict[str, Any] = msgspec.to_builtins(settings)
    secrets = (("store", "password"), ("analyst", "password"), ("kafka", "password"))
    for section, secret in secrets:
        if shown[section][secret]:
            shown[section][secret] = MASK
    if "@" in shown["state"]["url"]:
        shown["state"]["url"] = MASK
    shown["otel"]["headers"] = dict.fromkeys(shown["otel"]["headers"], MASK)
    shown["privacy"]["prompt_keys"] = [MASK] * len(shown["privacy"]["prompt_keys"])
    shown["provider_keys"] = dict.fromkeys(shown["provider_keys"], MASK)
    return shown


def analyst_store(settings: Settings) -> StoreSettings:
    """The store as an analyst may see it."""
    return msgspec.structs.replace(
        settings.store, username=settings.analyst.username, password=settings.analyst.password
    )


def _struct(
    kind: type[S], data: Mapping[str, Any], path: str, faults: list[str], *, strict: bool
) -> S:
    """`data` as `kind`, one field at a time, so that every fault is found."""
    values: dict[str, Any] = {}
    fields = {f.name: f for f in msgspec.structs.fields(kind)}
    for name in data:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {path}{near[0]}?" if near else ""
            faults.append(f"{path}{name}: unknown key{hint}")
    for name, info in fields.items():
        if name not in data:
            continue
        where = f"{path}{name}"
        if isinstance(info.type, type) and issubclass(info.type, Struct):
            if isinstance(data[name], Mapping):
                values[name] = _struct(info.type, data[name], f"{where}.", faults, strict=strict)
            else:
                faults.append(f"{where}: expected a table, got {data[name]!r}")
            continue
        try:
            values[name] = msgspec.convert(data[name], info.type, strict=strict)
        except msgspec.ValidationError as error:
            faults.append(f"{where}: {error}, got {data[name]!r}")
    missing = [n for n, f in fields.items() if f.required and n not in values and n not in data]
    faults.extend(f"{path}{name}: missing" for name in missing)
    return kind(**values) if not missing else kind()


def _put(into: dict[str, Any], names: list[str], value: str, shown: str, faults: list[str]) -> None:
    section = into
    for name in names[:-1]:
        below: Any = section.setdefault(name, {})
        if not isinstance(below, dict):
            faults.append(f"{shown}: sets a value and a table of the same name")
            return
        section = below
    section[names[-1]] = value


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged
