"""`broker key create|list|rotate|revoke`: keys as records on the log, acknowledged before shown.

A key is in force on every gateway as soon as they have read its record, which takes a fraction of
a second. A revocation is written to the shared state first, where gateways look twice a second, so
that it holds even while the log is away.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bidding.errors import MarketError
from broker.auth import PREFIX, SCOPES, Scope, new_key, rotated
from broker.config import Settings
from broker.state import open_state
from feeds.clock import SystemClock
from feeds.compacted import latest
from feeds.control_records import KeyPolicy, KeyRecord
from feeds.errors import FeedError, LogRefused, LogUnavailable
from feeds.kafka import KafkaSettings
from feeds.producer import LogProducer
from feeds.topics import KEYS

app = typer.Typer(help="API keys: made, listed, renewed, taken back.", no_args_is_help=True)
_out = Console()
_err = Console(stderr=True)
T = TypeVar("T")
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file (or JSON).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class KeyFault(MarketError):
    """The command cannot be carried out; the message says what to change."""


def seconds_of(text: str) -> float:
    """A time span in words.

    Examples
    --------
    >>> seconds_of("90s"), seconds_of("1.5h")
    (90.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        raise KeyFault(f"{text!r} is no time span; write 30s, 15m, 24h or 90d")
    return float(found[1]) * _UNITS_S[found[2]]


async def create_key(
    settings: Settings,
    tenant: str,
    scopes: tuple[Scope, ...],
    *,
    policy: KeyPolicy,
    label: str = "",
    expires_s: float | None = None,
) -> tuple[str, KeyRecord]:
    """A new key and its record, once the log has it. Raises `FeedError`."""
    now_us = SystemClock().now_us()
    key, record = new_key(
        tenant,
        scopes,
        at_us=now_us,
        by=whoever(),
        label=label,
        expires_at_us=None if expires_s is None else now_us + round(expires_s * 1e6),
        policy=policy,
    )
    await _publish(settings.kafka, record)
    return key, record


async def all_keys(settings: Settings) -> list[KeyRecord]:
    """Every key: the configuration's and the log's, the log's word before the configuration's,
    and what the shared state holds as revoked. Raises `FeedError`.
    """
    found = {held.id: held.record() for held in settings.keys}
    for record, _ in (await latest(settings.kafka, KEYS)).values():
        if isinstance(record, KeyRecord):
            found[record.key_id] = record
    state = open_state(settings)
    await state.start()
    try:
        revoked = await state.revoked()
    finally:
        await state.close()
    return [
        msgspec.structs.replace(r, revoked=True) if r.key_id in revoked else r
        for _, r in sorted(found.items())
    ]


async def rotate_key(settings: Settings, key_id: str, overlap_s: float) -> tuple[str, KeyRecord]:
    """A new secret for a key; the old one stays good for `overlap_s`. Raises `FeedError`."""
    record = await _known(settings, key_id)
    if record.revoked:
        raise KeyFault(f"key {key_id} was revoked; make a new one")
    key, renewed = rotated(
        record,
        at_us=SystemClock().now_us(),
        by=whoever(),
        overlap_us=round(overlap_s * 1e6),
    )
    await _publish(settings.kafka, renewed)
    return key, renewed


async def revoke_key(settings: Settings, key_id: str) -> bool:
    """Take a key back; whether the log has been told already (if not, a gateway will).

    Raises
    ------
    StateUnavailable
        Nothing was revoked.
    KeyFault
        There is no such key.
    """
    now_us, by = SystemClock().now_us(), whoever()
    try:
        record = await _known(settings, key_id)
    except LogUnavailable:
        record = None
    state = open_state(settings)
    await state.start()
    try:
        await state.revoke(key_id, now_us, by)
        if record is None:
            return False
        try:
            revoked = msgspec.structs.replace(record, revoked=True, at_us=now_us, by=by)
            await _publish(settings.kafka, revoked)
        except LogUnavailable:
            return False
        await state.untell(key_id)
        return True
    finally:
        await state.close()


async def _known(settings: Settings, key_id: str) -> KeyRecord:
    for record in await all_keys(settings):
        if record.key_id == key_id:
            return record
    raise KeyFault(f"no key {key_id!r}; `broker key list` shows them")


async def _publish(kafka: KafkaSettings, record: KeyRecord) -> None:
    producer = LogProducer(kafka)
    try:
        await producer.publish(KEYS, [record])
    finally:
        await producer.close()


def whoever() -> str:
    """Who runs the command, as records name them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Who it is for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="app, analyst, ops, seller, telemetry.")
    ] = None,
    label: Annotated[str, typer.Option(help="A word to know it by.")] = "",
    expires: Annotated[str | None, typer.Option(help="After 30s, 15m, 24h, 90d.")] = None,
    policy: Annotated[
        str, typer.Option(help="JSON: sla, models, budget_day_usd, budget_month_usd, limit_rpm …")
    ] = "{}",
    budget_day_usd: Annotated[float | None, typer.Option(help="Most a UTC day may cost.")] = None,
    budget_month_usd: Annotated[float | None, typer.Option(help="Most a UTC month may cost.")] = (
        None
    ),
    limit_rpm: Annotated[int | None, typer.Option(help="Requests within 60 s.")] = None,
    limit_tpm: Annotated[int | None, typer.Option(help="Tokens within 60 s.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="What it may buy; repeat.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key. It is shown once; only its SHA-256 is kept."""
    given = {
        "budget_day_usd": budget_day_usd,
        "budget_month_usd": budget_month_usd,
        "limit_rpm": limit_rpm,
        "limit_tpm": limit_tpm,
        "models": model,
    }
    stated = {name: value for name, value in given.items() if value}

    async def make() -> tuple[str, KeyRecord]:
        try:
            said = msgspec.json.decode(policy, type=dict[str, Any])
            wanted = msgspec.convert({**said, **stated}, KeyPolicy)
        except msgspec.DecodeError as error:
            raise KeyFault(f"--policy: {error}") from error
        unknown = sorted(set(scope or ["app"]) - set(SCOPES))
        if unknown:
            raise KeyFault(f"unknown scopes {unknown}; choose from {', '.join(SCOPES)}")
        scopes = tuple(s for s in SCOPES if s in (scope or ["app"]))
        span_s = None if expires is None else seconds_of(expires)
        return await create_key(
            _settings(config), tenant, scopes, policy=wanted, label=label, expires_s=span_s
        )

    key, record = _carried_out(make())
    _show_key(key, record, json)


@app.command("list")
def list_keys(config: ConfigOption = None, json: JsonOption = False) -> None:
    """All keys, by their public prefix."""
    records = _carried_out(all_keys(_settings(config)))
    if json:
        typer.echo(msgspec.json.encode({"keys": [_shown(r) for r in records]}).decode())
        return
    table = Table("key", "tenant", "scopes", "label", "state", "policy")
    now_us = SystemClock().now_us()
    for record in records:
        table.add_row(
            f"{PREFIX}{record.key_id}…",
            record.tenant,
            " ".join(record.scopes),
            record.label,
            _state(record, now_us),
            msgspec.json.encode(_stated(record.policy)).decode(),
        )
    _out.print(table)


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="The hexadecimal digits after mmb_.")],
    overlap: Annotated[str, typer.Option(help="How long the old secret stays good.")] = "24h",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Give a key a new secret; budgets, limits and id stay."""
    key, record = _carried_out(rotate_key(_settings(config), key_id, seconds_of(overlap)))
    _show_key(key, record, json)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The hexadecimal digits after mmb_.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Take a key back for good; gateways refuse it within a second."""
    on_log = _carried_out(revoke_key(_settings(config), key_id))
    if json:
        typer.echo(msgspec.json.encode({"revoked": key_id, "on_log": on_log}).decode())
    elif on_log:
        _out.print(f"{PREFIX}{key_id} is revoked")
    else:
        _out.print(f"{PREFIX}{key_id} is revoked; the log is away and will be told by a gateway")


