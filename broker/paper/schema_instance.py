"""A small instance of a JSON schema, so that a paper seller's JSON is always valid."""

from __future__ import annotations

from typing import Any

from broker.paper.draws import uniform

MAX_DEPTH = 8


def instance(schema: dict[str, Any], given: dict[str, Any], key: str = "") -> Any:
    """Something that satisfies `schema`; properties named in `given` take that value.

    Covers type, enum, const, properties, items, anyOf, oneOf, allOf, local `$ref` and minimum;
    other keywords are ignored.
    """
    return _make(schema, schema, given, key, 0)


def _make(
    schema: dict[str, Any], root: dict[str, Any], given: dict[str, Any], key: str, depth: int
) -> Any:
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][int(uniform(key) * len(schema["enum"]))]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object":
        if depth >= MAX_DEPTH:
            return {}
        return {
            name: _typed(given[name], inner)
            if name in given
            else _make(inner, root, given, f"{key}.{name}", depth + 1)
            for name, inner in schema.get("properties", {}).items()
        }
    if kind == "array":
        items = schema.get("items")
        if not isinstance(items, dict) or depth >= MAX_DEPTH:
            return []
        n = max(1, int(schema.get("minItems", 1)))
        return [_make(items, root, given, f"{key}[{i}]", depth + 1) for i in range(n)]
    if kind in ("integer", "number"):
        return int(schema.get("minimum", 0)) + int(uniform(key) * 9) + 1
    if kind == "boolean":
        return uniform(key) < 0.5
    return None if kind == "null" else key.rpartition(".")[2] or "text"


def _typed(value: Any, schema: dict[str, Any]) -> Any:
    return str(value) if schema.get("type") == "string" else value


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    for _ in range(MAX_DEPTH):
        if "$ref" in schema:
            found: Any = root
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                found = found.get(part, {})
            schema = found
        elif any(name in schema for name in ("anyOf", "oneOf", "allOf")):
            options = next(schema[n] for n in ("anyOf", "oneOf", "allOf") if n in schema)
            schema = next((o for o in options if o.get("type") != "null"), {})
        else:
            break
    return schema
