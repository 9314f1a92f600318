"""The OpenAI client and LiteLLM telling a real gateway of their calls at paper sellers."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from bidding.outcome import FailureClass
from feeds.push.openai_client import failure_of, watch
from feeds.push.pusher import Pusher
from feeds.records import AttemptRecord
from feeds.told import TelemetryLine
from tests.contract.test_telemetry import source_key
from tests.fakes.gateway_rig import Rig, rig

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "What is 6 * 7?"}]}


@asynccontextmanager
async def pushing(
    tmp_path: Path, provider: str = "groq"
) -> AsyncIterator[tuple[Rig, Pusher, str, str]]:
    """A rig, a pusher to its gateway, and the paper seller's address and model."""
    async with rig(tmp_path) as r:
        pusher = Pusher(r.gateway.url, source_key(r.gateway), flush_s=0.01, timeout_s=60)
        seller = r.gateway.market.catalogue.provider(provider)
        offers = r.gateway.market.catalogue.offers
        model = next(o.wire_model for o in offers if o.provider == provider)
        try:
            yield r, pusher, seller.base_url, model
        finally:
            await asyncio.to_thread(pusher.close)


async def told(r: Rig, pusher: Pusher) -> list[AttemptRecord]:
    assert await asyncio.to_thread(pusher.flush)
    pushed: list[AttemptRecord] = await r.gateway.written(AttemptRecord)
    return pushed


async def test_an_async_openai_client_is_watched(tmp_path: Path) -> None:
    async with pushing(tmp_path) as (r, pusher, url, model):
        plain = openai.AsyncOpenAI(base_url=url, api_key=r.paper.api_key, max_retries=0)
        async with watch(plain, pusher, provider="groq", task="math") as client:
            whole = await client.chat.completions.create(model=model, **ASKED)
            assert whole.choices[0].message.content
            stream = await client.chat.completions.create(
                model=model, stream=True, stream_options={"include_usage": True}, **ASKED
            )
            text = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            assert "".join(text)
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="nothing", **ASKED)
        first, second = await told(r, pusher)
        assert (first.offer, first.task, first.streaming) == ("groq/llama-3-8b", "math", False)
        assert first.input_tokens > 0
        assert first.output_tokens > 0
        assert first.total_ms is not None
        assert second.ttft_ms is not None
        assert (second.total_ms or 0) >= second.ttft_ms > 0
        assert second.output_tokens > 0
        assert pusher.n_refused == 1  # a model that nobody here sells


async def test_a_sync_client_works_as_before_and_tells_how_it_failed(tmp_path: Path) -> None:
    async with pushing(tmp_path) as (r, pusher, url, model):

        def work() -> None:
            plain = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
            with (
                watch(plain, pusher, provider="groq") as client,
                pytest.raises(openai.AuthenticationError),
            ):
                client.chat.completions.create(model=model, **ASKED)
            good = openai.OpenAI(base_url=url, api_key=r.paper.api_key, max_retries=0)
            with watch(good, pusher, provider="groq") as client:
                with client.chat.completions.create(model=model, stream=True, **ASKED) as stream:
                    assert list(stream)
                with client.chat.completions.create(model=model, stream=True, **ASKED) as stream:
                    assert next(stream).id
                for _ in client.chat.completions.create(model=model, stream=True, **ASKED):
                    break

        await asyncio.to_thread(work)
        found = await told(r, pusher)
        failures = [a.failure for a in found]
        assert failures[:3] == [FailureClass.AUTH, FailureClass.OK, FailureClass.CANCELLED]
        assert set(failures[3:]) <= {FailureClass.CANCELLED}


def test_errors_of_the_client_are_known() -> None:
    assert failure_of(None) is FailureClass.OK
    assert failure_of(asyncio.CancelledError()) is FailureClass.CANCELLED
    assert failure_of(ValueError()) is FailureClass.SERVER_ERROR
    timeout = openai.APITimeoutError(request=None)
    assert failure_of(timeout) is FailureClass.TIMEOUT_TOTAL


def test_a_pusher_keeps_what_the_broker_does_not_take_and_drops_the_oldest() -> None:
    pusher = Pusher("http://127.0.0.1:9", "k", flush_s=0.01, max_lines=5, timeout_s=0.2)
    for i in range(12):
        pusher.tell(TelemetryLine(offer=f"p/{i}"))
    assert not pusher.flush(0.1)
    pusher.close(2.0)
    assert pusher.n_sent == 0
    assert pusher.n_dropped >= 7
    with pytest.raises(ValueError, match="no http address"):
        Pusher("file:///etc/passwd", "k")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="needs [litellm]")
@pytest.mark.filterwarnings("ignore")
async def test_litellm_tells_of_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    from feeds.push.litellm_callback import BrokerCallback

    async with pushing(tmp_path, "together") as (r, pusher, url, model):
        monkeypatch.setattr(litellm, "callbacks", [BrokerCallback(pusher)])
        asked: dict[str, Any] = {
            "model": f"together_ai/{model}",
            "api_base": url,
            "num_retries": 0,
        } | ASKED
        key = r.paper.api_key
        await litellm.acompletion(api_key=key, **asked)
        stream = await litellm.acompletion(api_key=key, stream=True, **asked)
        assert [c async for c in stream]
        with pytest.raises(litellm.AuthenticationError):
            await litellm.acompletion(api_key="wrong", **asked)
        found: list[AttemptRecord] = []
        for _ in range(200):  # LiteLLM logs some time after the call
            found = await told(r, pusher)
            if len(found) >= 3:
                break
            await asyncio.sleep(0.05)
        by_failure = sorted(found, key=lambda a: a.failure)
        assert [a.failure for a in by_failure] == [
            FailureClass.AUTH,
            FailureClass.OK,
            FailureClass.OK,
        ]
        assert {a.offer for a in found} == {"together/llama-3-8b"}
        streamed = next(a for a in found if a.streaming)
        whole = next(a for a in found if not a.streaming and a.failure is FailureClass.OK)
        assert whole.output_tokens > 0
        assert whole.total_ms is not None
        assert streamed.ttft_ms is not None
