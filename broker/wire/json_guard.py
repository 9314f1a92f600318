"""What must hold of a body before any decoder sees it: size, nesting, JSON at all.

msgspec recurses on the C stack's allowance and raises `RecursionError`, which is not a
`DecodeError`; so depth is bounded first, cheaply: strings are cut out by one regular
expression that cannot backtrack, what is left of the rest are brackets, and the running sum
over those is the depth. A body with few brackets altogether needs none of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec
import numpy as np

from bidding.errors import BadRequest
from bidding.request import Budget, Compliance, Sla, Verify

MAX_DEPTH = 64
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = np.zeros(256, dtype=np.int8)
_STEP[[ord("["), ord("{")]] = 1
_STEP[[ord("]"), ord("}")]] = -1
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_MISSING_FIELD = re.compile(r"missing required field `([^`]*)`")
_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")

_SLA_FIELDS = [
    name for kind in (Sla, Compliance, Budget, Verify) for name in kind.__struct_fields__
]

T = TypeVar("T")

ABSENT = msgspec.Raw(b"")
"""Default of a field kept raw: msgspec reads `Raw | None` as null alone."""


def present(raw: msgspec.Raw) -> msgspec.Raw | None:
    """`raw`, or None where the field was absent or null."""
    return None if bytes(raw) in (b"", b"null") else raw


def schema_in(raw: msgspec.Raw, path: str) -> msgspec.Raw | None:
    """A JSON schema kept raw, or None where there is none.

    Raises
    ------
    BadRequest
        It is no object, which every seller would refuse in words of its own.
    """
    schema = present(raw)
    if schema is not None and bytes(schema)[:1] != b"{":
        raise BadRequest(
            f"{path} is no object", path=path, remedy='send a JSON schema: {"type": "object", …}'
        )
    return schema


def json_depth(body: bytes) -> int:
    """How deeply `body` nests arrays and objects, strings aside; an upper bound when malformed.

    Examples
    --------
    >>> json_depth(b'{"a": ["[[[", {}]}')
    3
    """
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    if not brackets:
        return 0
    steps = _STEP[np.frombuffer(brackets, dtype=np.uint8)]
    return int(np.cumsum(steps, dtype=np.int64).max())


def decode_strictly(body: bytes, decoder: msgspec.json.Decoder[T], known: Iterable[str] = ()) -> T:
    """Decode `body`, or say what is wrong with it, where, and what to change.

    Parameters
    ----------
    known : iterable of str
        Field names to look for a near one when a field is unknown.

    Raises
    ------
    BadRequest
        With the path to the field, in the app's own words (`sla.quality`).
    """
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and json_depth(body) > MAX_DEPTH:
        raise BadRequest(
            f"the body nests deeper than {MAX_DEPTH} levels", remedy="flatten the JSON"
        )
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error), known) from error
    except msgspec.DecodeError as error:
        raise BadRequest(
            f"the body is not valid JSON: {error}", remedy="send one JSON object in UTF-8"
        ) from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(
            "the body cannot be decoded", remedy="send one JSON object in UTF-8"
        ) from error


def _bad_field(message: str, known: Iterable[str]) -> BadRequest:
    at = _AT.search(message)
    path = at.group(1).replace("[...]", "[]") if at else ""
    what = message[: at.start()] if at else message
    unknown = _UNKNOWN_FIELD.search(what)
    if unknown:
        name = unknown.group(1)
        near = difflib.get_close_matches(name, [*known, *_SLA_FIELDS], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "remove it"
        where = f"{path}.{name}" if path else name
        return BadRequest(f"unknown field {where!r}", path=where, remedy=remedy)
    missing = _MISSING_FIELD.search(what)
    if missing:
        name = missing.group(1)
        where = f"{path}.{name}" if path else name
        return BadRequest(f"missing field {where!r}", path=where, remedy="add it")
    return BadRequest(
        f"{path or 'body'}: {what}", path=path, remedy=what[:1].lower() + what[1:].split(",")[0]
    )
