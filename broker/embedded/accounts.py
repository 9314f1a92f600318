"""Who may ask the store: a writer who may do anything, an analyst who may read, within limits."""

from __future__ import annotations

import hmac
from typing import Annotated, Final

import msgspec

from broker.embedded.errors import AUTHENTICATION_FAILED, QueryFailed

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user name and its password."""

    user: str
    password: str


class AnalystLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the analyst may read and how much of the machine one of their queries may take.

    Attributes
    ----------
    databases : databases whose tables and views may be read; the first is the default one
    hidden_tables : `fnmatch` patterns of table names in them that may not be read
    max_execution_s : a query running longer is stopped (code 159)
    max_result_rows, max_result_bytes : a larger answer is refused (code 396)
    max_memory_bytes : a query needing more is stopped (code 241)
    max_threads : threads of one query
    max_concurrent : queries running at once; the rest wait their turn
    max_waiting : queries waiting at once; more are turned away (code 202)
    """

    databases: tuple[str, ...] = ("market",)
    hidden_tables: tuple[str, ...] = ("*control_keys*", ".inner*")
    max_execution_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    max_result_rows: PositiveInt = 1_000_000
    max_result_bytes: PositiveInt = 256 << 20
    max_memory_bytes: PositiveInt = 1 << 30
    max_threads: PositiveInt = 1
    max_concurrent: PositiveInt = 2
    max_waiting: PositiveInt = 32


class Accounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The two accounts of one server."""

    writer: Account
    analyst: Account

    def is_analyst(self, user: str, password: str) -> bool:
        """Whether these credentials are the analyst's; False is the writer.

        Raises
        ------
        QueryFailed : neither (code 516); the text does not say which half was wrong
        """
        given = _digestible(user, password)
        is_writer = hmac.compare_digest(given, _digestible(self.writer.user, self.writer.password))
        is_analyst = hmac.compare_digest(
            given, _digestible(self.analyst.user, self.analyst.password)
        )
        if not (is_writer or is_analyst):
            raise QueryFailed(
                AUTHENTICATION_FAILED,
                "AUTHENTICATION_FAILED",
                f"{user}: Authentication failed: password is incorrect, or there is no such user.",
            )
        return is_analyst and not is_writer


_SEPARATOR: Final = b"\0"


def _digestible(user: str, password: str) -> bytes:
    return user.encode() + _SEPARATOR + password.encode()
