"""Changes of the live params by dotted path: refused with the bounds or near names, or made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from bidding.errors import BadParams, UnknownParam
from bidding.params import Params, describe


class Difference(Struct, frozen=True):
    """One number that differs between two versions."""

    path: str
    old: float
    new: float


def with_changes(params: Params, changes: Mapping[str, float], *, version: int) -> Params:
    """A new version with some numbers changed, by path such as `choice.optimism_sd`.

    Raises
    ------
    UnknownParam
        No such number; carries near names.
    BadParams
        Not finite, out of bounds (carries them), of the wrong type, or nothing is changed.
    """
    known = {doc.path: doc for doc in describe()}
    nested: dict[str, Any] = {}
    for path, value in changes.items():
        doc = known.get(path)
        if doc is None:
            raise UnknownParam(path, difflib.get_close_matches(path, known, n=3, cutoff=0.5))
        low, high = doc.ge, doc.le
        below = low is not None and value < low
        above = high is not None and value > high
        if below or above or not math.isfinite(value):
            bounds = f"{_bound(low)} to {_bound(high)} {doc.unit}".rstrip()
            raise BadParams(
                f"{path} = {value:g} is out of bounds: {bounds}", path=path, low=low, high=high
            )
        section = nested
        *groups, name = path.split(".")
        for group in groups:
            section = section.setdefault(group, {})
        section[name] = value
    changed = params.patched(nested, version=version)
    if not differences(params, changed):
        raise BadParams("this changes nothing: every number named has that value already")
    return changed


def differences(old: Params, new: Params) -> list[Difference]:
    """The numbers that differ, in declaration order."""
    before, after = flat(old), flat(new)
    return [Difference(p, before[p], after[p]) for p in before if before[p] != after[p]]


def flat(params: Params) -> dict[str, float]:
    """Every number by its path."""
    plain = msgspec.to_builtins(params)
    found: dict[str, float] = {}
    for doc in describe():
        value = plain
        for name in doc.path.split("."):
            value = value[name]
        found[doc.path] = value
    return found


def _bound(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:g}"
