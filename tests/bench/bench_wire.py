"""What a surface and a dialect cost: decode, translate and encode of a 2 KB chat completion."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from bidding.market import Offer, PriceList, Provider
from broker.providers.anthropic import ANTHROPIC
from broker.providers.base import Seat
from broker.providers.openai import OPENAI
from broker.wire.neutral import Answer, Choice, Usage, needs
from broker.wire.openai_chat import OPENAI_CHAT
from broker.wire.surface import ReplyMeta
from broker.wire.tokens import estimate_tokens

_WORDS = "A train leaves at 9:40 and covers 180 km in 2.5 hours; how fast is it, on average? "
BODY = json.dumps(
    {
        "model": "market",
        "messages": [
            {"role": "system", "content": "Answer with a number, then a unit."},
            {"role": "user", "content": _WORDS * 21},
        ],
        "temperature": 0.2,
        "max_tokens": 200,
        "sla": {"quality": 0.95, "ttft_ms": 1000, "compliance": {"regions": ["eu"]}},
    }
).encode()
_PRICES = PriceList(input_nusd_per_mtok=10**9, output_nusd_per_mtok=10**9)
_META = ReplyMeta(id="chatcmpl-1", created_s=1, model="m")
_ANSWER = Answer(
    choices=(Choice(text="72 km/h. " * 20),), usage=Usage(input_tokens=500, output_tokens=60)
)
_CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
)


def _seat() -> Seat:
    provider = Provider(
        id="a", name="a", wire="openai", base_url="http://127.0.0.1:1/v1", jurisdiction="eu"
    )
    return Seat(offer=Offer(provider="a", model="m", prices=_PRICES), provider=provider, key="k")


def _p50_us(call: Callable[[], object], n: int = 3000) -> float:
    for _ in range(200):
        call()
    took = np.empty(n)
    for i in range(n):
        begun = time.perf_counter_ns()
        call()
        took[i] = time.perf_counter_ns() - begun
    return float(np.median(took)) * 1e-3


def figures() -> dict[str, float]:
    """Medians in µs. `surface_2kb_p50_us` is body to neutral, needs and token estimate, the
    seller's call, and the reply to the app; `chunk_p50_us` one stream chunk in and out again.
    """
    seat = _seat()

    def surface() -> None:
        request = OPENAI_CHAT.decode(BODY)
        needs(request)
        estimate_tokens(request)
        OPENAI.build(request, seat, stream=True)
        OPENAI_CHAT.reply(request, _ANSWER, _META)

    request = OPENAI_CHAT.decode(BODY)
    reader = OPENAI.reader(stream=True)
    encoder = OPENAI_CHAT.stream(request, _META)

    def chunk() -> None:
        for event in reader.feed(_CHUNK):
            encoder.event(event)

    return {
        "surface_2kb_p50_us": _p50_us(surface),
        "wire_decode_2kb_p50_us": _p50_us(lambda: OPENAI_CHAT.decode(BODY)),
        "wire_build_openai_2kb_p50_us": _p50_us(lambda: OPENAI.build(request, seat, stream=True)),
        "wire_build_anthropic_2kb_p50_us": _p50_us(
            lambda: ANTHROPIC.build(request, seat, stream=True)
        ),
        "estimate_tokens_2kb_p50_us": _p50_us(lambda: estimate_tokens(request)),
        "chunk_p50_us": _p50_us(chunk),
    }


if __name__ == "__main__":
    print(json.dumps(figures(), indent=1))
