"""Bedrock's golden files, and what we build and read, against botocore's model of the API."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest

from broker.providers.event_stream import (
    BadFrame,
    EventMessage,
    EventStreamParser,
    encode_message,
)

botocore = pytest.importorskip("botocore", reason="needs the extra [bedrock]")

from botocore.eventstream import EventStreamBuffer  # noqa: E402
from botocore.loaders import Loader  # noqa: E402
from botocore.model import ServiceModel  # noqa: E402
from botocore.validate import ParamValidator  # noqa: E402

GOLDEN = Path(__file__).parents[3] / "golden" / "providers" / "bedrock"
CALLS = [
    f
    for f in sorted(GOLDEN.glob("*/request-*.json"))
    if "converse" in f.read_text().split("body")[0]
]


def api() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))


def with_blobs(value: Any, shape: Any) -> Any:
    """JSON as botocore wants it: bytes where the wire has base64."""
    if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
        return {k: with_blobs(v, shape.members[k]) for k, v in value.items()}
    if shape.type_name == "list":
        return [with_blobs(v, shape.member) for v in value]
    return base64.b64decode(value) if shape.type_name == "blob" else value


@pytest.mark.parametrize("path", CALLS, ids=lambda p: p.stem)
def test_calls_are_valid_by_the_vendors_model(path: Path) -> None:
    case = json.loads(path.read_text())
    shape = api().operation_model("Converse").input_shape
    unknown = set(case["call"]["body"]) - set(shape.members)
    assert not unknown
    body = with_blobs({"modelId": "m", **case["call"]["body"]}, shape)
    report = ParamValidator().validate(body, shape)
    assert not report.has_errors(), report.generate_report()


def test_there_are_calls_to_validate() -> None:
    assert len(CALLS) >= 6


def test_golden_answers_have_only_members_that_the_model_knows() -> None:
    shape = api().operation_model("Converse").output_shape
    n = 0
    for path in GOLDEN.glob("*/whole-*.json"):
        case = json.loads(path.read_text())
        if not case.get("embeddings") and "output" in case["answer"]["body"]:
            assert set(case["answer"]["body"]) <= set(shape.members)
            with_blobs(case["answer"]["body"], shape)
            n += 1
    assert n >= 4


def test_frames_are_those_that_botocore_reads() -> None:
    rng = random.Random(4)
    for _ in range(50):
        headers = {f":h{i}": "v" * rng.randrange(40) for i in range(rng.randrange(4))}
        payload = rng.randbytes(rng.randrange(500))
        raw = encode_message(headers, payload)
        buffer = EventStreamBuffer()
        buffer.add_data(raw)
        (theirs,) = list(buffer)
        assert (theirs.headers, theirs.payload) == (headers, payload)
        assert EventStreamParser().feed(raw) == [EventMessage(headers, payload)]


def test_published_vectors_of_the_framing() -> None:
    """Vectors of the AWS SDKs: an empty message, and one with a header of a number."""
    empty = b"\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2H\xeb}\x98\xc8\xff"
    number = (
        b"\x00\x00\x00+\x00\x00\x00\x0e4\x8b\xec{\x08event-id\x04\x00\x00\xa0\x0c"
        b"{'foo':'bar'}\xd3\x89\x02\x85"
    )
    assert EventStreamParser().feed(empty) == [EventMessage({}, b"")]
    assert EventStreamParser().feed(number) == [EventMessage({}, b"{'foo':'bar'}")]


def test_a_flipped_bit_anywhere_is_found_out() -> None:
    raw = encode_message({":event-type": "metadata"}, b'{"a": 1}')
    for i in range(len(raw) * 8):
        spoilt = bytearray(raw)
        spoilt[i // 8] ^= 1 << i % 8
        with pytest.raises(BadFrame):
            EventStreamParser().feed(bytes(spoilt) + raw)
