"""Every exception aiokafka can raise is one of ours."""

from __future__ import annotations

import inspect

import pytest
from aiokafka import errors as kafka_errors

from feeds.errors import LogRefused, LogUnavailable
from feeds.kafka import REFUSED, REFUSED_MESSAGE, UNAVAILABLE, log_errors, mapped

ALL = [
    kind
    for _, kind in inspect.getmembers(kafka_errors, inspect.isclass)
    if issubclass(kind, Exception)
]


def test_aiokafka_has_the_errors_we_think_it_has() -> None:
    assert len(ALL) > 90


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_is_mapped_exactly_once(kind: type[Exception]) -> None:
    homes = [name for name, kinds in (("r", REFUSED), ("u", UNAVAILABLE)) if kind in kinds]
    assert len(homes) == 1, f"{kind.__name__} must be in exactly one of REFUSED and UNAVAILABLE"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_leaves_as_ours_with_its_cause(kind: type[Exception]) -> None:
    error = kind()
    with pytest.raises((LogUnavailable, LogRefused)) as caught, log_errors("trying"):
        raise error
    assert caught.value.__cause__ is error
    assert str(caught.value).startswith("trying: ")


def test_what_kafka_calls_retriable_we_do_not_refuse() -> None:
    assert not [k.__name__ for k in REFUSED if getattr(k, "retriable", False)]


def test_a_message_refused_for_itself_is_refused() -> None:
    assert set(REFUSED_MESSAGE) <= set(REFUSED)


@pytest.mark.parametrize(
    "error", [ConnectionResetError("reset"), TimeoutError(), OSError(24, "fds")]
)
def test_the_sockets_errors_are_weather(error: Exception) -> None:
    assert type(mapped(error, "reading")) is LogUnavailable


def test_a_subclass_is_its_parent() -> None:
    special = type("Special", (kafka_errors.TopicAuthorizationFailedError,), {})
    assert type(mapped(special(), "writing")) is LogRefused


def test_faults_of_our_own_pass_through() -> None:
    with pytest.raises(KeyError), log_errors("trying"):
        raise KeyError("ours")
