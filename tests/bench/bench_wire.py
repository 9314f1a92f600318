"""What surfaces and dialects cost: decode, translate and encode of a 2 KB request, each surface."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from bidding.market import Offer, PriceList, Provider
from broker.providers.anthropic import ANTHROPIC
from broker.providers.base import Dialect, Seat
from broker.providers.openai import OPENAI
from broker.providers.openai_embeddings import OPENAI_EMBEDDINGS as SELLER_EMBEDDINGS
from broker.wire.anthropic_messages import ANTHROPIC_MESSAGES
from broker.wire.needs import needs
from broker.wire.neutral import Answer, Choice, Usage, Vector
from broker.wire.openai_chat import OPENAI_CHAT
from broker.wire.openai_embeddings import OPENAI_EMBEDDINGS
from broker.wire.openai_responses import OPENAI_RESPONSES
from broker.wire.surface import ReplyMeta, StreamEncoder, Surface
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
_SLA = {"quality": 0.95, "ttft_ms": 1000, "compliance": {"regions": ["eu"]}}
_TOOL = {
    "name": "speed",
    "description": "Distance by time",
    "parameters": {"type": "object", "properties": {"km": {"type": "number"}}},
}
RESPONSES_BODY = json.dumps(
    {
        "model": "market",
        "instructions": "Answer with a number, then a unit.",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": _WORDS * 19}]}],
        "tools": [{"type": "function", **_TOOL}],
        "max_output_tokens": 200,
        "sla": _SLA,
    }
).encode()
MESSAGES_BODY = json.dumps(
    {
        "model": "market",
        "system": [{"type": "text", "text": "Answer with a number, then a unit."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": _WORDS * 21}]}],
        "max_tokens": 200,
        "sla": _SLA,
    }
).encode()
EMBEDDINGS_BODY = json.dumps({"model": "e", "input": [_WORDS * 12, _WORDS * 11]}).encode()
_PRICES = PriceList(input_nusd_per_mtok=10**9, output_nusd_per_mtok=10**9)
_META = ReplyMeta(id="chatcmpl-1", created_s=1, model="m")
_ANSWER = Answer(
    choices=(Choice(text="72 km/h. " * 20),), usage=Usage(input_tokens=500, output_tokens=60)
)
_VECTORS = Answer(
    choices=(),
    vectors=(Vector(0, (0.5,) * 8), Vector(1, (0.25,) * 8)),
    usage=Usage(input_tokens=500),
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
    """Medians in µs. `surface_2kb_p50_us` and its like are body to neutral, needs and token
    estimate, the seller's call, and the reply to the app; `chunk_p50_us` and its like one stream
    chunk in and out again. The embeddings surface answers with two vectors of 8.
    """
    seat = _seat()

    def through(
        surface: Surface, body: bytes, answer: Answer = _ANSWER, seller: Dialect = OPENAI
    ) -> Callable[[], None]:
        def run() -> None:
            request = surface.decode(body)
            needs(request)
            estimate_tokens(request)
            seller.build(request, seat, stream=True)
            surface.reply(request, answer, _META)

        return run

    request = OPENAI_CHAT.decode(BODY)
    reader = OPENAI.reader(stream=True)

    def chunk(encoder: StreamEncoder) -> Callable[[], None]:
        def run() -> None:
            for event in reader.feed(_CHUNK):
                encoder.event(event)

        return run

    return {
        "surface_2kb_p50_us": _p50_us(through(OPENAI_CHAT, BODY)),
        "surface_responses_2kb_p50_us": _p50_us(through(OPENAI_RESPONSES, RESPONSES_BODY)),
        "surface_messages_2kb_p50_us": _p50_us(through(ANTHROPIC_MESSAGES, MESSAGES_BODY)),
        "surface_embeddings_2kb_p50_us": _p50_us(
            through(OPENAI_EMBEDDINGS, EMBEDDINGS_BODY, _VECTORS, SELLER_EMBEDDINGS)
        ),
        "wire_decode_2kb_p50_us": _p50_us(lambda: OPENAI_CHAT.decode(BODY)),
        "wire_build_openai_2kb_p50_us": _p50_us(lambda: OPENAI.build(request, seat, stream=True)),
        "wire_build_anthropic_2kb_p50_us": _p50_us(
            lambda: ANTHROPIC.build(request, seat, stream=True)
        ),
        "estimate_tokens_2kb_p50_us": _p50_us(lambda: estimate_tokens(request)),
        "chunk_p50_us": _p50_us(chunk(OPENAI_CHAT.stream(request, _META))),
        "chunk_responses_p50_us": _p50_us(chunk(OPENAI_RESPONSES.stream(request, _META))),
        "chunk_messages_p50_us": _p50_us(chunk(ANTHROPIC_MESSAGES.stream(request, _META))),
    }


if __name__ == "__main__":
    print(json.dumps(figures(), indent=1))
