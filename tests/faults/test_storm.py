"""The fault storm, short: a gateway on sockets over paper sellers that break in turn.

Whole, with all the ways to break and the bounds on time, it is `python -m broker.demo.storm`.
Here time is given generously, since tests share their machine; counts are held exactly.
"""

from __future__ import annotations

from pathlib import Path

from broker.demo.storm.breaks import named
from broker.demo.storm.figures import MOST_ATTEMPTS, MOST_PROBES_LOST
from broker.demo.storm.run import StormSettings, storm
from broker.demo.storm.stand import Stand, trios
from tests.fakes.gateway_rig import rig

MODEL = "llama-3.1-8b"
SELLERS = ("novita", "nebius", "groq", "nscale", "cerebras", "ovhcloud", "sambanova", "together")
BREAKS = ["hang", "stall", "500"]
SETTINGS = StormSettings(
    rate=25.0,
    deadline_ms=3_000.0,
    break_s=1.5,
    recover_s=5.0,
    calm_s=0.3,
    all_down_s=1.0,
    n_hang_ups=4,
    settled=True,
)


async def test_a_short_storm(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=SELLERS, models=[MODEL], time_scale=0.1) as market:
        gateway = market.gateway
        gateway.learn(**dict.fromkeys(SELLERS, 60.0))
        fresh = list(trios(market.paper.catalogue, [MODEL]))
        breaks = list(zip(named(BREAKS), fresh, strict=False))
        assert len(breaks) == len(BREAKS)
        model, providers = fresh[0]
        stand = Stand(
            market.http,
            url=gateway.url,
            key=gateway.key(),
            control_url=market.paper.control_url,
            model=model,
            providers=providers,
        )
        figures = await storm(stand, breaks, fresh[len(breaks)], SETTINGS)
    for one, (each, _) in zip(figures.breaks, breaks, strict=True):
        assert one.failed == 0, one
        assert each.mid_stream or one.mid_stream == 0, one
        assert one.failures is not None, one
        assert one.closed_s is not None, one
        assert one.probes_lost <= MOST_PROBES_LOST, one
        assert one.p99_ms <= one.deadline_ms, one
    assert figures.breaks[1].mid_stream > 0
    n_extra = figures.attempts_per_request * figures.requests - figures.requests
    # So short a storm is nearly all onset; what was out as the sellers broke had to fail once.
    assert n_extra <= (MOST_ATTEMPTS - 1) * figures.requests + sum(f.out for f in figures.breaks)
    assert figures.all_down_untyped == []
    assert figures.all_down_attempts <= MOST_ATTEMPTS * figures.all_down_requests + 15
    assert figures.hang_ups >= 2
    assert figures.hang_up_worst_ms < 500.0
