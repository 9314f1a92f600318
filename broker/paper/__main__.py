"""The paper market as a process: `python -m broker.paper --port-file market.json`.

Prints one JSON line when every port is open: `ready`, `control_url`, `api_key`, `providers`,
`offers`, `catalogue_file`; the file named by `--port-file` then holds the catalogue. Ends on
SIGTERM or SIGINT, or when its parent's pipe to its standard input closes (`--with-stdin`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

import msgspec
import uvloop

from broker.paper.serve import PaperMarket
from broker.paper.status_history import StatusHistory


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="broker paper", description="Run the paper market.")
    parser.add_argument("--port-file", type=Path, help="write the catalogue (JSON) to this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-scale", type=float, default=1.0, help="latencies times this")
    parser.add_argument("--api-key", default="sk-paper", help="the key sellers accept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--most-chunks", type=int, default=24, help="chunks a stream at most")
    parser.add_argument("--providers", nargs="*", help="only these providers")
    parser.add_argument("--status-history", type=Path, help="incidents.jsonl.gz to show again")
    parser.add_argument("--status-from", default="2023-11-08T00:00", help="where in it to begin")
    parser.add_argument("--status-speed", type=float, default=60.0, help="its seconds a second")
    parser.add_argument("--with-stdin", action="store_true", help="end when stdin closes")
    uvloop.run(_run(parser.parse_args(arguments)))


async def _run(options: argparse.Namespace) -> None:
    history = None
    if options.status_history is not None:
        begins = datetime.fromisoformat(options.status_from)
        history = StatusHistory(
            options.status_history, begins=begins, at_s=time.time(), speed=options.status_speed
        )
    market = PaperMarket(
        seed=options.seed,
        time_scale=options.time_scale,
        api_key=options.api_key,
        host=options.host,
        providers=options.providers,
        most_chunks=options.most_chunks,
        control_port=options.control_port,
        status_history=history,
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, ended.set)
    if options.with_stdin:
        loop.add_reader(sys.stdin.fileno(), _end_at_eof, ended)
    await market.start()
    try:
        if options.port_file is not None:
            _write_whole(options.port_file, msgspec.json.encode(market.catalogue))
        ready = {
            "ready": True,
            "control_url": market.control_url,
            "api_key": market.api_key,
            "providers": len(market.catalogue.providers),
            "offers": len(market.catalogue.offers),
            "catalogue_file": str(options.port_file) if options.port_file else None,
        }
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await market.stop()


def _end_at_eof(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        ended.set()


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside, then rename, so that a reader never sees half a file."""
    beside = path.with_suffix(path.suffix + ".part")
    beside.write_bytes(content)
    beside.replace(path)


if __name__ == "__main__":
    main()
