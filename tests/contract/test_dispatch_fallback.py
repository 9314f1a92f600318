"""Dispatch over real sockets: fallback, deadlines, hang-ups, one record an attempt."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

import pytest

from bidding.errors import BadRequest
from bidding.waiting import Forecast
from broker.errors import DeadlineExceeded, SellersFailed
from broker.wire.neutral import Event, Failed, TextDelta, Usage
from tests.fakes.dispatching import Market, market
from tests.fakes.scripted_seller import (
    DONE,
    FINISH,
    ROLE,
    ScriptedSeller,
    chunk,
    hangs,
    refuses,
    resets,
    sends,
    streams,
    usage_chunk,
)

GOOD = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}


def good(**more: Any) -> ScriptedSeller:
    return ScriptedSeller(streams(["4", " it", " is"], usage=GOOD, **more))


async def streamed(m: Market, **order: Any) -> tuple[str, list[Event]]:
    events: list[Event] = []
    async with await m.dispatcher.open(m.order(True, **order)) as delivery:
        async for batch in delivery:
            events += batch
    return "".join(e.text for e in events if isinstance(e, TextDelta)), events


async def test_the_winner_delivers_whole_and_streamed() -> None:
    async with market(good(), good()) as m:
        delivery = await m.dispatcher.run(m.order())
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "4 it is"
        assert delivery.usage == Usage(input_tokens=12, output_tokens=5)
        text, _ = await streamed(m)
        assert text == "4 it is"
        assert m.ends() == [("a", "ok"), ("a", "ok")]
        first = m.records[0]
        assert first.cost_nusd == 12 * 1000 + 5 * 2000
        assert first.ttft_ms is not None
        assert first.total_ms is not None
        assert 0 < first.ttft_ms <= first.total_ms
        assert m.dispatcher.n_inflight == 0


BROKEN = {
    "reset": (resets, "connect"),
    "500": (refuses(500), "server_error"),
    "429": (refuses(429), "rate_limited"),
    "401": (refuses(401), "auth"),
    "404": (refuses(404), "model_missing"),
    "redirect": (refuses(302, location="http://127.0.0.1:1/"), "malformed"),
    "error in 200": (
        sends(b'{"error":{"message":"overloaded","type":"x"}}', kind="application/json"),
        "overloaded",
    ),
    "empty choices": (sends(b'{"id":"x","choices":[]}', kind="application/json"), "malformed"),
    "html": (sends(b"<html>", kind="text/html"), "malformed"),
    "error after role": (
        sends(ROLE, b'data: {"error":{"message":"boom","type":"server_error"}}\n\n'),
        "server_error",
    ),
    "cut after role": (sends(ROLE), "truncated"),
    "no json": (sends(b"data: {nonsense\n\n"), "malformed"),
    "empty": (sends(), "malformed"),
    "done without finish": (sends(ROLE, DONE), "truncated"),
    "long line": (sends(*[b"x" * 65536] * 20), "malformed"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_before_output_falls_back(name: str, stream: bool) -> None:
    script, failure = BROKEN[name]
    async with market(ScriptedSeller(script), good()) as m:
        if stream:
            text, events = await streamed(m)
            assert not any(isinstance(e, Failed) for e in events)
        else:
            delivery = await m.dispatcher.run(m.order())
            assert delivery.answer is not None
            text = delivery.answer.choices[0].text
        assert text == "4 it is"
        assert m.ends() == [("a", failure), ("b", "ok")]
        assert m.records[0].cost_nusd == 0


async def test_a_refused_port_and_a_full_backlog_fall_back() -> None:
    dead = good()
    async with market(dead, good(), connect_s=0.2) as m:
        one = m.seats["a/m"]
        m.seats["a/m"] = type(one)(
            offer=one.offer,
            provider=type(one.provider)(
                id="a", name="a", wire="openai", base_url="http://127.0.0.1:1/v1", jurisdiction="us"
            ),
        )
        assert (await streamed(m))[0] == "4 it is"
        assert m.ends() == [("a", "connect"), ("b", "ok")]


async def test_a_seller_that_never_answers_is_left_in_time() -> None:
    async with market(ScriptedSeller(hangs), good(), ttft_ms=60.0) as m:
        begun = time.monotonic()
        await m.dispatcher.run(m.order(latency_ms=2000.0))
        assert time.monotonic() - begun < 1.0
        assert m.ends() == [("a", "timeout_ttft"), ("b", "ok")]
        assert m.records[0].waited_ms is not None
        assert m.records[0].waited_ms >= 130.0


async def test_a_late_answer_is_better_than_none_where_nobody_else_is_left() -> None:
    slow = ScriptedSeller(streams(["late"], first_s=0.6, usage=GOOD))
    async with market(slow, ttft_ms=60.0) as m:
        delivery = await m.dispatcher.run(m.order(latency_ms=200.0))
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "late"
        assert m.ends() == [("a", "ok")]


async def test_late_answers_are_better_than_none_where_the_others_may_not_be_asked() -> None:
    """Many calls come to their limits at once, and the only other seller's last call failed."""

    def slow() -> ScriptedSeller:
        return ScriptedSeller(refuses(500), streams(["late"], first_s=0.7, usage=GOOD))

    async with market(slow(), slow(), ttft_ms=60.0) as m:
        with pytest.raises((SellersFailed, DeadlineExceeded)):
            await m.dispatcher.run(m.order(hard_ms=300.0))
        n_before = len(m.records)
        runs = [m.dispatcher.run(m.order(latency_ms=200.0)) for _ in range(40)]
        for delivery in await asyncio.gather(*runs):
            assert delivery.answer is not None
            assert delivery.answer.choices[0].text == "late"
        # A tenth of an attempt a request, and the floor.
        assert len(m.records) - n_before <= 40 + 4 + 3


