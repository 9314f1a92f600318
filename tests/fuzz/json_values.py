"""JSON values to break bodies with, and places in a body to break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([-1, 2**63, 2**64, 10**400, 1e308, "", "\x00", "dec_", "../../etc/passwd"]),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4)
    ),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield at
    for key, below in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from places(below, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` at a place."""
    if not at:
        return new
    new_value = dict(value) if isinstance(value, dict) else list(value)
    new_value[at[0]] = changed(value[at[0]], at[1:], new)
    return new_value
