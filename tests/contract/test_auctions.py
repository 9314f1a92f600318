"""`POST /v1/auctions` on a real socket: a decision alone is among offers that can do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes.gateway_rig import Rig, rig


async def auction(r: Rig, key: str, **body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with r.http.post(r.gateway.url + "/v1/auctions", json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_vectors_are_not_sold_to_who_wants_an_answer(tmp_path: Path) -> None:
    models = ("llama-3-8b", "text-embedding-3-small")
    async with rig(tmp_path, providers=("groq", "openai"), models=models) as r:
        key = r.gateway.key()
        status, told = await auction(r, key, input_tokens=10)
        assert status == 200
        assert {bid["offer"] for bid in told["ranked"]} == {"groq/llama-3-8b"}
        assert told["no_bids"] == {"capability": 1}
        _, told = await auction(r, key, input_tokens=10, needs=["embeddings"])
        assert told["winner"] == "openai/text-embedding-3-small"


async def test_what_nobody_can_do_is_named(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=("groq",)) as r:
        key = r.gateway.key()
        reply = await r.ask(key, verbosity="low")
        assert reply.status == 422
        assert reply.body["error"]["needs"] == ["chat", "verbosity"]
        assert "it needs chat, verbosity" in reply.body["error"]["message"]
