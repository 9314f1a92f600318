"""The command line. Every command with `--json` prints one JSON object as its last line and
exits non-zero when what it checks does not hold.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
import uvloop
from rich.console import Console

from bidding.errors import BadRequest, MarketError
from broker import feed_commands, key_commands, logs, services, source_commands, trial_commands
from broker.config import ConfigError, Settings, load, masked
from broker.importing import commands as import_commands

app = typer.Typer(
    help="The exchange where model calls are bought.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file (or JSON).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
_console = Console(stderr=True)
app.add_typer(key_commands.app, name="key")
app.add_typer(trial_commands.params, name="params")
app.add_typer(import_commands.app, name="import")
app.add_typer(feed_commands.app, name="feed")
app.add_typer(source_commands.app, name="source")


def main() -> None:
    """Entry point."""
    app()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end on uvloop."""
    return uvloop.run(work)


def settings_from(config: Path | None) -> Settings:
    """Settings, or the end of the process with all faults listed."""
    try:
        settings = load(config, os.environ)
        logs.configure(settings.log_level)
    except ConfigError as error:
        _console.print(str(error), highlight=False)
        raise typer.Exit(2) from error
    return settings


def print_json(value: Any) -> None:
    """One line of JSON on stdout; infinities become null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(below) for key, below in item.items()}
        if isinstance(item, list | tuple):
            return [plain(below) for below in item]
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    typer.echo(msgspec.json.encode(plain(msgspec.to_builtins(value))).decode())


@app.command()
def serve(
    config: ConfigOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes on the port.")] = None,
) -> None:
    """The gateway: HTTP API, auction, dispatch."""
    from broker.app import serve_workers

    settings = settings_from(config)
    if workers is not None:
        gateway = msgspec.structs.replace(settings.gateway, workers=workers)
        settings = msgspec.structs.replace(settings, gateway=gateway)
    raise typer.Exit(serve_workers(settings))


@app.command()
def admin(config: ConfigOption = None) -> None:
    """The operators' port: live params, their history, rollback."""
    from broker.admin import run_admin

    settings = settings_from(config)
    try:
        run(run_admin(settings))
    except ConfigError as error:
        _console.print(str(error), highlight=False)
        raise typer.Exit(2) from error


@app.command()
def estimate(config: ConfigOption = None) -> None:
    """The estimators: attempts, decisions and feedback into quotes and skills."""
    run(services.estimate(settings_from(config)))


@app.command()
def record(config: ConfigOption = None) -> None:
    """The recorder: every topic into ClickHouse, exactly once."""
    run(services.record(settings_from(config)))


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def paper(context: typer.Context) -> None:
    """The paper market: simulated providers over real HTTP."""
    from broker.paper.__main__ import main as paper_main

    paper_main(context.args)


@app.command()
def config(path: ConfigOption = None, json: JsonOption = False) -> None:
    """Check a configuration and show it, secrets masked."""
    settings = settings_from(path)
    if json:
        print_json(masked(settings))
    else:
        Console().print(masked(settings))


