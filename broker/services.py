"""The services behind `broker estimate`, `record`, `feed run`: wired, signalled, ended in order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, start_http_server

from analytics.recorder import Recording
from analytics.season_job import SeasonJob
from bidding.errors import MarketError
from bidding.market import Catalogue
from broker.config import ConfigError, Settings
from broker.metrics import RecorderMetrics
from broker.providers.capable import completed, missing_packages
from feeds.clock import SystemClock
from feeds.estimate import Estimation

logger = logging.getLogger(__name__)


def read_catalogue(settings: Settings) -> Catalogue:
    """The catalogue that the settings name.

    Raises
    ------
    ConfigError
        No file is named, it cannot be read, or it contradicts itself.
    """
    if not settings.catalogue:
        raise ConfigError(["catalogue: missing; name a file of providers, models and offers"])
    try:
        content = Path(settings.catalogue).read_bytes()
        catalogue = completed(msgspec.json.decode(content, type=Catalogue).checked())
    except OSError as error:
        raise ConfigError([f"catalogue: {settings.catalogue}: {error.strerror}"]) from error
    except (msgspec.DecodeError, MarketError) as error:
        raise ConfigError([f"catalogue: {settings.catalogue}: {error}"]) from error
    for provider, extra in missing_packages(catalogue).items():
        logger.warning("offers of %s are disabled: install the extra [%s]", provider, extra)
    return catalogue


def on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def estimate(settings: Settings) -> None:
    """Run the estimators until told to stop."""
    estimation = Estimation(
        settings.estimate, settings.kafka, SystemClock(), read_catalogue(settings)
    )
    on_signals(estimation.stop)
    await estimation.run()


async def feed(settings: Settings) -> None:
    """Poll the feeds until told to stop."""
    from feeds.polling import Polling

    polling = Polling(settings.feeds, settings.kafka, SystemClock(), read_catalogue(settings))
    on_signals(polling.stop)
    await polling.run()


async def record(settings: Settings) -> None:
    """Run the recorder until told to stop."""
    recording = Recording(settings.kafka, settings.store)
    on_signals(recording.stop)
    if settings.metrics.recorder_port:
        registry = CollectorRegistry()
        registry.register(RecorderMetrics(recording.stats, SystemClock()))
        start_http_server(settings.metrics.recorder_port, settings.metrics.host, registry)
    seasons = asyncio.create_task(SeasonJob(settings.kafka, settings.store).run())
    try:
        await recording.run()
    finally:
        seasons.cancel()
        await asyncio.gather(seasons, return_exceptions=True)
