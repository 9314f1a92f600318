"""A recorder at work beside a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from analytics.recorder import RecorderSettings, Recording
from analytics.store import Store
from feeds.batch import BatchSettings
from feeds.kafka import KafkaSettings
from feeds.pipeline import PipelineSettings


@asynccontextmanager
async def recording(
    kafka: KafkaSettings, store: Store, *, max_records: int, max_wait_ms: int
) -> AsyncIterator[asyncio.Task[None]]:
    """Its task, which ends with the block; batches as small and as soon as told."""
    batch = BatchSettings(max_records=max_records, max_wait_ms=max_wait_ms)
    batches = PipelineSettings(batch=batch)
    made = Recording(kafka, store.settings, RecorderSettings(facts=batches, changes=batches))
    running = asyncio.create_task(made.run())
    try:
        yield running
    finally:
        made.stop()
        await running