@app.command()
def report(
    name: Annotated[
        str | None, typer.Argument(help="Its name; without one, all are listed.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Argument(help="name=value, one each; times as 24h or ISO 8601.")
    ] = None,
    config: ConfigOption = None,
    fmt: Annotated[str, typer.Option("--format", help="table, csv, json, parquet.")] = "table",
) -> None:
    """Ask a named question of the market's history, as an analyst."""
    from broker import reporting

    if name is None:
        Console().print(reporting.listing())
        return
    settings = settings_from(config)
    try:
        asked = reporting.arguments(parameters or [])
        run(reporting.show(settings, name, asked, fmt))
    except MarketError as error:
        _console.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from error


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Option("-q", "--query", help="Ask this; without it, a shell.")
    ] = None,
    fmt: Annotated[str, typer.Option("--format", help="table, csv, json, parquet.")] = "table",
    config: ConfigOption = None,
) -> None:
    """Ask the market's history in SQL, read-only, as an analyst."""
    from analytics.notebook import analyst_settings, connect
    from broker import sql_shell

    console = Console()
    try:
        sql_shell.checked_format(fmt)
        with connect(analyst_settings(config, os.environ)) as client:
            if query is not None:
                sql_shell.answer(client, query, fmt, console, sys.stdout.buffer)
                return
            lines = sql_shell.typed_lines() if sys.stdin.isatty() else iter(sys.stdin)
            if not sql_shell.run_shell(client, fmt, lines, console) and not sys.stdin.isatty():
                raise typer.Exit(2)
    except MarketError as error:
        _fail(error)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def replay(context: typer.Context) -> None:
    """Policies side by side on markets made of real data: cost, quality, promises, regret."""
    from analytics.replay.cli import main as replay_main

    raise typer.Exit(replay_main(context.args))


