"""`python -m broker.demo.storm`: the storm on a market of its own; `--json` prints the figures.

Ends with 0 when every bound held. What is broken how is in `breaks.py`, what must hold in
`figures.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec

from broker.demo.storm.breaks import BREAKS, named
from broker.demo.storm.figures import StormFigures
from broker.demo.storm.run import StormSettings, storm_at
from broker.demo.storm.stand import trios
from broker.up import Up

MODELS = ("llama-3.1-8b", "llama-3.3-70b")


async def _storm(names: list[str] | None, settings: StormSettings) -> StormFigures:
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        async with Up(Path(folder), time_scale=0.1) as up:
            assert up.paper is not None
            fresh = list(trios(up.catalogue, MODELS))
            breaks = list(zip(named(names), fresh, strict=False))
            spare = fresh[len(breaks)]
            return await storm_at(
                up.url, up.keys["app"], up.paper.control_url, breaks, spare, settings, tell=_tell
            )


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--breaks", nargs="*", choices=[b.name for b in BREAKS])
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each break")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    settings = StormSettings(rate=given.rate, break_s=given.seconds)
    figures = asyncio.run(_storm(given.breaks, settings))
    text = msgspec.json.encode(figures).decode()
    sys.stdout.write(text + "\n" if given.json else f"{msgspec.json.format(text, indent=2)}\n")
    return 0 if figures.whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
