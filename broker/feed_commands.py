"""`broker feed list|test|run|confirm`: status pages and price lists, from the shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from bidding.errors import MarketError
from broker import logs, services
from broker.config import Settings, load

app = typer.Typer(help="Status pages and price lists: what the market says.", no_args_is_help=True)
_out = Console()
_err = Console(stderr=True)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file (or JSON).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]


@app.command("list")
def list_feeds(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Every feed known, and whether it is polled."""
    from broker.feed_desk import listing

    rows = listing(_settings(config).feeds)
    if json:
        _print_json({"feeds": rows})
        return
    table = Table("feed", "of", "provider", "format", "polled", "address")
    for row in rows:
        polled = f"every {row['poll_s']:g} s" if row["enabled"] else ""
        table.add_row(
            row["id"],
            row["of"],
            row["provider"],
            row["format"],
            polled,
            row["url"],
            end_section=False,
        )
    _out.print(table)


@app.command("test")
def fetch_once(
    feed: Annotated[str, typer.Argument(help="Its id, as `broker feed list` shows it.")],
    url: Annotated[str | None, typer.Option(help="Fetch this address instead.")] = None,
    private: Annotated[
        bool, typer.Option(help="It may lie at an address of this network.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch a feed once and tell what was understood; nothing is put on the log."""
    from broker.feed_desk import understood

    settings = _settings(config)
    try:
        told = uvloop.run(understood(settings, feed, url=url, private=private))
    except MarketError as error:
        if json:
            _print_json({"feed": feed, "understood": False, "error": str(error)})
        _err.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(1) from error
    if json:
        _print_json(told)
        return
    _out.print(f"{told['feed']} ({told['format']}), {told['n_bytes']} bytes")
    for line in told["lines"]:
        _out.print(f"  {line}", highlight=False)
    for line in told["skipped"]:
        _out.print(f"  [yellow]skipped[/] {line}", highlight=False)


@app.command()
def run(config: ConfigOption = None) -> None:
    """Poll every feed that is configured, until stopped."""
    settings = _settings(config)
    try:
        uvloop.run(services.feed(settings))
    except MarketError as error:
        _err.print(str(error), highlight=False)
        raise typer.Exit(2) from error


@app.command()
def confirm(
    offer: Annotated[str, typer.Argument(help="The offer whose held price is right.")],
    source: Annotated[str, typer.Option(help="Who reported it, where several did.")] = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Put a price that is held back in force."""
    from broker.feed_desk import confirmed

    try:
        record = uvloop.run(confirmed(_settings(config), offer, source))
    except MarketError as error:
        _err.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(1) from error
    if json:
        _print_json(record)
    else:
        _out.print(f"{offer}: in force", highlight=False)


def _settings(config: Path | None) -> Settings:
    try:
        settings = load(config, os.environ)
    except MarketError as error:
        _err.print(str(error), highlight=False)
        raise typer.Exit(2) from error
    logs.configure(settings.log_level)
    return settings


def _print_json(value: Any) -> None:
    typer.echo(msgspec.json.encode(value).decode())
