"""Two tenants on one market: whatever is asked by id is there for its owner alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.gateway import ROUTES
from broker.key_commands import create_key
from feeds.control_records import KeyPolicy
from tests.fakes.up_rig import QUESTION, Market, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNKNOWN = "dec_" + "0" * 32
BY_ID = [
    (method, path)
    for method, path, scope, _ in ROUTES
    if scope in ("app", "seller") and "{" in path
]


async def tenant_key(market: Market, tenant: str) -> str:
    key, _ = await create_key(market.up.settings, tenant, ("app",), policy=KeyPolicy())

    async def in_force() -> bool:
        return (await market.send("GET", "/v1/models", key=key)).status == 200

    await polled(in_force, f"the key of {tenant}", 5.0)
    return key


async def bought(market: Market, key: str) -> str:
    body = {"model": "market:math", "messages": QUESTION}
    reply = await market.send("POST", "/v1/chat/completions", key=key, json=body)
    assert reply.status == 200
    return str(reply.headers["x-broker-decision"])


def filled(path: str, wanted: str) -> str:
    """The path with every one of its parameters being `wanted`."""
    head, _, rest = path.partition("{")
    return head if not rest else head + wanted + filled(rest.partition("}")[2], wanted)


async def test_ids_of_another_tenant_are_as_unknown_as_ids_of_nobody(market: Market) -> None:
    mine, theirs = await tenant_key(market, "tenant-a"), await tenant_key(market, "tenant-b")
    decision = await bought(market, mine)
    outcome = {"decision_id": decision, "quality": 1, "source": "user"}
    own = await market.send("GET", f"/v1/decisions/{decision}", key=mine)
    assert own.status == 200
    assert own.body["asked"]["sla_class"].startswith("tenant-a|")

    async def stored() -> bool:
        found = await market.rows(
            f"SELECT tenant FROM market.decisions WHERE decision_id = '{decision}'"
        )
        return found == [("tenant-a",)]

    for is_stored in (False, True):  # from the gateway's memory, and from the store's history
        if is_stored:
            await polled(stored, "the decision in history")
        for query in ("", "?replay=1"):
            path = f"/v1/decisions/{decision}{query}"
            refused = await market.send("GET", path, key=theirs)
            assert_unknown(refused, decision)
            assert_unknown(
                await market.send("GET", path.replace(decision, UNKNOWN), key=theirs), UNKNOWN
            )
        assert_unknown(
            await market.send("POST", "/v1/outcomes", key=theirs, json=outcome), decision
        )
    # Among good lines of their own, a line about another's decision is refused by itself.
    good = {"decision_id": await bought(market, theirs), "quality": 1, "source": "user"}
    lines = "\n".join(json.dumps(line) for line in (good, outcome))
    batch = await market.send("POST", "/v1/outcomes", key=theirs, data=lines)
    assert batch.status == 202
    assert batch.body["accepted"] == 1, batch.body
    assert [e["line"] for e in batch.body["errors"]] == [1]
    # Nobody else's score has reached the decision.
    told = (await market.send("GET", f"/v1/decisions/{decision}", key=mine)).body
    assert "tenant-b" not in json.dumps(told)
    assert not await market.rows(f"SELECT 1 FROM market.feedback WHERE decision_id = '{decision}'")


@pytest.mark.parametrize(("method", "path"), BY_ID)
async def test_every_route_that_takes_an_id_hides_it(
    market: Market, method: str, path: str
) -> None:
    """Routes yet to be made, too: an id in the path is its owner's alone."""
    mine, theirs = await tenant_key(market, "tenant-c"), await tenant_key(market, "tenant-d")
    decision = await bought(market, mine)
    for wanted in (decision, UNKNOWN):
        reply = await market.send(method, filled(path, wanted), key=theirs)
        assert reply.status in (403, 404), f"{method} {path}: {reply.status} {reply.body}"


def assert_unknown(reply: Any, wanted: str) -> None:
    assert reply.status == 404
    assert reply.body["error"]["code"] == "not_found"
    assert reply.body["error"]["message"] == f"no decision {wanted!r}"
