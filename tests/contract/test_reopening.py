"""Broken sellers are tried beside the requests: no request is spent on finding out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from bidding.outcome import FailureClass
from bidding.probing import ProbeSettings
from broker.paper.faults import Fault, FaultSpec
from feeds.records import AttemptRecord
from tests.fakes.gateway_rig import Rig, rig

BROKEN = "novita"
OFFER = f"{BROKEN}/llama-3-8b"


async def _break(r: Rig, *faults: FaultSpec) -> None:
    await r.paper.set_faults(BROKEN, faults)


def _health(r: Rig) -> str:
    market = r.gateway.market
    return market.health()[market.book.offers.row_of[OFFER]]


async def _until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    for _ in range(round(within_s / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


async def _open(r: Rig, key: str) -> None:
    """Ask of the broken seller until its circuit stands open."""
    async with asyncio.timeout(10.0):
        while _health(r) == "closed":
            reply = await r.ask(key, sla={"latency_ms": 5_000.0})
            assert reply.status == 200


async def test_a_circuit_is_closed_by_tries_that_no_request_pays_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        key = r.gateway.key()
        r.gateway.learn(novita=60, groq=60, together=60)
        await _break(r, FaultSpec(kind=Fault.ERROR, status=500))
        await _open(r, key)
        n_before = len(await r.gateway.written(AttemptRecord))
        for _ in range(40):
            assert (await r.ask(key)).status == 200
            await asyncio.sleep(0.02)
        while_broken = (await r.gateway.written(AttemptRecord))[n_before:]
        tries = [a for a in while_broken if a.source == "probe"]
        assert tries
        assert {a.offer for a in tries} == {OFFER}
        assert {a.tenant for a in tries} == {""}
        assert all(a.offer != OFFER for a in while_broken if a.source == "gateway")
        await _break(r)
        await _until(lambda: _health(r) == "closed")
        last = [a for a in await r.gateway.written(AttemptRecord) if a.offer == OFFER][-2:]
        assert [(a.source, a.failure) for a in last] == [("probe", FailureClass.OK)] * 2
        # What its failures cost it would keep everybody away; requests are drawn back to it.
        offers = {(await r.ask(key)).headers["x-broker-offer"] for _ in range(30)}
        assert OFFER in offers


async def test_a_try_that_hangs_keeps_nobody_from_seeing_the_recovery(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        key = r.gateway.key()
        r.gateway.learn(novita=60, groq=60, together=60)
        await _break(r, FaultSpec(kind=Fault.ERROR, status=500))
        await _open(r, key)
        # A quote so slow that a try may hang for half a minute.
        r.gateway.learn(novita=60_000.0)
        await _break(r, FaultSpec(kind=Fault.HANG))
        await _until(lambda: r.paper.ledgers()[BROKEN].n_open > 0)
        await _break(r)
        await _until(lambda: _health(r) == "closed", 5.0)
        assert r.paper.ledgers()[BROKEN].n_open


async def test_without_money_for_tries_requests_find_out(tmp_path: Path) -> None:
    probes = ProbeSettings(broken_usd_hour=0.0)
    async with rig(tmp_path, settings={"probes": probes}) as r:
        key = r.gateway.key()
        r.gateway.learn(novita=60, groq=60, together=60)
        await _break(r, FaultSpec(kind=Fault.ERROR, status=500))
        await _open(r, key)
        await _break(r)
        async with asyncio.timeout(10.0):
            while _health(r) != "closed":
                assert (await r.ask(key)).status == 200
        found = await r.gateway.written(AttemptRecord)
        assert {a.source for a in found} == {"gateway"}


async def test_what_its_seller_has_withdrawn_is_not_tried(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        key = r.gateway.key()
        r.gateway.learn(novita=60, groq=60, together=60)
        await _break(r, FaultSpec(kind=Fault.ERROR, status=500))
        await _open(r, key)
        calls = r.paper.ledgers()[BROKEN].calls
        await _until(lambda: r.paper.ledgers()[BROKEN].calls > calls)
        assert r.gateway.market.book.withdraw(OFFER)
        r.gateway.market.refresh()
        await asyncio.sleep(0.3)  # a try under way ends
        calls = r.paper.ledgers()[BROKEN].calls
        await asyncio.sleep(2.0)
        assert r.paper.ledgers()[BROKEN].calls == calls
