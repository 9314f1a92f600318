"""The process that checks answers against schemas and expressions that apps send.

Kept apart from the gateway, because a schema of a few lines can ask for years of work and a
program that runs it cannot be interrupted from within: whoever waits for this one kills it. It
opens nothing, resolves no remote reference, and holds its memory to a limit. Expressions run on
RE2 and so in linear time; patterns in schemas on an automaton with a bounded size.

    python -m broker.verify.child        # requests and replies: 4 bytes of length, then JSON
"""

from __future__ import annotations

import resource
import sys
from collections import OrderedDict
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import Struct

MAX_BYTES: Final = 8 * 1024 * 1024
_MOST_KEPT: Final = 256
_MEMORY_BYTES: Final = 1024 * 1024 * 1024
_RE2_BYTES: Final = 8 * 1024 * 1024
_SHOWN: Final = 200


class Task(Struct, kw_only=True):
    """One text to be checked: it must match `regex`, or be JSON and fit `schema` (JSON text).
    With `text` None only the check itself is looked at.
    """

    text: str | None = None
    schema: str | None = None
    regex: str | None = None


class Finding(Struct, kw_only=True):
    """`bad_check`: the check itself cannot be used, and why. `why`: the text fails it."""

    ok: bool = True
    why: str = ""
    bad_check: str = ""


class BadCheck(Exception):
    """A schema or an expression that cannot be used."""


_tasks = msgspec.json.Decoder(Task)
_encode = msgspec.json.Encoder().encode
_schemas: OrderedDict[str, Any] = OrderedDict()
_expressions: OrderedDict[str, Any] = OrderedDict()


def find(task: Task) -> Finding:
    """Check one text."""
    try:
        schema = None if task.schema is None else _validator(task.schema)
        regex = None if task.regex is None else _expression(task.regex)
    except BadCheck as error:
        return Finding(ok=False, bad_check=str(error)[:_SHOWN])
    if task.text is None:
        return Finding()
    if regex is not None and regex.search(task.text) is None:
        return Finding(ok=False, why="does not match")
    if schema is None:
        return Finding()
    try:
        value = msgspec.json.decode(task.text)
    except (msgspec.DecodeError, RecursionError):
        return Finding(ok=False, why="not JSON")
    if schema.is_valid(value):
        return Finding()
    first = next(iter(schema.iter_errors(value)), None)
    path = "" if first is None else "/".join(str(step) for step in first.instance_path)
    kind = "" if first is None else str(first.schema_path[-1])
    return Finding(ok=False, why=f"/{path}: {kind}"[:_SHOWN])


def _validator(text: str) -> Any:
    import jsonschema_rs

    kept = _schemas.get(text)
    if kept is None:
        try:
            kept = jsonschema_rs.validator_for(
                msgspec.json.decode(text),
                offline=True,
                validate_formats=False,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20),
            )
        except (ValueError, TypeError, msgspec.DecodeError, RecursionError) as error:
            raise BadCheck(f"the JSON schema cannot be used: {error}") from error
        _keep(_schemas, text, kept)
    return kept


def _expression(text: str) -> Any:
    import re2

    kept = _expressions.get(text)
    if kept is None:
        options = re2.Options()
        options.max_mem = _RE2_BYTES
        options.log_errors = False
        try:
            kept = re2.compile(text, options)
        except re2.error as error:
            raise BadCheck(f"the expression cannot be used (RE2): {error}") from error
        _keep(_expressions, text, kept)
    return kept


def _keep(kept: OrderedDict[str, Any], name: str, value: Any) -> None:
    kept[name] = value
    if len(kept) > _MOST_KEPT:
        kept.popitem(last=False)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the other side hangs up."""
    while len(head := requests.read(4)) == 4:
        body = requests.read(int.from_bytes(head, "big"))
        reply = _encode(find(_tasks.decode(body)))
        replies.write(len(reply).to_bytes(4, "big") + reply)
        replies.flush()


def main() -> None:
    """Serve on stdin and stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
