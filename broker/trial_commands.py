"""`broker params shadow` and `broker params canary`: other params tried beside those in force."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bidding.errors import BadParams
from broker.params_commands import (
    ConfigOption,
    JsonOption,
    KeyOption,
    WhyOption,
    app,
    asked,
    numbers,
    out,
    print_one,
    refused,
)
from broker.params_file import numbers_in

params = app
"""`broker params`, with the commands of this file."""
canary = typer.Typer(
    help="Other params for a share of requests, watched and rolled back.", no_args_is_help=True
)
app.add_typer(canary, name="canary")
WhatArgument = Annotated[
    list[str], typer.Argument(help="A file of numbers (TOML or JSON), or path=value, one each.")
]
TenantOption = Annotated[str, typer.Option("--tenant", help="Only this tenant's requests.")]
_STOP = ["stop"]


@app.command()
def shadow(
    what: WhatArgument,
    why: WhyOption,
    share: Annotated[float, typer.Option(help="Of the requests, most to compute for.")] = 1.0,
    tenant: TenantOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Compute and record what other params would buy, and buy nothing by them; `stop` ends it."""
    if what == _STOP:
        _show(asked(config, key, json, "POST", "/admin/params/shadow/stop", {"why": why}), json)
        return
    body = {"changes": _changes(what, json), "why": why, "share": share, "tenant": tenant}
    _show(asked(config, key, json, "POST", "/admin/params/shadow", body), json)


@canary.command("start")
def start(
    what: WhatArgument,
    why: WhyOption,
    share: Annotated[float, typer.Option(help="Of all requests, or of the tenant's.")] = 0.1,
    tenant: TenantOption = "",
    hours: Annotated[float, typer.Option(help="After which it ends by itself.")] = 1.0,
    key: KeyOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Buy under other params for a share of requests."""
    body = {
        "changes": _changes(what, json),
        "why": why,
        "share": share,
        "tenant": tenant,
        "hours": hours,
    }
    _show(asked(config, key, json, "POST", "/admin/params/canary", body), json)


@canary.command()
def status(key: KeyOption = "", config: ConfigOption = None, json: JsonOption = False) -> None:
    """What is being tried, in the shadow and as a canary, and how it does."""
    told = asked(config, key, json, "GET", "/admin/params/trials")
    if json:
        print_one(told)
        return
    out.print(f"version {told['version']} is in force")
    for kind in ("shadow", "canary"):
        trial = told[kind]
        out.print(f"{kind}: {'none' if trial is None else _in_words(trial)}", highlight=False)


@canary.command()
def promote(
    why: WhyOption, key: KeyOption = "", config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Put the canary's params in force for all requests."""
    _show(asked(config, key, json, "POST", "/admin/params/canary/promote", {"why": why}), json)


@canary.command()
def abort(
    why: WhyOption, key: KeyOption = "", config: ConfigOption = None, json: JsonOption = False
) -> None:
    """End the canary; the params in force stay as they are."""
    _show(asked(config, key, json, "POST", "/admin/params/canary/abort", {"why": why}), json)


def _changes(what: list[str], json: bool) -> dict[str, float]:
    """Numbers of files and of `path=value`, later ones over earlier ones."""
    wanted: dict[str, float] = {}
    for one in what:
        if "=" in one:
            wanted |= numbers([one], json)
            continue
        try:
            wanted |= numbers_in(Path(one))
        except BadParams as error:
            refused({"message": str(error), "remedy": "name a file, or path=value"}, json)
    return wanted


def _show(told: dict[str, Any], json: bool) -> None:
    if json:
        print_one(told)
        return
    out.print(f"{told['event']} {told['version']} by {told['by']}: {told['why']}", highlight=False)
    _show_changes(told.get("changes"))


def _in_words(trial: dict[str, Any]) -> str:
    whose = f" of {trial['tenant']}'s requests" if trial["tenant"] else " of requests"
    since = datetime.fromtimestamp(trial["at_us"] * 1e-6, UTC).isoformat(timespec="seconds")
    changes = ", ".join(f"{c['path']} {c['old']:g} -> {c['new']:g}" for c in trial["changes"])
    return (
        f"version {trial['version']}, {trial['share']:.0%}{whose}, since {since}"
        f" by {trial['by']} ({trial['why']}): {changes}"
    )


def _show_changes(changes: list[dict[str, Any]] | None) -> None:
    for change in changes or []:
        out.print(f"  {change['path']}: {change['old']:g} -> {change['new']:g}", highlight=False)
