"""`python -m tests.bench`: every `bench_*.py` beside this file, its `figures()`, into bench.json.

Benches run one after another, each in a process of its own, so that none inherits another's heap,
threads or event loop. A bench that fails is named and the rest still run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.bench.bounds import broken

HERE: Final = Path(__file__).parent
OUTPUT: Final = Path("bench.json")
TIMEOUT_S: Final = 600.0
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def names() -> list[str]:
    """The benches found, without their prefix."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run_here(name: str) -> dict[str, float]:
    """One bench's figures, measured in this process."""
    found = importlib.import_module(f"tests.bench.bench_{name}").figures()
    return dict(asyncio.run(found) if inspect.iscoroutine(found) else found)


def run_apart(name: str) -> dict[str, float]:
    """One bench's figures, measured in a process of its own.

    Raises
    ------
    ChildProcessError
        It failed; the message holds its last words.
    """
    command = [sys.executable, "-m", "tests.bench", "--here", name]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, **_ONE_THREAD},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ChildProcessError(f"no figures after {TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise ChildProcessError(done.stderr.strip()[-2_000:] or f"exit {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Run what was asked; 1 when a bench failed or a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=names(), help="run just this one")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    parser.add_argument("--here", choices=names(), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(run_here(asked.here)))
        return 0
    figures: dict[str, float] = {}
    failed: list[str] = []
    for name in asked.only or names():
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found = run_apart(name)
        except ChildProcessError as error:
            failed.append(f"bench {name} failed: {error}")
            continue
        figures |= {key: round(value, 3) for key, value in found.items()}
        for key, value in found.items():
            print(f"  {key:<36} {value:>14,.6g}", file=sys.stderr)
    faults = failed + broken(figures)
    if asked.only and OUTPUT.exists():
        figures = json.loads(OUTPUT.read_text(encoding="utf-8")) | figures
    OUTPUT.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for fault in faults:
        print(fault, file=sys.stderr)
    if asked.json:
        print(json.dumps(figures, sort_keys=True))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
