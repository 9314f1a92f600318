"""Make docs/compatibility.md. `--json` prints the tally; exits non-zero when a cell failed."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.compat.document import DOCUMENT, document
from tests.compat.matrix import Cell, cells, tally
from tests.fakes.up_rig import market_up


async def _made() -> list[Cell]:
    with tempfile.TemporaryDirectory(prefix="broker-compat-") as fresh:
        async with market_up(Path(fresh)) as market:
            return await cells(market)


def main() -> int:
    """Exit status."""
    found = asyncio.run(_made())
    counts = tally(found)
    for cell in found:
        if cell.state == "failed":
            sys.stderr.write(f"failed: {cell}\n")
    if not counts["failed"]:
        DOCUMENT.write_text(document(found), encoding="utf-8")
    sys.stdout.write(json.dumps(counts) + "\n" if "--json" in sys.argv else document(found))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
