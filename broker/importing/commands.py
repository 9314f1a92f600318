"""`broker import litellm config.yaml`: a catalogue, settings, the keys' variables, what is left."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from genai_prices.data import providers as priced
from rich.console import Console

from bidding.errors import MarketError
from broker.importing.litellm_config import Facts, Imported, Unreadable, translate
from feeds.catalogue.genai_package import listings
from feeds.clock import SystemClock

app = typer.Typer(help="From other gateways' configurations to ours.", no_args_is_help=True)
_console = Console(stderr=True)
_SAME = {"cohere": "cohere", "gemini": "google"}


@app.callback()
def _group() -> None:
    """Keeps `litellm` a command of its own."""


@app.command()
def litellm(
    config: Annotated[Path, typer.Argument(help="LiteLLM's config.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write.")] = Path("broker-import"),
    json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")] = False,
) -> None:
    """Turn a LiteLLM proxy's configuration into ours, and say what could not be."""
    try:
        found = translate(_decoded(config), price_of)
    except MarketError as error:
        _console.print(f"[red]{config}: {error}[/]", highlight=False)
        raise typer.Exit(2) from error
    written = write(found, out)
    if json:
        typer.echo(msgspec.json.encode(summary(found, written)).decode())
        return
    console = Console()
    for note in found.notes:
        console.print(f"{note.path}: {note.said}; {note.instead}", highlight=False, markup=False)
    console.print(f"written: {', '.join(map(str, written))}", highlight=False)


def summary(found: Imported, written: list[Path]) -> dict[str, Any]:
    """What came of it, as `--json` says it."""
    catalogue = found.catalogue
    return {
        "providers": len(catalogue.providers),
        "models": len(catalogue.models),
        "offers": len(catalogue.offers),
        "enabled": sum(o.enabled for o in catalogue.offers),
        "notes": found.notes,
        "written": [str(path) for path in written],
    }


def write(found: Imported, out: Path) -> list[Path]:
    """Write the files; no secret is among what is written."""
    out.mkdir(parents=True, exist_ok=True)
    settings = dict(found.settings)
    settings["catalogue"] = str((out / "catalogue.json").resolve())
    files = {
        "catalogue.json": msgspec.json.format(msgspec.json.encode(found.catalogue), indent=2),
        "broker.json": msgspec.json.format(msgspec.json.encode(settings), indent=2),
        "keys.sh": "".join(
            f'export {ours}="${theirs}"\n' for ours, theirs in found.env.items()
        ).encode(),
        "NOTES.md": "".join(f"- `{n.path}`: {n.said}; {n.instead}\n" for n in found.notes).encode(),
    }
    for name, content in files.items():
        (out / name).write_bytes(content)
    return [out / name for name in files]


@cache
def _listed() -> dict[tuple[str, str], Facts]:
    now_us = SystemClock().now_us()
    windows = {
        (provider.id, model.id): model.context_window
        for provider in priced
        for model in provider.models
    }
    return {
        (found.provider, found.model): Facts(
            prices=found.at(now_us),
            context_window=windows.get((found.provider, found.model)),
        )
        for found in listings().listings
    }


def price_of(provider: str, model: str) -> Facts | None:
    """What the installed price list knows of a model, under its name or its name's last part."""
    listed = _listed()
    at = _SAME.get(provider, provider)
    for name in (model, model.rpartition("/")[2]):
        if (at, name) in listed:
            return listed[at, name]
    return None


def _decoded(path: Path) -> object:
    """The file. Raises `Unreadable`."""
    decode: Callable[[bytes], object] = msgspec.yaml.decode
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise Unreadable(str(error.strerror)) from error
    except ImportError as error:
        raise Unreadable("PyYAML is not installed: install the extra [import]") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"no YAML: {error}") from error
