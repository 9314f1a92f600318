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
from broker.providers.base import Seat
from broker.providers.dialects import DIALECTS
from broker.wire.neutral import Event, Failed, Finish, Usage, collect
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
        wire=dialect,  # type: ignore[arg-type]
        base_url=given.get("base_url", "https://api.seller.test/v1"),
        jurisdiction="us",
    )
    offer = Offer(provider=provider.id, model="m", prices=PRICES, upstream_model="m-2026")
    model = Model(id="m", family="f", context_window=100_000, max_output_tokens=8192)
    return Seat(offer=offer, provider=provider, model=model, key="sk-1")


def test_every_dialect_has_exemplary_and_supplemental_files() -> None:
    for dialect in DIALECTS:
        for kind in ("exemplary", "supplemental"):
            assert list((GOLDEN / dialect / kind).glob("*.json")), f"{dialect}/{kind}"


@pytest.mark.parametrize("path", REQUESTS, ids=name_of)
def test_request(path: Path) -> None:
    case = json.loads(path.read_text())
    dialect = path.parent.parent.name
    request = OPENAI_CHAT.decode(json.dumps(case["request"]).encode())
    call = DIALECTS[dialect].build(
        request, seat_for(dialect, case), stream=bool(case["request"].get("stream"))
    )
    assert call.url == case["call"]["url"]
    assert call.headers == case["call"]["headers"]
    assert json.loads(call.body) == case["call"]["body"]


def body_of(case: dict[str, Any]) -> bytes:
    body = case["answer"]["body"]
    if isinstance(body, str):
        return body.encode()
    if case["answer"].get("stream"):
        return "".join(line + "\n" for line in body).encode()
    return json.dumps(body).encode()


def read(dialect: str, case: dict[str, Any], pieces: list[bytes]) -> list[Event]:
    answer = case["answer"]
    status = answer.get("status", 200)
    if status != 200:
        return [DIALECTS[dialect].refusal(status, b"".join(pieces), None)]
    reader = DIALECTS[dialect].reader(stream=bool(answer.get("stream")))
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
    for variant in (body, body.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + body):
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
        assert ended, f"clean ending fabricated by a cut at byte {cut}"
        assert collect(events).choices == collect(whole).choices
        assert sum(isinstance(e, Usage) for e in events) <= 1
