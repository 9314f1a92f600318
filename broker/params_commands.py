"""`broker params`: the live params, by way of the operators' port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import aiohttp
import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Live params: read, changed, rolled back.", no_args_is_help=True)
out = Console()
_err = Console(stderr=True)
_TIMEOUT_S = 60.0
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file (or JSON).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
KeyOption = Annotated[
    str, typer.Option("--key", envvar="BROKER_OPS_KEY", help="A key with the scope ops.")
]
ChangesArgument = Annotated[list[str], typer.Argument(help="path=value, one each.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, kept with the change.")]


@app.command("get")
def get_params(
    path: Annotated[str | None, typer.Argument(help="One of them, or a group.")] = None,
    key: KeyOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """The version in force."""
    told = asked(config, key, json, "GET", "/admin/params")
    fields = [f for f in told["fields"] if path is None or _is_under(f["path"], path)]
    if not fields:
        refused({"message": f"no parameter or group {path!r}", "remedy": "see them all"}, json)
    if json:
        print_one({"version": told["version"], "fields": fields})
        return
    table = Table("param", "value", "default", "low", "high", "unit", "meaning")
    for f in fields:
        numbers = (f["value"], f["default"], f["low"], f["high"])
        shown = ["" if n is None else f"{n:g}" for n in numbers]
        table.add_row(f["path"], *shown, f["unit"], f["meaning"])
    out.print(f"version {told['version']}")
    out.print(table)


@app.command("set")
def set_params(
    changes: ChangesArgument,
    why: WhyOption,
    if_version: Annotated[
        int | None, typer.Option(help="Refuse if another is in force; default: the one now.")
    ] = None,
    key: KeyOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Change some numbers; in force on every gateway within a second."""
    wanted = numbers(changes, json)
    if if_version is None:
        if_version = asked(config, key, json, "GET", "/admin/params")["version"]
    body = {"if_version": if_version, "changes": wanted, "why": why}
    _show(asked(config, key, json, "PATCH", "/admin/params", body), json)


@app.command()
def preview(
    changes: ChangesArgument,
    since: Annotated[str, typer.Option(help="24h, 7d, or a time.")] = "24h",
    most: Annotated[int, typer.Option(help="Most decisions to drive; a sample beyond.")] = 2_000,
    key: KeyOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """What a change would have done to recorded traffic; exits with 1 if a promise suffers."""
    body = {"changes": numbers(changes, json), "since": since, "most": most}
    told = asked(config, key, json, "POST", "/admin/params/preview", body)
    if json:
        print_one(told)
    else:
        out.print(told["words"], highlight=False, markup=False)
    if told["whatif"]["called"]:
        raise typer.Exit(1)


@app.command()
def rollback(
    to: Annotated[int, typer.Argument(help="The version whose numbers are wanted; 0: defaults.")],
    why: WhyOption,
    key: KeyOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Put an earlier version's numbers in force again, as a new version."""
    body = {"to": to, "why": why}
    _show(asked(config, key, json, "POST", "/admin/params/rollback", body), json)


@app.command()
def history(key: KeyOption = "", config: ConfigOption = None, json: JsonOption = False) -> None:
    """Who changed what, when and why, and what followed, newest first; then canaries."""
    told = asked(config, key, json, "GET", "/admin/params/history")
    if json:
        print_one(told)
        return
    for version in told["versions"]:
        _show(version, False)
        _show_followed(version["followed"])
    for event in told["trials"]:
        if event["trial"] == "canary":
            words = f"canary {event['version']}, {event['event']} by {event['by']}: {event['why']}"
            out.print(words, highlight=False, markup=False)
            _show_followed(event["followed"])
    if not told["complete"]:
        _err.print("The store does not answer; earlier versions are not shown.")


@app.command()
def followed(
    version: Annotated[int, typer.Argument(help="In force, or tried as a canary.")],
    key: KeyOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """What followed a version: against the one before it, or against the requests outside it.

    Before and after proves no cause; a canary is by lot. Within SLA classes, 95 % intervals.
    """
    told = asked(config, key, json, "GET", f"/admin/params/{version}/followed")
    if json:
        print_one(told)
        return
    for one in (told["in_force"], told["canary"]):
        if one is None:
            continue
        columns = ("n before", "n", "before", "value", "difference", "low", "high", "told")
        table = Table("measure", *columns)
        for measure, m in one["measures"].items():
            numbers = ("value_against", "value", "difference", "low", "high")
            shown = ["" if m[name] is None else f"{m[name]:.4g}" for name in numbers]
            table.add_row(measure, f"{m['n_against']:,}", f"{m['n']:,}", *shown, m["told"])
        kind = f"version {version}, {one['kind']}, against version {one['against_version']}"
        out.print(f"{kind}, {one['compared']}, {one['hours_a_side']:g} h a side", highlight=False)
        out.print(table)


def asked(
    config: Path | None, key: str, json: bool, method: str, path: str, body: Any = None
) -> Any:
    """The admin port's answer, or the end of the process with its refusal."""
    from broker.cli import settings_from

    admin = settings_from(config).admin
    host = f"[{admin.host}]" if ":" in admin.host else admin.host

    async def ask() -> tuple[int, Any]:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
            http.request(method, f"http://{host}:{admin.port}{path}", json=body) as response,
        ):
            return response.status, msgspec.json.decode(await response.read())

    try:
        status, told = uvloop.run(ask())
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
        remedy = f"is `broker admin` at {host}:{admin.port}?"
        refused({"message": f"no answer: {error}", "remedy": remedy}, json)
    if status >= 300:
        refused(told["error"], json)
    return told


def numbers(changes: list[str], json: bool) -> dict[str, float]:
    """Numbers by path, or the end of the process."""
    wanted: dict[str, float] = {}
    for change in changes:
        path, _, text = change.partition("=")
        try:
            wanted[path] = msgspec.json.decode(text, type=int | float)
        except msgspec.DecodeError:
            refused({"message": f"{change!r}: not a number", "remedy": "write path=0.7"}, json)
    return wanted


def refused(error: dict[str, Any], json: bool) -> NoReturn:
    if json:
        print_one({"error": error})
    _err.print(f"[red]{error['message']}[/]; {error['remedy']}", highlight=False)
    raise typer.Exit(1)


def _show(version: dict[str, Any], json: bool) -> None:
    if json:
        print_one(version)
        return
    out.print(f"version {version['version']} by {version['by']}: {version['why']}")
    for change in version["changes"] or []:
        out.print(f"  {change['path']}: {change['old']:g} -> {change['new']:g}", highlight=False)


def _show_followed(followed: dict[str, Any] | None) -> None:
    if followed is not None:
        out.print(f"  followed by {followed['words']}", highlight=False, markup=False)


def _is_under(path: str, wanted: str) -> bool:
    return path == wanted or path.startswith(f"{wanted}.")


def print_one(value: Any) -> None:
    typer.echo(msgspec.json.encode(value).decode())
