"""JSON Schemas of msgspec types, as OpenAPI 3.1 wants them. Pure.

msgspec's own generator stops at defaults that are raw JSON, and names types of the same name by
their module's whole path; apart from that this says the same.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect as mi

Schema = dict[str, Any]
REF = "#/components/schemas/"


class Schemas:
    """Schemas under way; `components` fills as types are met."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._names: dict[type, str] = {}

    def of(self, kind: Any) -> Schema:
        """The schema of a type; structs go to `components` and are referred to."""
        return self._schema(mi.type_info(kind))

    def _schema(self, info: mi.Type) -> Schema:
        match info:
            case mi.Metadata():
                return {**self._schema(info.type), **(info.extra_json_schema or {})}
            case mi.NoneType():
                return {"type": "null"}
            case mi.BoolType():
                return {"type": "boolean"}
            case mi.IntType():
                return {"type": "integer", **_bounds(info)}
            case mi.FloatType():
                return {"type": "number", **_bounds(info)}
            case mi.StrType():
                return {"type": "string", **_lengths(info)}
            case mi.LiteralType():
                return {"enum": list(info.values)}
            case mi.EnumType():
                return {"enum": [member.value for member in info.cls]}
            case mi.UnionType():
                return {"anyOf": [self._schema(t) for t in info.types]}
            case mi.ListType() | mi.VarTupleType() | mi.SetType() | mi.FrozenSetType():
                return {"type": "array", "items": self._schema(info.item_type)}
            case mi.DictType():
                return {"type": "object", "additionalProperties": self._schema(info.value_type)}
            case mi.StructType():
                return {"$ref": REF + self._struct(info)}
        return {}

    def _struct(self, info: mi.StructType) -> str:
        name = self._names.get(info.cls)
        if name is not None:
            return name
        name = info.cls.__name__.strip("_")
        if name in self.components:
            name = f"{info.cls.__module__.rpartition('.')[2]}.{name}"
        self._names[info.cls] = name
        schema = self.components[name] = {"type": "object"}
        properties: dict[str, Schema] = {}
        required = []
        if info.tag_field is not None:
            properties[info.tag_field] = {"const": info.tag}
            required.append(info.tag_field)
        for field in info.fields:
            properties[field.encode_name] = self._schema(field.type)
            if field.required:
                required.append(field.encode_name)
        words = (info.cls.__doc__ or "").partition("\n\n")[0]
        if words and not words.startswith(info.cls.__name__ + "("):
            schema["description"] = " ".join(words.split())
        schema["properties"] = properties
        if required:
            schema["required"] = required
        if info.forbid_unknown_fields:
            schema["additionalProperties"] = False
        return name


def _bounds(info: mi.IntType | mi.FloatType) -> Schema:
    names = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    told = {schema: getattr(info, ours) for ours, schema in names.items()}
    return {name: bound for name, bound in told.items() if bound is not None}


def _lengths(info: mi.StrType) -> Schema:
    names = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
    told = {schema: getattr(info, ours) for ours, schema in names.items()}
    return {name: bound for name, bound in told.items() if bound is not None}


def encoded(document: Schema) -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document)