async def test_an_answer_stalled_unseen_is_waited_for_where_nobody_else_is_left() -> None:
    stalling = ScriptedSeller(streams(["two ", "four"], gap_s=0.5, usage=GOOD))
    async with market(stalling, ttft_ms=60.0, gap_ms=2_000.0, least_gap_ms=200.0) as m:
        delivery = await m.dispatcher.run(m.order())
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "two four"
        assert m.ends() == [("a", "ok")]


async def test_keep_alives_are_not_tokens() -> None:
    async def dripping(c: Any) -> None:
        await c.head()
        while True:
            await c.send(b": keep-alive\n\n")
            await asyncio.sleep(0.02)

    async with market(ScriptedSeller(dripping), good(), ttft_ms=60.0) as m:
        await m.dispatcher.run(m.order(latency_ms=2000.0))
        assert m.ends() == [("a", "timeout_ttft"), ("b", "ok")]


async def test_after_a_token_there_is_no_second_seller() -> None:
    stalling = ScriptedSeller(sends(ROLE, chunk({"content": "two "}), hang=True))
    async with market(stalling, good(), gap_ms=200.0) as m:
        begun = time.monotonic()
        text, events = await streamed(m)
        assert text == "two "
        assert isinstance(events[-1], Failed)
        assert events[-1].failure == "timeout_gap"
        assert time.monotonic() - begun < 0.2 + 0.25
        assert m.ends() == [("a", "timeout_gap")]
        assert m.records[0].output_tokens > 0
        assert m.records[0].usage_estimated
        assert m.records[0].cost_nusd > 0


async def test_a_stall_of_unknown_pace_does_not_outlast_its_deadline() -> None:
    stalling = ScriptedSeller(sends(ROLE, chunk({"content": "two "}), hang=True))
    async with market(stalling, good(), ttft_ms=60.0, least_gap_ms=100.0) as m:
        new = Forecast(math.log(60.0), 1.1, math.log(25.0), 1.1, 0.1)
        m.dispatcher.sellers.forecast = {"a/m": new, "b/m": new}.get
        text, events = await streamed(m, latency_ms=600.0)
        assert text == "two "
        assert isinstance(events[-1], Failed)
        assert m.ends() == [("a", "timeout_gap")]
        # Two hundred slow tokens of one who might take a quarter of a second for each are 45 s.
        assert m.records[0].waited_ms is not None
        assert m.records[0].waited_ms < 5_000.0


async def test_unseen_text_is_dropped_for_an_app_that_does_not_stream() -> None:
    stalling = ScriptedSeller(sends(ROLE, chunk({"content": "two "}), hang=True))
    async with market(stalling, good(), gap_ms=200.0) as m:
        delivery = await m.dispatcher.run(m.order())
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "4 it is"
        assert m.ends() == [("a", "timeout_gap"), ("b", "ok")]


