"""What the gateway refuses, how it says so, and what it never loses over it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.gateway import ROUTES
from feeds.records import DeadRecord
from tests.fakes.up_rig import QUESTION, Market, polled, read_topic

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("sla", "path"),
    [
        ({"qualty": 0.9}, "sla.qualty"),
        ({"quality": "high"}, "sla.quality"),
        ({"quality": 1.5}, "sla.quality"),
        ({"ttft_ms": -1}, "sla.ttft_ms"),
        ({"compliance": {"region": ["eu"]}}, "sla.compliance.region"),
        ({"on_miss": "explode"}, "sla.on_miss"),
    ],
)
async def test_a_wrong_sla_is_named_by_path_with_a_remedy(
    market: Market, sla: dict[str, Any], path: str
) -> None:
    reply = await market.ask(sla=sla)
    assert reply.status == 400
    error = reply.body["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == path
    assert error["remedy"]


async def test_an_unknown_model_is_answered_with_near_names(market: Market) -> None:
    reply = await market.ask("gpt-4o-mimi")
    assert reply.status == 404
    assert reply.body["error"]["code"] == "model_not_found"
    assert "gpt-4o-mini" in reply.body["error"]["near"]


async def test_what_nobody_can_meet_is_rejected_with_counts_where_asked(market: Market) -> None:
    sla = {"quality": 0.9999, "on_miss": "reject"}
    reply = await market.ask(sla=sla)
    assert reply.status == 422
    assert sum(reply.body["error"]["no_bids"].values()) == len(market.up.catalogue.offers)
    assert reply.body["error"]["no_bids"]["quality_floor"] > 0
    nowhere = {"compliance": {"regions": ["atlantis"]}}
    turned_away = (await market.ask(sla=nowhere)).body["error"]["no_bids"]
    assert sum(turned_away.values()) == len(market.up.catalogue.offers)
    assert turned_away["region"] > 100


async def test_best_effort_is_marked(market: Market) -> None:
    reply = await market.ask(sla={"quality": 0.9999, "strict": True})
    assert reply.status == 200
    assert reply.headers["x-broker-sla"] == "best_effort"


async def test_every_route_refuses_whoever_lacks_its_scope(market: Market) -> None:
    for method, path, scope, _ in ROUTES:
        target = re.sub(r"{name:[^}]+}", "page.css", path)
        target = target.replace("{id}", "dec_nobody").replace("{name}", "savings")
        if scope is None:
            assert (await market.send(method, target, key="")).status == 200
            continue
        assert (await market.send(method, target, key="")).status == 401
        assert (await market.send(method, target, key="mmb_wrong")).status == 401
        for other, key in market.up.keys.items():
            if other != scope:
                reply = await market.send(method, target, key=key)
                assert reply.status == 403, (method, path, other)
                assert "lacks the scope" in reply.body["error"]["message"]


async def test_nobody_learns_whether_anothers_decision_exists(market: Market) -> None:
    unknown = await market.send("GET", "/v1/decisions/dec_00000000000000000000000000000000")
    assert unknown.status == 404
    assert unknown.body["error"]["code"] == "not_found"


async def test_a_bad_line_becomes_a_dead_letter_and_spoils_no_good_one(market: Market) -> None:
    decision = (await market.ask(sla={"quality": 0.9})).headers["x-broker-decision"]
    lines = [
        json.dumps({"decision_id": decision, "quality": 1.0}),
        '{"decision_id": "x", "quality": 7}',
        "not json at all",
        json.dumps({"decision_id": "dec_unknown", "quality": 1.0}),
    ]
    reply = await market.send("POST", "/v1/outcomes", data="\n".join(lines))
    assert reply.status == 202
    assert (reply.body["accepted"], reply.body["refused"]) == (1, 3)
    assert [e["line"] for e in reply.body["errors"]] == [1, 2, 3]

    async def buried() -> list[DeadRecord]:
        records = await read_topic(market.up.log.bootstrap, "market.dead")
        dead = [r for r in records if isinstance(r, DeadRecord) and b"not json" in r.payload]
        return [r for r in dead if r.reason]

    (letter,) = await polled(buried, "the dead letter")
    assert letter.topic == "http:/v1/outcomes"


async def test_a_score_counts_once(market: Market) -> None:
    decision = (await market.ask(sla={"quality": 0.9})).headers["x-broker-decision"]
    line = {"decision_id": decision, "quality": 1.0, "source": "verifier"}
    assert (await market.send("POST", "/v1/outcomes", json=line)).status == 202
    again = await market.send("POST", "/v1/outcomes", json=line)
    assert again.status == 400
    assert "already" in again.body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b'{"model": "market", "messages": ' + b"[" * 500 + b"]" * 500 + b"}", 400),
        (b"\xff\xfe", 400),
        (b'{"model": "market"}', 400),
        (b'{"model": "market", "messages": [], "temprature": 1}', 400),
        (b" " * 1_100_000, 413),
    ],
)
async def test_malformed_bodies_are_refused_in_shape(
    market: Market, body: bytes, status: int
) -> None:
    reply = await market.send("POST", "/v1/chat/completions", data=io.BytesIO(body))
    assert reply.status == status
    assert reply.body["error"]["message"]
    assert reply.body["error"]["type"] == "invalid_request_error"


async def test_unknown_paths_and_methods_are_answered_in_shape(market: Market) -> None:
    assert (await market.send("GET", "/v1/nothing")).body["error"]["code"] == "not_found"
    assert (await market.send("GET", "/v1/chat/completions")).status == 405


async def test_a_broken_config_is_refused_with_all_faults_at_once(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text('data_dri = "x"\nlog_level = 3\n[gateway]\nport = 99999\n')
    command = [sys.executable, "-m", "broker", "serve", "--config", str(config)]
    done = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await done.communicate()
    assert done.returncode == 2
    for fault in (b"did you mean data_dir", b"log_level", b"gateway.port"):
        assert fault in said


async def test_offers_models_and_tasks_can_all_be_named(market: Market) -> None:
    listed = {m["id"] for m in (await market.send("GET", "/v1/models")).body["data"]}
    offer = "novita/qwen2.5-72b"
    for model in ("market", "market:math", "qwen2.5-72b", offer):
        reply = await market.send(
            "POST", "/v1/chat/completions", json={"model": model, "messages": QUESTION}
        )
        assert reply.status == 200
    assert {"market", "qwen2.5-72b", offer} <= listed
    pinned = await market.ask(offer)
    assert pinned.headers["x-broker-offer"] == offer
