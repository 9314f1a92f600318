"""A prompt's features reach the auction and the record; without weights nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.embedding import PromptFeatures
from bidding.features import N_FEATURES
from broker.features import FeatureCache
from broker.prompts import PromptReader, asked_last
from broker.wire.neutral import Message, NeutralRequest, Text
from feeds.records import DecisionRecord
from tests.fakes.gateway_rig import rig

LONG = "Prove that there are infinitely many primes, and say where each step is used. " * 12


@pytest.fixture(scope="module")
def cache() -> FeatureCache:
    found = FeatureCache.load()
    if not found.available:
        pytest.skip("the extra [features] is not installed")
    return found


def said(*turns: tuple[str, str]) -> NeutralRequest:
    messages = tuple(Message(role, (Text(text),)) for role, text in turns)
    return NeutralRequest(model="market", messages=messages)


def test_the_last_turn_of_the_user_is_what_is_asked() -> None:
    request = said(("system", "s"), ("user", "one"), ("assistant", "a"), ("user", "two"))
    assert asked_last(request) == "two"
    assert asked_last(said(("system", "s"))) == ""


async def test_long_and_short_prompts_are_read_alike_and_once(cache: FeatureCache) -> None:
    reader = PromptReader(cache)
    for text in ("What is 6 * 7?", LONG):
        before = cache.n_misses
        first = await reader.read(said(("user", text)))
        again = await reader.read(said(("system", "other"), ("user", text)))
        assert len(first) == N_FEATURES
        assert again is first
        assert cache.n_misses == before + 1
    assert await reader.read(said(("system", "no question"))) == ()
    reader.close()
    assert await reader.read(said(("user", "What is 6 * 7?"))) == ()


async def test_what_the_auction_read_is_on_the_record(tmp_path: Path, cache: FeatureCache) -> None:
    async with rig(tmp_path) as r:
        key = r.gateway.key()
        assert (await r.ask(key, "Without weights")).status == 200
        r.gateway.state.prompts = PromptReader(cache)
        assert (await r.ask(key, "What is 6 * 7?")).status == 200
        assert (await r.ask(key, LONG, stream=True)).status == 200
        plain, short, long = await r.gateway.written(DecisionRecord)
        assert plain.features == []
        assert tuple(short.features) == cache.cached("What is 6 * 7?")
        assert tuple(long.features) == cache.cached(LONG)
        assert "What is" not in repr(short)
        assert "primes" not in repr(long)


def test_there_are_none_without_weights() -> None:
    source: PromptFeatures | None = None
    empty = FeatureCache(source)
    assert not empty.available
    assert empty.features("anything") is None
