"""Ops mute a source and lift a mute, from the shell and by the operators' port, on the real log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest_asyncio
from aiohttp import web
from typer.testing import CliRunner

from analytics.store import StoreSettings
from broker import source_desk
from broker.admin import make_admin
from broker.auth import new_key
from broker.cli import app
from broker.embedded.tansu import Tansu
from broker.params_control import ParamsControl
from feeds.clock import SystemClock
from feeds.control_records import KeyPolicy
from feeds.estimate import EstimateSettings, Estimation
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.market_records import SourceRecord
from feeds.producer import LogProducer
from feeds.topics import SOURCES, TOPICS
from tests.bench.market import catalogue
from tests.fakes.log_rig import until

CLOCK = SystemClock()


@pytest_asyncio.fixture
async def kafka() -> AsyncIterator[KafkaSettings]:
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        await ensure_topics(settings, TOPICS)
        yield settings


async def shell(kafka: KafkaSettings, tmp_path: Path, *words: str) -> tuple[int, Any]:
    config = tmp_path / "broker.json"
    config.write_bytes(msgspec.json.encode({"kafka": kafka}))
    asked = [*words, "--config", str(config), "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, app, ["source", *asked])
    return result.exit_code, msgspec.json.decode(result.stdout.splitlines()[-1])


async def test_a_mute_is_listed_and_lifted_from_the_shell(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    now_us = CLOCK.now_us()
    async with LogProducer(kafka) as producer:
        until_us = now_us + 10**12
        muted = SourceRecord(
            source="liar", at_us=now_us, until_us=until_us, by="e", offer="p/m", n_conflicts=100.0
        )
        await producer.publish(SOURCES, [muted])
    estimation = Estimation(EstimateSettings(), kafka, CLOCK, catalogue(3))
    running = asyncio.create_task(estimation.run())
    try:
        hearsay = estimation.quoter.hearsay
        await until(lambda: hearsay.is_muted("liar", CLOCK.now_us()))
        code, told = await shell(kafka, tmp_path, "list")
        row = told["sources"][0]
        assert (code, row["source"], row["muted"], row["offer"]) == (0, "liar", True, "p/m")
        code, told = await shell(kafka, tmp_path, "unmute", "honest", "--why", "x")
        assert code == 1
        assert "liar" in told["error"]
        code, told = await shell(kafka, tmp_path, "unmute", "liar", "--why", "clock was off")
        assert (code, told["muted"], told["why"]) == (0, False, "clock was off")
        await until(lambda: not hearsay.is_muted("liar", CLOCK.now_us()))
        code, told = await shell(kafka, tmp_path, "mute", "liar", "--why", "again", "--for", "1h")
        assert (code, told["muted"]) == (0, True)
        assert told["until_us"] - told["at_us"] == 3_600_000_000
        await until(lambda: hearsay.is_muted("liar", CLOCK.now_us()))
    finally:
        estimation.stop()
        await running


async def test_the_operators_port_mutes_and_lifts_and_lets_nobody_else(
    kafka: KafkaSettings,
) -> None:
    control = ParamsControl(kafka, StoreSettings(), CLOCK)
    keys = {}
    for scope in ("ops", "app"):
        keys[scope], record = new_key(
            "t", (scope,), at_us=CLOCK.now_us(), by="test", policy=KeyPolicy()
        )
        control.keys.apply(record)
    runner = web.AppRunner(make_admin(control, CLOCK, "http://x", StoreSettings(), kafka))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}/admin/sources"

    async def ask(method: str, path: str = "", body: Any = None, key: str = "ops") -> Any:
        headers = {"Authorization": f"Bearer {keys[key]}"}
        async with http.request(method, base + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    try:
        async with aiohttp.ClientSession() as http:
            assert (await ask("GET", key="app"))[0] == 403
            assert (await ask("POST", "/liar/mute", {"why": "x"}, key="app"))[0] == 403
            assert (await ask("POST", "/liar/unmute", {"why": "x"}))[0] == 404
            assert (await ask("POST", "/liar/mute", {"why": "x", "for_s": 0}))[0] == 400
            assert (await ask("POST", "/liar/mute", {"for_s": 60}))[0] == 400
            status, told = await ask("POST", "/liar/mute", {"why": "seen", "for_s": 60})
            assert (status, told["muted"], told["why"]) == (200, True, "seen")
            listed = (await ask("GET"))[1]["sources"]
            assert [(s["source"], s["muted"]) for s in listed] == [("liar", True)]
            assert (await ask("POST", "/liar/unmute", {"why": "fixed"}))[0] == 200
            assert not (await source_desk.listing(kafka, CLOCK.now_us()))[0]["muted"]
    finally:
        await runner.cleanup()
        await control.close()
