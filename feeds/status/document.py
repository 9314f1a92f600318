"""From bytes to a document that is safe to walk: size, encoding, JSON, XML.

XML is refused as soon as it declares a document type: no status page needs one, and that is
where entity bombs and references to files and other hosts live. Texts are decoded strictly
before anything looks at them, so that no encoding can hide such a declaration.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from typing import Any, Final
from xml.parsers import expat

import msgspec

from feeds.errors import BadRecord

MAX_JSON_BYTES: Final = 32 * 1024 * 1024
MAX_XML_BYTES: Final = 8 * 1024 * 1024
_MAX_DEPTH: Final = 64
_MAX_ELEMENTS: Final = 200_000
_ENCODINGS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "iso-8859-1",
    "latin-1": "iso-8859-1",
    "windows-1252": "windows-1252",
}
_DECLARATION: Final = re.compile(r"^\s*<\?xml[^<>]{0,200}\?>")
_DECLARED: Final = re.compile(rb"^\s*<\?xml[^<>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})")
_DOCTYPE: Final = re.compile(r"<!(?:doctype|entity|element|attlist|notation)", re.IGNORECASE)
_BOM: Final = b"\xef\xbb\xbf"


def json_document(body: bytes, what: str) -> Any:
    """The JSON value in a body.

    Raises
    ------
    BadRecord
        Empty, too large, not UTF-8, not JSON, nested too deeply.
    """
    _sized(body, MAX_JSON_BYTES, what)
    try:
        return msgspec.json.decode(body.removeprefix(_BOM))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRecord(f"{what}: not JSON: {error}") from error


def json_page(body: bytes, what: str) -> dict[str, Any]:
    """The JSON object in a body. Raises `BadRecord` as `json_document`, or when it is none."""
    found = json_document(body, what)
    if not isinstance(found, dict):
        raise BadRecord(f"{what}: a {type(found).__name__} where an object was due")
    return found


def feed_document(body: bytes, what: str, versions: Collection[str] = ("atom", "rss")) -> Any:
    """The feed in a body, as feedparser reads it.

    Raises
    ------
    BadRecord
        Empty, too large, of an unknown encoding or not in the one it states, with a document
        type, not well formed, or no feed of these kinds.
    """
    import feedparser

    text = _xml_text(body, what)
    _walk(text, what)
    found = feedparser.parse(
        io.BytesIO(text.encode()),
        response_headers={"content-type": "application/xml; charset=utf-8"},
        sanitize_html=False,
        resolve_relative_uris=False,
    )
    if found.bozo:
        raise BadRecord(f"{what}: not well formed: {str(found.bozo_exception)[:200]}")
    kind = str(found.get("version", ""))
    if not kind.startswith(tuple(versions)):
        raise BadRecord(f"{what}: {kind or 'no feed'} where a feed was due")
    return found


def _walk(text: str, what: str) -> None:
    """Whether it is well formed and of sane size, in one pass of expat.

    Only such documents reach feedparser, which would otherwise try a lenient parser that is
    slow on hostile input, and read what it can of a truncated page.
    """
    depth = n_elements = 0

    def begins(_name: str, _attributes: object) -> None:
        nonlocal depth, n_elements
        depth += 1
        n_elements += 1
        if depth > _MAX_DEPTH or n_elements > _MAX_ELEMENTS:
            raise BadRecord(f"{what}: nested or repeated beyond reason")

    def ends(_name: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartElementHandler = begins
    parser.EndElementHandler = ends
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise BadRecord(f"{what}: not well formed: {error}") from error


def _xml_text(body: bytes, what: str) -> str:
    _sized(body, MAX_XML_BYTES, what)
    stated = _DECLARED.match(body.removeprefix(_BOM))
    name = stated.group(1).decode().lower() if stated else "utf-8"
    encoding = _ENCODINGS.get(name)
    if encoding is None:
        raise BadRecord(f"{what}: encoding {name!r} is not one of {sorted(_ENCODINGS)}")
    try:
        text = body.removeprefix(_BOM).decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRecord(f"{what}: not in {encoding}: {error.reason}") from error
    if "\x00" in text:
        raise BadRecord(f"{what}: no text")
    if _DOCTYPE.search(text):
        raise BadRecord(f"{what}: it declares a document type or entities")
    return _DECLARATION.sub("", text, count=1).lstrip()


def _sized(body: bytes, most: int, what: str) -> None:
    if not body.strip():
        raise BadRecord(f"{what}: empty")
    if len(body) > most:
        raise BadRecord(f"{what}: {len(body)} bytes, more than {most}")