@app.command()
def forget(
    tenant: Annotated[str, typer.Option(help="Forget all that this tenant asked.")] = "",
    session: Annotated[str, typer.Option(help="Forget one session, by its id (s_…).")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Remove a tenant's or a session's history, and count what is left."""
    from broker import forget_command

    settings = settings_from(config)
    try:
        found = run(forget_command.found(settings, tenant=tenant, session=session))
        if not yes and not json:
            n_tables = sum(map(bool, found.values()))
            asking = f"{sum(found.values()):,} rows in {n_tables} tables. Remove them?"
            typer.confirm(asking, abort=True)
        told = run(forget_command.run(settings, tenant=tenant, session=session))
    except MarketError as error:
        _fail(error)
    if json:
        print_json(told)
    else:
        Console().print(forget_command.in_words(told), highlight=False)
    if not told.forgotten:
        _console.print("rows came in meanwhile: revoke the keys, then run it again", style="red")
        raise typer.Exit(1)


@app.command()
def prompt(
    decision: Annotated[str, typer.Argument(help="Its id, from x-broker-decision.")],
    config: ConfigOption = None,
) -> None:
    """The kept prompt of a decision, opened with the keys of the configuration."""
    from broker import forget_command

    settings = settings_from(config)
    try:
        found = run(forget_command.prompt_of(settings, decision))
    except MarketError as error:
        _fail(error)
    sys.stdout.buffer.write(found.body + b"\n")


@app.command(name="prompt-key")
def prompt_key() -> None:
    """A fresh key for [privacy] prompt_keys."""
    from broker.vault import new_prompt_key

    typer.echo(new_prompt_key())


def _fail(error: MarketError) -> NoReturn:
    """End with what is wrong and what to do about it."""
    remedy = f"; {error.remedy}" if isinstance(error, BadRequest) and error.remedy else ""
    _console.print(f"{error}{remedy}", style="red", highlight=False, markup=False)
    raise typer.Exit(2) from error


@app.command()
def explain(
    decision: Annotated[str | None, typer.Argument(help="Its id, from x-broker-decision.")] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Decide again and compare.")] = False,
    sample: Annotated[int, typer.Option(help="Replay so many stored decisions instead.")] = 0,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """The autopsy of a decision; --replay makes it again on the very market it read."""
    from broker import explaining

    settings = settings_from(config)
    try:
        if decision is None:
            tally = run(explaining.explain_sample(settings, sample or 100))
            print_json(tally)
            if not tally.whole:
                raise typer.Exit(1)
            return
        told = run(explaining.explain(settings, decision, replay=replay))
    except MarketError as error:
        _console.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from error
    if json:
        print_json(told)
    else:
        Console().print(explaining.in_words(told), highlight=False)
    if replay and not told["replay"]["identical"]:
        raise typer.Exit(1)


@app.command()
def whatif(
    params: Annotated[Path, typer.Option(help="TOML or JSON: the numbers to change.")],
    since: Annotated[str, typer.Option(help="24h, 7d, or a time.")] = "24h",
    most: Annotated[int, typer.Option(help="Most decisions to drive; a sample beyond.")] = 5_000,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """What other params would have bought and delivered, by recorded traffic.

    Exits with 1 when it would break a promise or put one at risk.
    """
    from broker import whatif as asking

    settings = settings_from(config)
    try:
        told = run(asking.from_file(settings.store, params, since=since, most=most))
    except MarketError as error:
        _console.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from error
    if json:
        print_json(told)
    else:
        Console().print(asking.in_words(told), highlight=False, markup=False)
    if told.whatif.called:
        raise typer.Exit(1)


@app.command()
def up(
    demo: Annotated[bool, typer.Option("--demo", help="Drive traffic and faults.")] = False,
    seconds: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    rate: Annotated[float, typer.Option(help="Demo requests a second.")] = 24.0,
    port: Annotated[int, typer.Option(help="The gateway's port; 0: a free one.")] = 0,
    workers: Annotated[int, typer.Option(help="Gateway processes.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the demo's traffic.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Kept; default: a fresh one.")] = None,
    json: JsonOption = False,
) -> None:
    """The whole market on this machine."""
    logs.configure("warning")
    if not run(_up(demo, seconds, rate, port, workers, seed, data_dir, json)):
        raise typer.Exit(1)


async def _up(
    demo: bool,
    seconds: float | None,
    rate: float,
    port: int,
    workers: int,
    seed: int,
    data_dir: Path | None,
    json: bool,
) -> bool:
    from broker.up import Up, connection_facts

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    with tempfile.TemporaryDirectory(prefix="broker-") as fresh:
        async with Up(data_dir or Path(fresh), port=port, workers=workers) as market:
            facts = connection_facts(market)
            if not json:
                _console.print(_welcome(facts), highlight=False)
            if not demo:
                ending = asyncio.create_task(stopped.wait())
                await asyncio.wait([ending], timeout=seconds)
                if json:
                    print_json({**facts, "seconds_to_ready": market.seconds_to_ready})
                return True
            return await _demo(market, seconds, rate, seed, stopped, json)


async def _demo(
    market: Any, seconds: float | None, rate: float, seed: int, stopped: asyncio.Event, json: bool
) -> bool:
    from broker.demo.run import Demo, DemoSettings, broken_promises

    settings = DemoSettings(
        data_dir=Path(market.settings.data_dir),
        seconds=seconds,
        rate=rate,
        seed=seed,
        live=not json,
    )
    demo = Demo(settings, market)
    running = asyncio.create_task(demo.run(Console()))
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    demo.stop()
    figures = await running
    stopping.cancel()
    broken = broken_promises(figures) if seconds is not None else []
    if json:
        print_json({**figures, "broken": broken})
    for line in broken:
        _console.print(f"[red]does not hold:[/] {line}")
    return not broken


_EXAMPLE_SQL = "SELECT offer, count() AS calls, avg(ttft_ms) FROM market.attempts GROUP BY offer"


def _welcome(facts: dict[str, Any]) -> str:
    analyst = f"{facts['clickhouse_user']}:{facts['clickhouse_password']}"
    return f"""
The market is open at [bold]{facts["url"]}[/], and its page at
  {facts["page"]}

  curl {facts["url"]}/v1/chat/completions -i \\
    -H 'Authorization: Bearer {facts["app_key"]}' -H 'Content-Type: application/json' \\
    -d '{{"model": "market", "messages": [{{"role": "user", "content": "What is 6 * 7?"}}],
         "sla": {{"quality": 0.9, "ttft_ms": 1000}}}}'

  curl -u '{analyst}' {facts["clickhouse"]} \\
    -d '{_EXAMPLE_SQL} ORDER BY calls DESC'

  broker report --config {facts["config"]} market_share
"""
