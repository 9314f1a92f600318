"""`python -m tests.scale`: load a store with N attempts, then time every report on it.

    python -m tests.scale --attempts 10000000 --data-dir /var/tmp/scale [--json]

A folder that is loaded already is measured again without loading. Exits non-zero when a report
takes longer at p95, or an attempt more bytes, than is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from analytics.migrate import migrate
from analytics.notebook import connect
from analytics.store import Store
from broker.embedded.store import ChdbServer
from tests.fakes.desk import settings_of
from tests.scale.load import Load
from tests.scale.measure import columns_of_attempts, every_report, sizes

MOST_P95_MS: Final = 1_000.0
MOST_BYTES_PER_ATTEMPT: Final = 60.0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run(n: int, folder: Path, *, as_json: bool) -> bool:
    """Load and measure; whether all bounds hold."""
    async with ChdbServer(folder / "store") as server:
        settings = msgspec.structs.replace(settings_of(server, "market"), answer_timeout_s=600)
        async with await Store.open(settings) as store:
            await migrate(store)
            (there,) = (await store.query("SELECT count() FROM {raw:Identifier}.attempts")).rows
            loading_s = 0.0
            if not there[0]:
                loading_s = await Load(store, n, int(time.time()), say).run()
                await settle(store)
            by_table = await sizes(store)
            columns = await columns_of_attempts(store)
            account = msgspec.structs.replace(
                settings, username=server.analyst.user, password=server.analyst.password
            )
            with connect(account) as client:
                reports = await every_report(client, store, server.pid)
    rows, data, disk = by_table["attempts"]
    slow = [r.name for r in reports if r.p95_ms > MOST_P95_MS]
    figures = {
        "attempts": rows,
        "attempts_per_s_loaded": rows / loading_s if loading_s else None,
        "bytes_per_attempt": data / rows,
        "disk_bytes_per_attempt": disk / rows,
        "slowest_p95_ms": max(r.p95_ms for r in reports),
        "too_slow": slow,
    }
    say("\n| report | p50 ms | p95 ms | CPU ms | rows read | MB read | rows |")
    say("|---|---|---|---|---|---|---|")
    for r in sorted(reports, key=lambda r: -r.p95_ms):
        say(
            f"| `{r.name}` | {r.p50_ms:.0f} | {r.p95_ms:.0f} | {r.cpu_ms:.0f} | {r.rows_read:,} |"
            f" {r.bytes_read / 1e6:.1f} | {r.rows} |"
        )
    say("\n| table | rows | MB | bytes a row |\n|---|---|---|---|")
    for table, (n_rows, size, _) in by_table.items():
        if n_rows > 1000:
            say(f"| {table} | {n_rows:,} | {size / 1e6:.1f} | {size / n_rows:.1f} |")
    say("\nbytes an attempt: " + ", ".join(f"{c} {b / rows:.2f}" for c, b in columns.items()))
    if as_json:
        print(msgspec.json.encode({**figures, "reports": reports, "tables": by_table}).decode())
    else:
        say("\n" + "\n".join(f"{name}: {value}" for name, value in figures.items()))
    return not slow and data / rows <= MOST_BYTES_PER_ATTEMPT


async def settle(store: Store) -> None:
    """Let merges come to rest, as they would have over the days."""
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < 300:
        answer = await store.query("SELECT count() FROM system.merges")
        if not answer.rows[0][0]:
            break
        await asyncio.sleep(2)
    say(f"merges at rest after {time.monotonic() - begun_s:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--attempts", type=int, default=10_000_000)
    parser.add_argument("--data-dir", type=Path, help="kept; default: a fresh one, removed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as fresh:
        folder = given.data_dir or Path(fresh)
        folder.mkdir(parents=True, exist_ok=True)
        return 0 if asyncio.run(run(given.attempts, folder, as_json=given.json)) else 1


if __name__ == "__main__":
    sys.exit(main())