async def test_the_deadline_is_kept_whatever_sellers_do() -> None:
    async with market(ScriptedSeller(hangs), ScriptedSeller(hangs)) as m:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await m.dispatcher.run(m.order(hard_ms=300.0))
        assert time.monotonic() - begun < 0.55
        assert m.dispatcher.n_inflight == 0


async def test_the_apps_own_mistake_is_told_and_nobody_else_is_asked() -> None:
    bad = refuses(400, {"message": "temperature must be\n below 2", "code": "invalid_value"})
    async with market(ScriptedSeller(bad), good()) as m:
        with pytest.raises(BadRequest, match="temperature must be  below 2"):
            await m.dispatcher.run(m.order())
        assert m.ends() == [("a", "bad_request")]


async def test_all_failing_says_so_and_keeps_to_its_budget() -> None:
    sellers = [ScriptedSeller(refuses(503)) for _ in range(3)]
    async with market(*sellers) as m:
        for _ in range(60):
            with pytest.raises(SellersFailed):
                await m.dispatcher.run(m.order())
        n_before = len(m.records)
        for _ in range(100):
            with pytest.raises(SellersFailed):
                await m.dispatcher.run(m.order())
        assert (len(m.records) - n_before) / 100 <= 1.12


async def test_a_sound_taker_is_never_refused_for_want_of_budget() -> None:
    async with market(ScriptedSeller(refuses(500)), good()) as m:
        await asyncio.gather(*(m.dispatcher.run(m.order()) for _ in range(100)))
        assert [e for e in m.ends() if e[0] == "b"] == [("b", "ok")] * 100


async def test_retry_after_is_honoured() -> None:
    async with market(ScriptedSeller(refuses(429, retry_after="30")), good()) as m:
        for _ in range(5):
            await m.dispatcher.run(m.order())
        assert m.ends() == [("a", "rate_limited")] + [("b", "ok")] * 5
        assert m.records[0].retry_after_s == 30.0


async def test_a_pinned_offer_is_asked_again_after_a_passing_failure() -> None:
    flaky = ScriptedSeller(refuses(503), streams(["fine"], usage=GOOD))
    async with market(flaky) as m:
        delivery = await m.dispatcher.run(m.order())
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "fine"
        assert m.ends() == [("a", "server_error"), ("a", "ok")]


async def test_hanging_up_ends_the_sellers_call_within_100_ms() -> None:
    ended = asyncio.Event()

    async def endless(c: Any) -> None:
        await c.head()
        await c.send(ROLE)
        try:
            while True:
                await c.send(chunk({"content": "more "}))
                await asyncio.sleep(0.005)
        finally:
            ended.set()

    async with market(ScriptedSeller(endless)) as m:
        async with await m.dispatcher.open(m.order(True)) as delivery:
            async for _ in delivery:
                break
        async with asyncio.timeout(0.1):
            await ended.wait()
        assert m.ends() == [("a", "cancelled")]
        assert m.records[0].output_tokens > 0
        assert m.dispatcher.n_inflight == 0


async def test_a_cancelled_caller_ends_the_call_wherever_it_is() -> None:
    seller = ScriptedSeller(hangs)
    async with market(seller) as m:
        task = asyncio.create_task(m.dispatcher.run(m.order()))
        await seller.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(0.1):
            await seller.idle.wait()
        assert m.ends() == [("a", "cancelled")]


async def test_a_seller_at_its_own_limit_is_passed_over() -> None:
    slow = ScriptedSeller(streams(["slow"], first_s=0.2))
    async with market(slow, good(), providers={"limit_concurrency": 2}) as m:
        offers = ["a/m", "b/m"]
        await asyncio.gather(*(m.dispatcher.run(m.order(offers=offers)) for _ in range(4)))
        assert sorted(m.ends()) == [("a", "ok")] * 2 + [("b", "ok")] * 2


async def test_a_stream_too_slow_for_the_deadline_gives_way_while_nobody_has_seen_it() -> None:
    crawling = ScriptedSeller(streams([f"w{i} " for i in range(20)], gap_s=0.2))
    async with market(crawling, good(), ttft_ms=60.0) as m:
        delivery = await m.dispatcher.run(m.order(latency_ms=2000.0, output_tokens=20.0))
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "4 it is"
        assert [(e, r.reason) for e, r in zip(m.ends(), m.records, strict=True)] == [
            (("a", "timeout_gap"), "too slow"),
            (("b", "ok"), ""),
        ]


