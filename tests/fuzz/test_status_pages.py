"""Whatever the bytes, a status parser gives a sheet or a `BadRecord`: nothing else, and soon."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import BadRecord
from feeds.status.document import MAX_JSON_BYTES, MAX_XML_BYTES
from feeds.status.formats import FORMATS, parse
from feeds.status.incident import MAX_TEXT, MAX_TITLE, StatusSheet
from tests.fakes import status_pages as pages

SOON_S = 5.0
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + b"".join(b'<!ENTITY lol%d "&lol%s;&lol%s;">' % (i, b"", b"") for i in range(9))
    + b"]><rss><channel><title>&lol8;</title></channel></rss>"
)
FILES = b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss version="2.0"><a>&x;</a></rss>'
PARAMETER = b'<!DOCTYPE r [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]><rss version="2.0"/>'
CORPUS = {
    "empty": b"",
    "blank": b" \n\t",
    "html": b"<!doctype html><html><body>Just a moment...</body></html>",
    "bomb": BOMB,
    "bomb, encoded": BOMB.decode().encode("utf-16"),
    "bomb, utf-7": b'<?xml version="1.0" encoding="utf-7"?>' + BOMB,
    "files": FILES,
    "parameter entity": PARAMETER,
    "mis-encoded": b'{"page": {"name": "\xff\xfe"}}',
    "nul": b'<rss version="2.0">\x00</rss>',
    "null": b"null",
    "number": b"1e999",
    "nested list": b"[" * 200_000,
    "nested object": b'{"page":' * 200_000,
    "nested elements": b"<rss version='2.0'>" + b"<a>" * 100_000,
    "no feed": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "lists for objects": b'{"page": [], "data": [], "components": 5}',
    "wrong kinds": b'{"page": {}, "incidents": 7, "activeIncidents": "x", "included": {}}',
}


def read(name: str, body: bytes) -> StatusSheet | None:
    begun = time.perf_counter()
    sheet: StatusSheet | None = None
    try:
        sheet = parse(name, body)
    except BadRecord:
        return None
    finally:
        assert time.perf_counter() - begun < SOON_S
    for incident in sheet.incidents:
        assert incident.id
        assert len(incident.title) <= MAX_TITLE
        assert all(len(u.text) <= MAX_TEXT for u in incident.updates)
    return sheet


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CORPUS)
def test_the_corpus_is_refused(name: str, case: str) -> None:
    assert read(name, CORPUS[case]) is None


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_anywhere_is_refused_or_whole(name: str) -> None:
    good = pages.PAGES[name].rstrip()
    for end in range(0, len(good), max(1, len(good) // 60)):
        assert read(name, good[:end]) is None
    assert read(name, good) is not None


@pytest.mark.parametrize("name", FORMATS)
def test_mis_encoded_is_refused(name: str) -> None:
    text = pages.PAGES[name].decode()
    assert read(name, text.encode("utf-16")) is None
    assert read(name, text.encode("utf-32-be")) is None
    if b"<?xml" not in pages.PAGES[name]:
        return
    claimed = pages.PAGES[name].replace(b"UTF-8", b"utf-16").replace(b"utf-8", b"utf-16")
    assert read(name, claimed) is None


@pytest.mark.parametrize("name", FORMATS)
def test_huge_is_refused_before_it_is_read(name: str) -> None:
    most = max(MAX_JSON_BYTES, MAX_XML_BYTES)
    begun = time.perf_counter()
    assert read(name, pages.PAGES[name] + b" " * most) is None
    assert time.perf_counter() - begun < 1.0


def test_ten_thousand_incidents_are_too_many() -> None:
    incident = json.loads(pages.STATUSPAGE)["incidents"][0]
    body = json.dumps({"page": {"id": "x"}, "incidents": [incident] * 10_000}).encode()
    assert read("statuspage", body) is None


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60)
@given(st.data())
def test_bytes_changed_at_random(name: str, data: st.DataObject) -> None:
    body = bytearray(pages.PAGES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
        if not body:
            break
    read(name, bytes(body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below),
    max_leaves=8,
)


@pytest.mark.parametrize("name", [n for n, p in pages.PAGES.items() if not p.startswith(b"<")])
@settings(max_examples=80)
@given(st.data())
def test_any_value_in_any_place(name: str, data: st.DataObject) -> None:
    document = json.loads(pages.PAGES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        here = document
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and data.draw(st.booleans()):
                here = here[key]
                continue
            here[key] = data.draw(JSON)
            break
    read(name, json.dumps(document).encode())


@settings(max_examples=100)
@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=200))
def test_any_bytes(name: str, body: bytes) -> None:
    read(name, body)
