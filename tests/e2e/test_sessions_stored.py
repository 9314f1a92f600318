"""Sessions and checks all the way to history: stored, reported, decided again to the last bit."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from analytics import reports
from tests.fakes.up_rig import Market, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_session_is_stored_step_by_step_and_decided_again_exactly(market: Market) -> None:
    talk: list[dict[str, Any]] = [{"role": "system", "content": "You keep a mill's books. " * 500}]
    replies = []
    for n in range(3):
        talk.append({"role": "user", "content": f"Entry {n}: 3 sacks of flour."})
        reply = await market.ask("market:chat", messages=talk, sla={"quality": 0.8})
        assert reply.status == 200, reply.body
        talk.append(reply.body["choices"][0]["message"])
        replies.append(reply)
    session = replies[0].headers["x-broker-session"].partition(";")[0]
    assert [r.headers["x-broker-session"] for r in replies] == [
        f"{session}; step={n}" for n in (1, 2, 3)
    ]
    assert "x-broker-handoff" in replies[2].headers
    decision_id = replies[2].headers["x-broker-decision"]
    told = (await market.send("GET", f"/v1/decisions/{decision_id}?replay=1")).body
    assert told["replay"]["identical"] is True
    assert (told["session"]["session"], told["session"]["step"]) == (session, 3)
    assert told["session"]["switch"]["moved"] == (
        told["decided"]["winner"] != told["session"]["incumbent"]
    )

    async def stored() -> list[dict[str, Any]]:
        found = (await reports.run(market.store, "session_steps", {"session": session})).records()
        return found if len(found) == 3 else []

    steps = await polled(stored, "all steps of the session in its report")
    assert [s["step"] for s in steps] == [1, 2, 3]
    assert [s["incumbent"] for s in steps[1:]] == [s["offer"] for s in steps[:2]]
    moved = [s for s in steps if s["why"]]
    handed = (await reports.run(market.store, "handoffs", {"session": session})).records()
    assert sum(h["times"] for h in handed) == len(moved)


async def test_verdicts_are_stored_and_reported(market: Market) -> None:
    task = f"checked-{uuid.uuid4().hex[:8]}"
    verify = {"regex": "^nothing says this$", "most_answers": 2}
    reply = await market.ask(f"market:{task}", sla={"verify": verify})
    assert reply.headers["x-broker-verify"] == "failed; check=regex; answers=2"

    async def stored() -> list[dict[str, Any]]:
        return (await reports.run(market.store, "checks", {"task": task})).records()

    found = await polled(stored, "the verdicts in their report")
    assert sum(row["answers"] for row in found) == 2
    assert {row["passed_share"] for row in found} == {0.0}
    assert all(row["failed_checks"] == ["regex"] for row in found)
    spent = sum(row["spent_usd"] for row in found)
    assert spent == pytest.approx(float(reply.headers["x-broker-cost-usd"]))
    told = (await market.send("GET", f"/v1/decisions/{reply.headers['x-broker-decision']}")).body
    assert {f["source"] for f in told["feedback"]} == {"verifier"}
    assert told["attempts"][0]["offer"] != told["attempts"][1]["offer"]
