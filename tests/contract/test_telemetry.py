"""`POST /v1/telemetry` at a real gateway: what is taken and what is refused."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bidding.outcome import FailureClass
from broker import telemetry
from broker.auth import Scope, new_key
from broker.telemetry import MAX_WAITING, PIECE_BYTES, pieces
from feeds.control_records import KeyPolicy
from feeds.records import AttemptRecord, DeadRecord
from tests.fakes.gateway_rig import Gateway, Reply, Rig, rig

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OFFER = "groq/llama-3-8b"


def source_key(
    gateway: Gateway, *scopes: Scope, source: str = "acme-eu", trust: float = 0.4
) -> str:
    key, record = new_key(
        "acme",
        scopes or ("telemetry",),
        at_us=1,
        by="t",
        policy=KeyPolicy(source=source, trust=trust),
    )
    gateway.market.keys.apply(record)
    return key


async def push(r: Rig, key: str, body: bytes, **headers: str) -> Reply:
    sent = {"Authorization": f"Bearer {key}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    async with r.http.post(
        f"{r.gateway.url}/v1/telemetry", data=io.BytesIO(body), headers=sent
    ) as response:
        return Reply(response.status, response.headers, json.loads(await response.read()))


def ndjson(*lines: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(line).encode() for line in lines)


async def test_events_become_attempts_marked_with_their_source_and_trust(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        key = source_key(r.gateway)
        now_us = r.gateway.state.clock.now_us()
        told = await push(
            r,
            key,
            ndjson(
                {"offer": OFFER, "at_us": now_us - 5_000_000, "ttft_ms": 210.5, "latency_ms": 900},
                {"offer": OFFER, "error": "timeout_ttft", "waited_ms": 3_000},
            ),
        )
        assert (told.status, told.body) == (202, {"accepted": 2, "refused": 0, "errors": []})
        good, late = await r.gateway.written(AttemptRecord)
        assert (good.source, good.pusher, good.trust, good.tenant) == (
            "pushed",
            "acme-eu",
            0.4,
            "acme",
        )
        assert (good.offer, good.provider, good.model) == (OFFER, "groq", "llama-3-8b")
        assert (good.ttft_ms, good.total_ms, good.failure) == (210.5, 900, FailureClass.OK)
        assert (good.at_us, good.started_at_us) == (now_us - 5_000_000, now_us - 5_900_000)
        assert (late.failure, late.waited_ms, late.total_ms) == ("timeout_ttft", 3_000, None)
        assert good.attempt_id != late.attempt_id
        assert good.cost_nusd == late.cost_nusd == 0
        assert 'broker_telemetry_events_total{source="acme-eu",verdict="accepted"} 2.0' in (
            r.gateway.state.metrics.exposition().decode()
        )


async def test_bad_lines_go_to_the_dead_letters_and_the_rest_is_kept(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        key = source_key(r.gateway)
        now_us = r.gateway.state.clock.now_us()
        body = b"\n".join(
            [
                ndjson({"offer": OFFER}),
                b"not json",
                b"\xff\xfe",
                ndjson({"offer": OFFER, "ttft_ms": -1}),
                ndjson({"offer": "nobody/nothing"}),
                ndjson({"offer": OFFER, "ttfft_ms": 3}),
                ndjson({"offer": OFFER, "at_us": now_us - 3 * 3_600_000_000}),
                ndjson({"offer": OFFER, "at_us": now_us + 120_000_000}),
                b"[" * 5_000,
                b"",
                ndjson({"offer": OFFER, "error": "overloaded"}),
            ]
        )
        told = await push(r, key, body)
        assert told.status == 202
        assert (told.body["accepted"], told.body["refused"]) == (2, 8)
        assert [e["line"] for e in told.body["errors"]] == list(range(1, 9))
        assert "ttft_ms" in told.body["errors"][4]["remedy"]
        assert len(await r.gateway.written(AttemptRecord)) == 2
        dead = await r.gateway.written(DeadRecord)
        assert len(dead) == 8
        assert {d.topic for d in dead} == {"http:/v1/telemetry"}
        assert dead[0].payload == b"not json"
        assert all(d.reason for d in dead)


async def test_a_flood_of_bad_lines_is_counted_but_not_kept_whole(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        told = await push(r, source_key(r.gateway), b"x\n" * 5_000)
        assert (told.body["accepted"], told.body["refused"]) == (0, 5_000)
        assert len(told.body["errors"]) == 20
        assert len(await r.gateway.written(DeadRecord)) == 101


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_compressed_bodies_are_read_up_to_a_decompressed_size(
    tmp_path: Path, encoding: str, packed: Any
) -> None:
    settings = {"gateway": {"max_telemetry_bytes": 1_000_000}}
    async with rig(tmp_path, settings=_gateway(settings)) as r:
        key = source_key(r.gateway)
        small = ndjson(*[{"offer": OFFER, "ttft_ms": i} for i in range(3_000)])
        told = await push(r, key, packed(small), content_encoding=encoding)
        assert (told.status, told.body["accepted"]) == (202, 3_000)
        bomb = packed(b" " * 50_000_000)
        assert len(bomb) < 100_000
        told = await push(r, key, bomb, content_encoding=encoding)
        assert (told.status, told.body["error"]["code"]) == (413, "body_too_large")
        told = await push(r, key, b"garbage" + packed(small), content_encoding=encoding)
        assert told.status == 400
        assert len(await r.gateway.written(AttemptRecord)) == 3_000


def _gateway(settings: dict[str, Any]) -> dict[str, Any]:
    from broker.config import GatewaySettings

    return {"gateway": GatewaySettings(**settings["gateway"])}


async def test_it_takes_a_key_with_the_scope_and_a_body(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        line = ndjson({"offer": OFFER})
        assert (await push(r, r.gateway.key(), line)).status == 403
        assert (await push(r, "mmb_nobody", line)).status == 401
        assert (await push(r, source_key(r.gateway), b" \n\n")).status == 400
        nameless = source_key(r.gateway, source="")
        assert (await push(r, nameless, line)).status == 202
        assert (await r.gateway.written(AttemptRecord))[0].pusher == "acme"


async def test_a_log_that_is_behind_turns_pushers_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "PATIENCE_S", 0.1)
    async with rig(tmp_path) as r:
        r.gateway.log.may_take.clear()
        key = source_key(r.gateway)
        body = ndjson({"offer": OFFER}) + b"\n"
        told = await push(r, key, body * (MAX_WAITING + 20_000))
        assert told.status == 202
        assert told.body["accepted"] + told.body["refused"] == MAX_WAITING + 20_000
        assert MAX_WAITING < told.body["accepted"] < MAX_WAITING + 2_000
        assert (await push(r, key, body)).status == 429
        r.gateway.log.may_take.set()
        await r.gateway.written(DeadRecord)
        assert (await push(r, key, body)).status == 202


async def test_a_large_body_does_not_hold_up_others(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        pushing = asyncio.create_task(
            push(r, source_key(r.gateway), (ndjson({"offer": OFFER}) + b"\n") * 20_000)
        )
        # On the processor's clock, as a share, and without what other tests have left on the heap
        # to be looked through: what else the machine does and how fast it is are not our doing.
        gc.collect()
        gc.freeze()
        longest, begun = 0.0, time.thread_time()
        last = begun
        while not pushing.done():
            await asyncio.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
        gc.unfreeze()
        assert (await pushing).body["accepted"] == 20_000
        assert longest < (last - begun) / 4, (longest, last - begun)


def test_pieces_are_whole_lines() -> None:
    lines = [b"%d" % i * (i % 700) for i in range(2_000)] + [b"y" * (2 * PIECE_BYTES)]
    body = b"\n".join(lines)
    found = list(pieces(body))
    assert b"".join(found) == body
    assert [line for piece in found for line in piece.splitlines()] == body.splitlines()
    assert max(len(p) for p in found[:-1]) <= 3 * PIECE_BYTES
