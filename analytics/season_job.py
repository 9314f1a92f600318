"""Once an hour: hour-of-week cells out of ClickHouse, multipliers onto `market.seasons`.

Runs beside every recorder, which has both the store and the log, and one of them does the work: who
finds on the log what another has published less than an hour ago waits until that is due again, and
some time more. So the one that began goes on, and when it is gone another takes its place; two that
begin within the same seconds publish the same twice, once. What cannot be read or written now is
tried again within minutes; the seasons in force stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from analytics.errors import StoreError
from analytics.seasons import SeasonCells, season_cells
from analytics.store import Store, StoreSettings
from bidding.estimators.seasons import SeasonParams, error_season, latency_season
from feeds.clock import Clock, SystemClock
from feeds.compacted import latest
from feeds.errors import FeedError
from feeds.kafka import KafkaSettings
from feeds.market_records import SeasonRecord
from feeds.producer import LogProducer
from feeds.records import Written
from feeds.topics import SEASONS

logger = logging.getLogger(__name__)

LATER_SHARE = 0.05
"""Of an hour, that who stands by is later than who does the work: more than that takes."""


class SeasonSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often seasons are worked out, over how many weeks; older weeks weigh less."""

    every_s: Annotated[float, Meta(gt=0, le=86_400)] = 3_600.0
    again_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    first_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    weeks: Annotated[int, Meta(ge=1, le=100)] = 12
    half_life_weeks: Annotated[float, Meta(gt=0, le=100)] = 6.0


class SeasonJob:
    """`await run()` until cancelled."""

    def __init__(
        self,
        kafka: KafkaSettings,
        store: StoreSettings,
        settings: SeasonSettings | None = None,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._kafka = kafka
        self._store = store
        self._settings = settings or SeasonSettings()
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._boot = secrets.token_hex(8)
        self._seq = 0

    async def run(self) -> None:
        """Work seasons out again and again. Never ends by itself."""
        await asyncio.sleep(self._settings.first_s * (1.0 + self._rng.random()))
        while True:
            try:
                wait_s = await self.turn()
            except (StoreError, FeedError) as error:
                logger.warning("seasons not worked out, trying again later: %s", error)
                wait_s = self._settings.again_s
            await asyncio.sleep(wait_s)

    async def turn(self) -> float:
        """Work them out unless another has since they were due; seconds until the next turn.

        Raises
        ------
        StoreError, FeedError
        """
        known = (record for record, _ in (await latest(self._kafka, SEASONS)).values())
        made = [r for r in known if isinstance(r, SeasonRecord)]
        newest = max(made, key=lambda r: r.at_us, default=None)
        every_s = self._settings.every_s
        if newest is not None and newest.boot != self._boot:
            due_s = every_s - (self._clock.now_us() - newest.at_us) * 1e-6
            if due_s > 0.0:
                return due_s + every_s * LATER_SHARE * (1.0 + self._rng.random())
        n = await self.once()
        logger.info("seasons of %d offers", n)
        return every_s

    async def once(self) -> int:
        """Work them out and publish them; of how many offers.

        Raises
        ------
        StoreError, FeedError
        """
        now_us = self._clock.now_us()
        today = datetime.fromtimestamp(now_us * 1e-6, UTC).date()
        oldest = today - timedelta(days=today.weekday(), weeks=self._settings.weeks)
        async with await Store.open(self._store) as store:
            cells = await season_cells(
                store, now=today, oldest=oldest, half_life_weeks=self._settings.half_life_weeks
            )
        # Some 15 ms an offer: not while the recorder waits for the loop.
        made = await asyncio.to_thread(season_records, cells, now_us)
        if made:
            async with LogProducer(self._kafka) as producer:
                await producer.publish(SEASONS, [self._written(record) for record in made])
        return len(made)

    def _written(self, record: Written) -> Written:
        self._seq += 1
        record.gateway, record.boot, record.seq = "seasons", self._boot, self._seq
        return record


def season_records(
    cells: SeasonCells, now_us: int, params: SeasonParams | None = None
) -> list[SeasonRecord]:
    """Every offer's seasons; 1 at every hour where nothing says otherwise. Pure."""
    residual = np.nan_to_num(cells.log_ttft_residual)
    return [
        SeasonRecord(
            offer=offer,
            at_us=now_us,
            latency=latency_season(
                cells.n_ttft[i], residual[i], cells.n_weeks[i], params
            ).multiplier.tolist(),
            errors=error_season(cells.n_failed[i], cells.n[i], params).multiplier.tolist(),
            n_calls=float(cells.n[i].sum()),
            n_weeks=float(cells.n_weeks[i].max(initial=0.0)),
        )
        for i, offer in enumerate(cells.offers)
    ]
