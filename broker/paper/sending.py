"""Putting an answer on the wire at its own pace, and noting how far it got."""

from __future__ import annotations

import asyncio

from aiohttp import web

from broker.paper.ask import When
from broker.paper.behaviour import Timing
from broker.paper.ledger import Call
from broker.paper.port import reset
from broker.paper.spoil import Shown

PRELUDE_SHARE_OF_TTFT = 0.5


async def send(
    request: web.BaseRequest,
    shown: Shown,
    headers: dict[str, str],
    timing_s: Timing,
    reasoning_tokens: int,
    call: Call,
) -> web.StreamResponse:
    """Send `shown`: prelude half-way to the first token, which comes after the reasoning.

    Parameters
    ----------
    timing_s : pace in *seconds* (already scaled).
    call : `bytes_out` and `output_tokens` follow what has left, so that a call which breaks
        off is billed for that much.
    """
    response = web.StreamResponse(headers={**headers, "content-type": shown.content_type})
    if shown.encoding is not None:
        response.headers["content-encoding"] = shown.encoding
    await response.prepare(request)
    call.status = 200
    prelude_s = timing_s.ttft_ms * PRELUDE_SHARE_OF_TTFT
    to_first_s = timing_s.ttft_ms - prelude_s + timing_s.tpot_ms * reasoning_tokens
    waited = False
    for frame in shown.frames:
        if frame.when is When.FOREVER:
            await asyncio.Event().wait()
        elif frame.when is When.PAUSE:
            await asyncio.sleep(frame.pause_s)
        elif frame.when is When.PRELUDE and prelude_s > 0:
            await asyncio.sleep(prelude_s)
            prelude_s = 0.0
        elif frame.when is When.CONTENT:
            further = frame.n_tokens if waited else max(0, frame.n_tokens - 1)
            delay_s = timing_s.tpot_ms * further + (0.0 if waited else prelude_s + to_first_s)
            waited = True
            call.output_tokens += frame.n_tokens
            await asyncio.sleep(delay_s)
        await response.write(frame.data)
        call.bytes_out += len(frame.data)
    if shown.cut:
        reset(request.transport)
    else:
        await response.write_eof()
    return response