async def test_a_hedge_wins_and_the_loser_is_cancelled() -> None:
    slow = ScriptedSeller(streams(["slow"], first_s=3.0))
    async with market(slow, good(), ttft_ms=300.0) as m:
        # A quick runner-up is the likelier one long before the first is overdue.
        quick = Forecast(math.log(20.0), 0.3, 0.0)
        usual = m.dispatcher.forecast("a/m")
        m.dispatcher.sellers.forecast = {"a/m": usual, "b/m": quick}.get
        delivery = await m.dispatcher.run(m.order(latency_ms=700.0, hedge=True, output_tokens=1.0))
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "4 it is"
        assert sorted(m.ends()) == [("a", "hedge_lost"), ("b", "ok")]
        assert next(r for r in m.records if r.provider == "b").hedge


async def test_a_seller_that_hangs_does_not_hide_behind_the_hedge() -> None:
    async with market(ScriptedSeller(hangs), good(), ttft_ms=60.0) as m:
        await m.dispatcher.run(m.order(latency_ms=400.0, hedge=True, output_tokens=1.0))
        assert sorted(m.ends()) == [("a", "timeout_ttft"), ("b", "ok")]
        assert next(r for r in m.records if r.provider == "a").reason == "hedge won"


async def test_without_hedges_left_a_silent_seller_is_given_up_in_time() -> None:
    hung = ScriptedSeller(hangs)
    async with market(hung, good(), ttft_ms=60.0, hedge_share=0.0, hedge_floor=1.0) as m:
        order = m.order(latency_ms=400.0, hedge=True, output_tokens=1.0)
        run = asyncio.create_task(m.dispatcher.run(order))
        await hung.asked.wait()
        assert m.dispatcher.sellers.hedge()
        begun = time.monotonic()
        await run
        assert time.monotonic() - begun < 0.6
        assert m.ends() == [("a", "timeout_ttft"), ("b", "ok")]
        assert not any(r.hedge for r in m.records)


async def test_what_is_sent_is_what_the_seller_documents() -> None:
    seller = good()
    async with market(seller) as m:
        await streamed(m, temperature=0.5, max_output_tokens=9, stop=("x",))
    call = seller.calls[0]
    assert call["line"] == "POST /v1/chat/completions HTTP/1.1"
    assert call["headers"]["authorization"] == "Bearer k-1"
    assert call["headers"]["accept-encoding"] == "identity"
    assert call["body"] == {
        "model": "m",
        "messages": [{"role": "user", "content": "What is two and two?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "stop": ["x"],
    }


@pytest.mark.parametrize(
    "told",
    [
        None,
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -3, "completion_tokens": 5},
        {"prompt_tokens": "12", "completion_tokens": "5"},
        {"prompt_tokens": 1e12, "completion_tokens": 5},
        "lots",
        [],
    ],
)
async def test_usage_that_is_missing_or_nonsense_is_estimated_and_marked(told: Any) -> None:
    tail = [usage_chunk(told)] if told is not None else []
    script = sends(ROLE, chunk({"content": "4 it is"}), FINISH, *tail, DONE)
    async with market(ScriptedSeller(script)) as m:
        await m.dispatcher.run(m.order())
        record = m.records[0]
        assert record.usage_estimated
        assert record.input_tokens == 10
        assert 1 <= record.output_tokens <= 6


async def test_an_anthropic_seller_and_an_openai_one_stand_in_for_each_other() -> None:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 9}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "4"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ]
    frames = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]
    anthropic = ScriptedSeller(sends(*frames))
    bad = ScriptedSeller(refuses(500))
    async with market(bad, anthropic, wires=["openai", "anthropic"]) as m:
        assert (await streamed(m))[0] == "4"
        assert m.ends() == [("a", "server_error"), ("b", "ok")]
        assert (m.records[1].input_tokens, m.records[1].output_tokens) == (9, 3)
    assert anthropic.calls[0]["line"] == "POST /v1/messages HTTP/1.1"
    assert anthropic.calls[0]["headers"]["x-api-key"] == "k-1"
