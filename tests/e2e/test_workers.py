"""Several gateway processes on one port: each serves all, and finds what another decided."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.up_rig import market_up, polled


async def test_two_workers_share_a_port_and_each_others_decisions(tmp_path: Path) -> None:
    async with market_up(tmp_path, time_scale=0.02, workers=2) as market:
        made = [await market.ask(sla={"quality": 0.9}) for _ in range(12)]
        assert {reply.status for reply in made} == {200}
        ids = [reply.headers["x-broker-decision"] for reply in made]

        async def found() -> bool:
            # Either the worker asked has it in memory, or it is in ClickHouse by now.
            replies = [
                await market.send("GET", f"/v1/decisions/{i}") for i in ids for _ in range(2)
            ]
            return all(r.status == 200 for r in replies)

        await polled(found, "every decision, whichever worker is asked", 30.0)
        told = (await market.send("GET", f"/v1/decisions/{ids[0]}")).body
        assert told["delivered"]["offer"] == made[0].headers["x-broker-offer"]
