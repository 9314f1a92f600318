"""Every dialect against golden files in its vendor's documented format: requests and answers.

A file is either a `request` (a chat body in, the seller's call out) or an `answer` (status,
content type and bytes in, events out). Streams are fed whole, byte by byte, and cut at each
byte: the events must not depend on how the bytes came, and no cut may fabricate a clean end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bidding.market import Model, Offer, PriceList, Provider
from broker.providers.base import Dialect, Seat
from broker.providers.dialects import DIALECTS, EMBEDDINGS
from broker.providers.event_stream import encode_message
from broker.wire.neutral import (
    Embedding,
    Event,
    Failed,
    Finish,
    NeutralRequest,
    Usage,
    Vector,
    collect,
)
from broker.wire.openai_chat import OPENAI_CHAT

GOLDEN = Path(__file__).parents[3] / "golden" / "providers"
FILES = sorted(GOLDEN.glob("*/*/*.json"))
REQUESTS = [f for f in FILES if "request" in json.loads(f.read_text())]
ANSWERS = [f for f in FILES if "answer" in json.loads(f.read_text())]
STREAMS = [f for f in ANSWERS if json.loads(f.read_text())["answer"].get("stream")]
PRICES = PriceList(input_nusd_per_mtok=1, output_nusd_per_mtok=1)


def name_of(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}/{path.stem}"


def shown(events: list[Event]) -> list[Any]:
    """Events as plain values: the type's name and the fields that are not at their default."""
    out = []
    for event in events:
        fields = {}
        for field in msgspec.structs.fields(event):
            value = getattr(event, field.name)
            if value != field.default:
                fields[field.name] = json.loads(msgspec.json.encode(value))
        out.append([type(event).__name__, fields])
    return out


def seat_for(dialect: str, case: dict[str, Any]) -> Seat:
    given = case.get("seat", {})
    provider = Provider(
        id=given.get("provider", "seller"),
        name="S",
        wire=dialect,
        base_url=given.get("base_url", "https://api.seller.test/v1"),
        jurisdiction="us",
    )
    wire_model = given.get("model", "m-2026")
    offer = Offer(provider=provider.id, model="m", prices=PRICES, upstream_model=wire_model)
    model = Model(
        id="m",
        family="f",
        context_window=100_000,
        max_output_tokens=8192,
        capabilities=given.get("capabilities", []),
    )
    return Seat(offer=offer, provider=provider, model=model, key="sk-1")


def asked(case: dict[str, Any]) -> NeutralRequest:
    """A chat body, or an embeddings body in OpenAI's shape."""
    body = case["request"]
    if "input" not in body:
        request = OPENAI_CHAT.decode(json.dumps(body).encode())
        request.show_thinking = case.get("show_thinking", False)
        return request
    given = body["input"]
    inputs = given if isinstance(given, list) else [given]
    wanted = Embedding(
        inputs=tuple(tuple(x) if isinstance(x, list) else x for x in inputs),
        dimensions=body.get("dimensions"),
    )
    return NeutralRequest(model=body["model"], messages=(), embedding=wanted)


def table(case: dict[str, Any]) -> dict[str, Dialect]:
    vectors = case.get("embeddings") or "input" in case.get("request", {})
    return EMBEDDINGS if vectors else DIALECTS


def test_every_dialect_has_exemplary_and_supplemental_files() -> None:
    for dialect in DIALECTS:
        for kind in ("exemplary", "supplemental"):
            assert list((GOLDEN / dialect / kind).glob("*.json")), f"{dialect}/{kind}"


@pytest.mark.parametrize("path", REQUESTS, ids=name_of)
def test_request(path: Path) -> None:
    case = json.loads(path.read_text())
    dialect = path.parent.parent.name
    call = table(case)[dialect].build(
        asked(case), seat_for(dialect, case), stream=bool(case["request"].get("stream"))
    )
    assert call.url == case["call"]["url"]
    assert call.headers == case["call"]["headers"]
    assert json.loads(call.body) == case["call"]["body"]


def frame(kind: str, payload: Any) -> bytes:
    """One message of AWS's event stream; a kind in `...Exception` is one."""
    is_exception = kind.endswith("Exception")
    headers = {
        ":exception-type" if is_exception else ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception" if is_exception else "event",
    }
    raw = payload if isinstance(payload, str) else json.dumps(payload)
    return encode_message(headers, raw.encode("utf-8", "surrogatepass"))


def body_of(case: dict[str, Any]) -> bytes:
    if "frames" in case["answer"]:
        return b"".join(frame(*f) for f in case["answer"]["frames"])
    body = case["answer"]["body"]
    if isinstance(body, str):
        return body.encode()
    if case["answer"].get("stream"):
        return "".join(line + "\n" for line in body).encode()
    return json.dumps(body).encode()


def read(dialect: str, case: dict[str, Any], pieces: list[bytes]) -> list[Event]:
    answer = case["answer"]
    status = answer.get("status", 200)
    spoken = table(case)[dialect]
    seat = seat_for(dialect, case) if "seat" in case else None
    if status != 200:
        return [spoken.refusal(status, b"".join(pieces), None, seat)]
    reader = spoken.reader(stream=bool(answer.get("stream")), seat=seat)
    events: list[Event] = []
    for piece in pieces:
        events += reader.feed(piece)
    return events + reader.close()


@pytest.mark.parametrize("path", ANSWERS, ids=name_of)
def test_answer(path: Path) -> None:
    case = json.loads(path.read_text())
    assert shown(read(path.parent.parent.name, case, [body_of(case)])) == case["events"]


@pytest.mark.parametrize("path", STREAMS, ids=name_of)
def test_pieces_do_not_matter(path: Path) -> None:
    case = json.loads(path.read_text())
    body = body_of(case)
    dialect = path.parent.parent.name
    text = (body.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + body)
    for variant in (body, *(() if "frames" in case["answer"] else text)):
        pieces = [variant[i : i + 1] for i in range(len(variant))]
        assert shown(read(dialect, case, pieces)) == case["events"]


@pytest.mark.parametrize("path", [p for p in ANSWERS if p.parent.name == "exemplary"], ids=name_of)
def test_a_cut_never_ends_cleanly_unless_the_seller_had_finished(path: Path) -> None:
    case = json.loads(path.read_text())
    dialect = path.parent.parent.name
    if case["answer"].get("status", 200) != 200:
        return
    body = body_of(case)
    whole = read(dialect, case, [body])
    for cut in range(len(body)):
        events = read(dialect, case, [body[:cut]])
        ended = [e for e in events if isinstance(e, Finish)]
        if isinstance(events[-1], Failed):
            continue
        ended = ended or [e for e in events if isinstance(e, Vector)]
        assert ended, f"clean ending fabricated by a cut at byte {cut}"
        assert collect(events).choices == collect(whole).choices
        assert collect(events).vectors == collect(whole).vectors
        assert sum(isinstance(e, Usage) for e in events) <= 1