def _settings(config: Path | None) -> Settings:
    from broker.cli import settings_from

    return settings_from(config)


def _carried_out(work: Coroutine[Any, Any, T]) -> T:
    import uvloop

    try:
        return uvloop.run(work)
    except (LogUnavailable, LogRefused) as error:
        _err.print(f"[red]nothing was changed: the log did not take it:[/] {error}")
    except (FeedError, MarketError) as error:
        _err.print(f"[red]{error}[/]", highlight=False)
    raise typer.Exit(1)


def _show_key(key: str, record: KeyRecord, json: bool) -> None:
    if json:
        typer.echo(msgspec.json.encode({"key": key, **_shown(record)}).decode())
    else:
        _out.print(f"{key}\n", highlight=False, soft_wrap=True)
        _err.print("This is the only time it is shown.")


def _shown(record: KeyRecord) -> dict[str, Any]:
    return {
        "key_id": record.key_id,
        "prefix": f"{PREFIX}{record.key_id}",
        "tenant": record.tenant,
        "scopes": record.scopes,
        "label": record.label,
        "made_at_us": record.at_us,
        "by": record.by,
        "expires_at_us": record.expires_at_us,
        "revoked": record.revoked,
        "policy": _stated(record.policy),
    }


def _stated(policy: KeyPolicy) -> dict[str, Any]:
    """What a policy sets, without what it leaves alone."""
    plain: dict[str, Any] = msgspec.to_builtins(policy)
    usual: dict[str, Any] = msgspec.to_builtins(KeyPolicy())
    return {name: value for name, value in plain.items() if value != usual[name]}


def _state(record: KeyRecord, now_us: int) -> str:
    if record.revoked:
        return "revoked"
    if record.expires_at_us is not None and now_us >= record.expires_at_us:
        return "expired"
    return "in force, old secret too" if record.old_until_us > now_us else "in force"
