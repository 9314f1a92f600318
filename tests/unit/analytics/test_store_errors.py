"""Every exception of the driver becomes one of ours, and says rightly whether to try again."""

from __future__ import annotations

import inspect
from typing import Any

import aiohttp
import pytest
from clickhouse_connect.driver import exceptions as driver

from analytics.errors import StoreRejected, StoreUnavailable
from analytics.store import DRIVER_ERRORS, Store, StoreSettings, mapped

THEIRS = [
    kind
    for _, kind in inspect.getmembers(driver, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == driver.__name__
]


@pytest.mark.parametrize("kind", THEIRS, ids=lambda k: k.__name__)
def test_every_exception_of_the_driver_is_caught_and_mapped(kind: Any) -> None:
    assert issubclass(kind, DRIVER_ERRORS)
    error = kind(*() if kind is driver.StreamClosedError else ("why",))
    assert isinstance(mapped(error, "asking"), (StoreUnavailable, StoreRejected))


def test_the_driver_has_exceptions_to_walk() -> None:
    assert len(THEIRS) >= 10


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (241, StoreUnavailable),  # memory
        (252, StoreUnavailable),  # too many parts
        (243, StoreUnavailable),  # disk full
        (159, StoreUnavailable),  # timeout
        (62, StoreRejected),  # syntax
        (27, StoreRejected),  # a row that cannot be read
        (60, StoreRejected),  # no such table
        (497, StoreRejected),  # not allowed
        (516, StoreRejected),  # wrong password
    ],
)
def test_clickhouse_codes_say_whether_to_try_again(code: int, expected: type) -> None:
    error = mapped(driver.DatabaseError("no", code=code, name="X"), "insert into a")
    assert type(error) is expected
    assert str(error) == "insert into a: no"
    if isinstance(error, StoreRejected):
        assert (error.code, error.name) == (code, "X")


@pytest.mark.parametrize(
    "error",
    [
        driver.OperationalError("connection refused"),
        driver.DatabaseError("HTTP 502 from a proxy"),
        aiohttp.ClientConnectionError("reset"),
        TimeoutError(),
        ConnectionRefusedError(),
    ],
)
def test_what_never_reached_the_store_may_be_tried_again(error: Exception) -> None:
    assert isinstance(mapped(error, "asking"), StoreUnavailable)


def test_our_own_wrong_arguments_are_not_tried_again() -> None:
    assert isinstance(mapped(driver.ProgrammingError("no table"), "asking"), StoreRejected)


async def test_a_store_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match="connecting to 127"):
        await Store.open(StoreSettings(port=1))
