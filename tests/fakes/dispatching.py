"""A dispatcher over scripted sellers, ready to be ordered from."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bidding.decision import Bid, Decision
from bidding.market import Offer, PriceList, Provider
from bidding.waiting import Forecast
from broker.dispatch import Dispatcher
from broker.dispatch_settings import DispatchSettings
from broker.order import Order
from broker.providers.base import Seat
from broker.upstream import Upstream, UpstreamSettings
from broker.wire.neutral import Message, NeutralRequest, Text
from feeds.clock import SystemClock
from feeds.records import AttemptRecord
from tests.fakes.scripted_seller import ScriptedSeller, selling

PRICES = PriceList(input_nusd_per_mtok=10**9, output_nusd_per_mtok=2 * 10**9)


def seat(name: str, url: str, wire: Any = "openai", **more: Any) -> Seat:
    provider = Provider(
        id=name, name=name, wire=wire, base_url=url + "/v1", jurisdiction="us", **more
    )
    return Seat(offer=Offer(provider=name, model="m", prices=PRICES), provider=provider, key="k-1")


def request(stream: bool = False, **more: Any) -> NeutralRequest:
    messages = (Message("user", (Text("What is two and two?"),)),)
    return NeutralRequest(model="market", messages=messages, stream=stream, **more)


def decision(offers: Sequence[str]) -> Decision:
    ranked = tuple(Bid(o, i, float(i), 100.0, 0.9, 0.9) for i, o in enumerate(offers))
    return Decision(
        view_number=1,
        params_version=1,
        policy="test",
        seed=1,
        ranked=ranked,
        n_bids=len(ranked),
        no_bids={},
        clearing_price_nusd=None,
        propensity=1.0,
        feasible=True,
        quality_price_nusd=0.0,
        punctuality_price_nusd=0.0,
        best=None,
        cheapest=None,
    )


class Market:
    """Sellers named a, b, c … in the order of the ranking."""

    def __init__(
        self,
        upstream: Upstream,
        seats: Sequence[Seat],
        settings: DispatchSettings,
        forecasts: dict[str, Forecast],
    ) -> None:
        self.clock = SystemClock()
        self.records: list[AttemptRecord] = []
        self.seats = {s.offer.id: s for s in seats}
        self.dispatcher = Dispatcher(
            upstream=upstream,
            seats=self.seats.get,
            forecasts=forecasts.get,
            settings=settings,
            clock=self.clock,
            rng=random.Random(1),
            on_attempt=self.records.append,
        )
        self._n = 0

    def order(
        self,
        stream: bool = False,
        *,
        hard_ms: float = 10_000.0,
        latency_ms: float | None = None,
        ttft_ms: float | None = None,
        hedge: bool = False,
        offers: Sequence[str] | None = None,
        output_tokens: float = 20.0,
        **more: Any,
    ) -> Order:
        self._n += 1
        now = self.clock.monotonic_ns()
        return Order(
            decision_id=f"d{self._n}",
            decision=decision(list(self.seats) if offers is None else offers),
            request=request(stream, **more),
            tenant="t",
            task="chat",
            sla_class="t|chat",
            started_ns=now,
            deadline_ns=now + round(hard_ms * 1e6),
            input_tokens=10,
            output_tokens=output_tokens,
            ttft_target_ns=None if ttft_ms is None else now + round(ttft_ms * 1e6),
            latency_target_ns=None if latency_ms is None else now + round(latency_ms * 1e6),
            hedge=hedge,
        )

    def ends(self) -> list[tuple[str, str]]:
        return [(r.provider, str(r.failure)) for r in self.records]


@asynccontextmanager
async def market(
    *sellers: ScriptedSeller,
    ttft_ms: float | None = None,
    wires: Sequence[str] = (),
    connect_s: float = 1.0,
    providers: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Market]:
    """A market of `sellers`; `ttft_ms` is what is believed of each one's first token."""
    upstream = Upstream(UpstreamSettings(connect_timeout_s=connect_s))
    async with selling(*sellers):
        names = "abcdefgh"[: len(sellers)]
        seats = [
            seat(n, s.url, wires[i] if wires else "openai", **(providers or {}))
            for i, (n, s) in enumerate(zip(names, sellers, strict=True))
        ]
        forecasts = {}
        if ttft_ms is not None:
            one = Forecast(math.log(ttft_ms), 0.3, math.log(1.0))
            forecasts = {s.offer.id: one for s in seats}
        await upstream.start()
        try:
            yield Market(upstream, seats, DispatchSettings(**settings), forecasts)
        finally:
            await upstream.close()
