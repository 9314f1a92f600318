"""`broker whatif --params FILE --since 24h` against a running market and what it really decided."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from analytics.explain import decisions
from broker.explaining import explain_all
from tests.fakes.up_rig import Market, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")
N = 40
SLA = {"quality": 0.9, "ttft_ms": 3000}


async def command(market: Market, params: Path, *more: str) -> tuple[int | None, bytes, bytes]:
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "whatif", "--config", str(market.up.config_path)),
        *("--params", str(params), "--since", "24h", *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await done.communicate()
    return done.returncode, out, err


async def test_the_command_drives_what_was_really_decided(market: Market, tmp_path: Path) -> None:
    replies = await asyncio.gather(*(market.ask("market:whatif", sla=SLA) for _ in range(N)))
    ids = [r.headers["x-broker-decision"] for r in replies]

    async def stored() -> bool:
        found = await decisions(market.up_store, ids)
        return len(found) == N and (await explain_all(market.up_store, ids)).found == N

    await polled(stored, "decisions and their views in the store")
    params = tmp_path / "other.toml"
    params.write_text("[choice]\noptimism_sd = 2.5\n")
    code, out, err = await command(market, params, "--json")
    assert code in (0, 1), err.decode()
    told = json.loads(out)
    whatif = told["whatif"]
    assert whatif["n_decisions"] >= N
    assert [(c["path"], c["new"]) for c in whatif["changed"]] == [("choice.optimism_sd", 2.5)]
    low, high = (whatif["on_time"]["then"]["doubly_robust"][k] for k in ("low", "high"))
    assert 0.0 <= low <= high <= 1.0
    assert (code == 1) == whatif["called"]
    mine = [p for p in whatif["promises"] if "|whatif|" in p["sla_class"]]
    assert {p["what"] for p in mine} == {"quality", "on_time"}
    assert all(p["n"] >= N for p in mine if p["what"] == "on_time")

    beyond = tmp_path / "beyond.toml"
    beyond.write_text("[choice]\noptimism_sd = 99\n")
    code, out, err = await command(market, beyond)
    assert code == 2
    assert b"optimism_sd" in out + err
