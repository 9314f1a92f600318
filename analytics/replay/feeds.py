"""`make replay-feeds`: all that is claimed of market intelligence, as figures with their bounds.

    prices   eight months of real repricings through judge, book and auction
    liar     a source that praises a failing offer
    season   an offer slow on Tuesdays from 15:00 to 17:00
    spot     sellers of one model who compete
    status   real incidents over real arrivals: pages heard against not heard

Only `prices` and `status` read data. Of the latter, incidents of the earlier half of the time are
for picking params (`--pick`) and those of the later half are scored on; with `--test-data` all of
another folder's are. Seeds are worked on in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from analytics.replay import liar, price_feeds, season, spot, status_feeds
from analytics.replay.errors import ReplayError
from bidding.params import Params

DATA: Final = Path("../shared/data")
Figures = dict[str, float]
PARTS: Final[dict[str, Callable[[Figures], list[str]]]] = {
    "prices": price_feeds.broken,
    "liar": liar.broken,
    "season": season.broken,
    "spot": spot.broken,
    "status": status_feeds.broken,
}
"""Each part and what says which of its bounds do not hold."""


def parser() -> argparse.ArgumentParser:
    """Flags of `make replay-feeds ARGS=…`."""
    found = argparse.ArgumentParser(prog="make replay-feeds", description=__doc__.split("\n")[0])
    add = found.add_argument
    add("--data", type=Path, default=DATA, help="folder of the layout of data/README.md")
    add("--test-data", type=Path, help="folder scored on; what it lacks is taken from --data")
    add("--only", default=",".join(PARTS), help="parts, comma-separated")
    add(
        "--half", choices=("later", "earlier", "all"), default="later", help="of --data's incidents"
    )
    add("--seeds", type=int, default=5, help="of the replay of status pages")
    add("--incidents", type=int, default=12, help="of each seed")
    add("--lag-s", type=float, default=status_feeds.LAG_S, help="pages are late by, on average")
    add("--pick", action="store_true", help="pick reliability.status_belief on the earlier half")
    add("--jobs", type=int, default=min(os.cpu_count() or 1, 8), help="processes")
    add("--json", action="store_true", help="one JSON object as the last line")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 1 when a bound breaks, 2 when the data is not there."""
    asked = parser().parse_args(argv)
    wanted = [name for name in asked.only.split(",") if name]
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.stderr.write(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}\n")
        return 2
    status = status_feeds.Asked(
        data=asked.data,
        test_data=asked.test_data,
        half=asked.half,
        n=asked.incidents,
        lag_s=asked.lag_s,
    )
    try:
        with ProcessPoolExecutor(asked.jobs) as pool:
            if asked.pick:
                return _pick(pool, status, asked.seeds, as_json=asked.json)
            found = _figures(pool, wanted, status, asked.seeds)
    except ReplayError as error:
        sys.stderr.write(f"make replay-feeds: {error}\n")
        return 2
    faults = [fault for name in wanted for fault in PARTS[name](found)]
    _tell({**found, "broken": faults}, as_json=asked.json)
    for fault in faults:
        sys.stderr.write(f"does not hold: {fault}\n")
    return 1 if faults else 0


def _figures(
    pool: Executor, wanted: Sequence[str], status: status_feeds.Asked, n_seeds: int
) -> Figures:
    prices = status.test_data or status.data
    if not (prices / "prices").is_dir():
        prices = status.data
    work: dict[str, Callable[[], Figures]] = {
        "prices": partial(price_feeds.figures, prices),
        "liar": liar.figures,
        "season": season.figures,
        "spot": spot.figures,
    }
    seeds = range(n_seeds) if "status" in wanted else range(0)
    pages = [pool.submit(status_feeds.one_seed, status, seed) for seed in seeds]
    others = [pool.submit(work[name]) for name in wanted if name in work]
    found: Figures = {}
    for other in others:
        found |= other.result()
    if pages:
        found |= status_feeds.figures([page.result() for page in pages])
    return found


def _pick(pool: Executor, status: status_feeds.Asked, n_seeds: int, *, as_json: bool) -> int:
    """Try every belief on the earlier half; 1 when another than the params' own is best."""
    work = {
        belief: [
            pool.submit(
                status_feeds.one_seed,
                replace(status, half="earlier", test_data=None, belief=belief),
                seed,
            )
            for seed in range(n_seeds)
        ]
        for belief in status_feeds.BELIEFS
    }
    tried = {b: status_feeds.figures([each.result() for each in w]) for b, w in work.items()}
    picked = status_feeds.pick(tried)
    told: dict[str, object] = {"picked": picked}
    for belief, found in tried.items():
        told |= {f"{name}@{belief:g}": value for name, value in found.items()}
    _tell(told, as_json=as_json)
    return 0 if picked == Params().reliability.status_belief else 1


def _tell(told: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    for name, value in told.items():
        shown = f"{value:g}" if isinstance(value, int | float) else str(value)
        sys.stdout.write(f"{name:<52} {shown}\n")


if __name__ == "__main__":
    sys.exit(main())
