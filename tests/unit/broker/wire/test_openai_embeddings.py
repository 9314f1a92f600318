"""The embeddings surface: what goes in, comes out, and is refused."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import msgspec
import numpy as np
import openai
import pytest

from bidding.errors import BadRequest
from bidding.market import Capability
from broker.wire.needs import needs
from broker.wire.neutral import Answer, Embedding, NeutralRequest, Usage, Vector
from broker.wire.openai_embeddings import OPENAI_EMBEDDINGS
from broker.wire.surface import ReplyMeta
from broker.wire.tokens import estimate_tokens

META = ReplyMeta(id="emb_1", created_s=1, model="text-embedding-3-small")
VALUES = (0.25, -1.5, 1e-3)


def neutral(**body: Any) -> NeutralRequest:
    return OPENAI_EMBEDDINGS.decode(msgspec.json.encode({"model": "e", "input": "hi", **body}))


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_the_client_gets_the_vectors_whichever_encoding(encoding: Any) -> None:
    seen: list[NeutralRequest] = []

    def handle(http: httpx2.Request) -> httpx2.Response:
        seen.append(OPENAI_EMBEDDINGS.decode(http.content))
        answer = Answer(
            choices=(), vectors=(Vector(0, VALUES), Vector(1, VALUES)), usage=Usage(input_tokens=7)
        )
        return httpx2.Response(200, content=OPENAI_EMBEDDINGS.reply(seen[-1], answer, META))

    client = openai.OpenAI(
        api_key="k",
        base_url="http://broker.test/v1",
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )
    more = {} if encoding is None else {"encoding_format": encoding}
    reply = client.embeddings.create(model="e", input=["a", "b"], **more)
    assert seen[-1].embedding == Embedding(inputs=("a", "b"), packed=encoding != "float")
    assert [d.index for d in reply.data] == [0, 1]
    for vector in reply.data:
        told: Any = vector.embedding
        if isinstance(told, str):
            told = np.frombuffer(base64.b64decode(told), dtype="<f4")
        assert np.asarray(told) == pytest.approx(VALUES)
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (7, 7)


def test_inputs_of_every_shape() -> None:
    assert neutral(input="hi").embedding == Embedding(inputs=("hi",))
    assert neutral(input=["a", "b"]).embedding == Embedding(inputs=("a", "b"))
    assert neutral(input=[1, 2]).embedding == Embedding(inputs=((1, 2),))
    assert neutral(input=[[1, 2], [3]]).embedding == Embedding(inputs=((1, 2), (3,)))
    assert estimate_tokens(neutral(input=[[1, 2], [3]])) == 3


def test_needs() -> None:
    assert needs(neutral()) == Capability.EMBEDDINGS
    assert needs(neutral(dimensions=64)) == Capability.EMBEDDINGS | Capability.DIMENSIONS
    assert needs(neutral(input=[1, 2])) == Capability.EMBEDDINGS | Capability.TOKEN_INPUT


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"model": "market"}, "model"),
        ({"model": "market:search"}, "model"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [["a"]]}, "input[0][0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"models": ["e"]}, "models"),
        ({"stream": True}, "stream"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(body: dict[str, Any], path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        neutral(**body)
    assert caught.value.path == path
