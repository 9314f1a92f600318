"""`broker source list|mute|unmute`: who pushes telemetry and is not heard."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from bidding.errors import MarketError
from broker import source_desk
from broker.config import Settings
from broker.key_commands import seconds_of, whoever
from feeds.clock import SystemClock

app = typer.Typer(help="Sources of pushed telemetry: muted, heard again.", no_args_is_help=True)
_out = Console()
_err = Console(stderr=True)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file (or JSON).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
SourceArgument = Annotated[str, typer.Argument(help="Its name, as `broker source list` shows it.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, kept with the record.")]


@app.command("list")
def list_sources(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Every source that was ever muted: since when, until when, and what it claimed."""
    settings = _settings(config)
    rows = _asked(source_desk.listing(settings.kafka, SystemClock().now_us()), json)
    if json:
        _print({"sources": rows})
        return
    table = Table("source", "muted", "since", "until", "by", "offer", "claimed", "seen", "why")
    for row in rows:
        table.add_row(
            row["source"],
            "yes" if row["muted"] else "",
            _when(row["at_us"]),
            _when(row["until_us"]),
            row["by"],
            row["offer"],
            f"{row['claimed_fail_share']:.0%}, {row['claimed_ttft_ms']:.0f} ms",
            f"{row['own_fail_share']:.0%}, {row['own_ttft_ms']:.0f} ms",
            row["why"],
        )
    _out.print(table)


@app.command()
def mute(
    source: SourceArgument,
    why: WhyOption,
    for_: Annotated[str, typer.Option("--for", help="30m, 24h, 7d.")] = "24h",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Hear a source no longer, for a while; all it said is gone with the next quotes."""
    settings = _settings(config)

    async def work() -> dict[str, Any]:
        return await source_desk.mute(
            settings.kafka,
            source,
            now_us=SystemClock().now_us(),
            for_s=seconds_of(for_),
            by=whoever(),
            why=why,
        )

    row = _asked(work(), json)
    _tell(row, f"{source}: not heard until {_when(row['until_us'])}", json)


@app.command()
def unmute(
    source: SourceArgument, why: WhyOption, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Hear a source again, judged afresh."""
    settings = _settings(config)
    now_us = SystemClock().now_us()
    work = source_desk.unmute(settings.kafka, source, now_us=now_us, by=whoever(), why=why)
    _tell(_asked(work, json), f"{source}: heard again", json)


def _asked(work: Coroutine[Any, Any, Any], json: bool) -> Any:
    try:
        return uvloop.run(work)
    except MarketError as error:
        if json:
            _print({"error": str(error)})
        _err.print(str(error), style="red", highlight=False, markup=False)
        raise typer.Exit(1) from error


def _tell(row: dict[str, Any], words: str, json: bool) -> None:
    if json:
        _print(row)
    else:
        _out.print(words, highlight=False, markup=False)


def _settings(config: Path | None) -> Settings:
    from broker.cli import settings_from

    return settings_from(config)


def _when(at_us: int) -> str:
    if not at_us:
        return ""
    return datetime.fromtimestamp(at_us * 1e-6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _print(value: Any) -> None:
    typer.echo(msgspec.json.encode(value).decode())
