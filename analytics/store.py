"""The ClickHouse client: one address, bound parameters, and errors in our words.

Everything above asks through `Store`, so nothing else in the project sees clickhouse-connect.
Its exceptions say little about whether to try again (most are one `DatabaseError`), so the
mapping goes by ClickHouse's own error codes; a test walks the driver's exceptions and fails on
one that escapes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Self

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, StreamCompleteException
from msgspec import Meta, Struct

from analytics.errors import StoreError, StoreRejected, StoreUnavailable

Value = str | int | float | bool | None
Params = Mapping[str, object]

#: Codes by which ClickHouse says "not now": full, busy, cut off, or without its Keeper.
_NOT_NOW: Final = frozenset(
    {
        *(159, 160),  # TIMEOUT_EXCEEDED, TOO_SLOW
        *(201, 202, 203, 439),  # QUOTA_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, no connection, task
        *(209, 210, 236, 279, 394),  # SOCKET_TIMEOUT, NETWORK_ERROR, ABORTED, connection, cancelled
        *(225, 242, 285, 286, 289, 319, 999),  # Keeper, read-only table, quorum, unknown status
        *(241, 243, 252),  # MEMORY_LIMIT_EXCEEDED, NOT_ENOUGH_SPACE, TOO_MANY_PARTS
        *(74, 75, 76, 77, 1001),  # reading and writing files, STD_EXCEPTION: a full disk
    }
)
DRIVER_ERRORS: Final = (
    ClickHouseError,
    StreamCompleteException,
    aiohttp.ClientError,
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
)


class StoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where ClickHouse is, and the shape of what we make there.

    `database` holds the analysts' views; the tables behind them are in `<database>_raw`.
    `cluster` makes every statement of the schema run `ON CLUSTER`; `replicated` chooses the
    Replicated engines. `memory_limit_bytes` 0 leaves the server's own limit on our queries.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8123
    secure: bool = False
    username: str = "default"
    password: str = ""
    database: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,60}$")] = "market"
    cluster: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]*$")] = ""
    replicated: bool = False
    connect_timeout_s: Annotated[int, Meta(ge=1)] = 5
    answer_timeout_s: Annotated[int, Meta(ge=1)] = 60
    memory_limit_bytes: Annotated[int, Meta(ge=0)] = 0

    @property
    def raw(self) -> str:
        """The database of tables, which analysts do not see."""
        return f"{self.database}_raw"


class Answer(Struct, frozen=True):
    """A query's answer: column names, ClickHouse types, and rows in order."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def mapped(error: BaseException, doing: str) -> StoreError:
    """The driver's `error` as ours; `doing` says what was asked.

    An error without a ClickHouse code never reached the server or was cut off on the way:
    unavailable, unless the driver itself refused our arguments.
    """
    code: int | None = getattr(error, "code", None)
    message = f"{doing}: {str(error) or type(error).__name__}"
    if code in _NOT_NOW:
        return StoreUnavailable(message)
    if code is not None:
        return StoreRejected(message, code=code, name=getattr(error, "name", None))
    if isinstance(error, (OSError, TimeoutError, aiohttp.ClientError, StreamCompleteException)):
        return StoreUnavailable(message)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"OperationalError", "InterfaceError", "InternalError"}:
        return StoreUnavailable(message)
    if type(error).__name__ in ("DatabaseError", "Error", "ClickHouseError"):
        return StoreUnavailable(message)
    return StoreRejected(message)


class Store:
    """An open connection pool to ClickHouse. Make it with `await Store.open(settings)`."""

    def __init__(self, settings: StoreSettings, client: AsyncClient) -> None:
        self.settings = settings
        self._client = client
        self._names = {"raw": settings.raw, "market": settings.database}

    def _bound(self, sql: str, params: Params | None) -> dict[str, object]:
        """The parameters `sql` names, our databases' among them (`{raw:Identifier}`).

        Only those, because the driver formats a query that names none with `%`, on the client.
        """
        given = {**self._names, **(params or {})}
        return {name: value for name, value in given.items() if f"{{{name}:" in sql}

    @classmethod
    async def open(cls, settings: StoreSettings) -> Self:
        """Connect.

        Raises
        ------
        StoreUnavailable
            No answer at the address.
        StoreRejected
            Wrong credentials.
        """
        try:
            client = await clickhouse_connect.get_async_client(
                host=settings.host,
                port=settings.port,
                username=settings.username,
                password=settings.password,
                interface="https" if settings.secure else "http",
                # Our views' database may not exist yet, and every name we send is qualified.
                database="__default__",
                connect_timeout=settings.connect_timeout_s,
                send_receive_timeout=settings.answer_timeout_s,
                compress=settings.secure,
                tz_mode="aware",
                settings=(
                    {"max_memory_usage": settings.memory_limit_bytes}
                    if settings.memory_limit_bytes
                    else {}
                ),
            )
        except DRIVER_ERRORS as error:
            raise mapped(error, f"connecting to {settings.host}:{settings.port}") from error
        return cls(settings, client)

    async def query(
        self, sql: str, params: Params | None = None, settings: Mapping[str, Value] | None = None
    ) -> Answer:
        """Ask; parameters are bound by the server (`{name:Type}` in `sql`).

        Raises
        ------
        StoreUnavailable, StoreRejected
        """
        try:
            found = await self._client.query(
                sql, parameters=self._bound(sql, params), settings=dict(settings or {})
            )
        except DRIVER_ERRORS as error:
            raise mapped(error, _head(sql)) from error
        types = tuple(t.name for t in found.column_types)
        return Answer(tuple(found.column_names), types, [tuple(r) for r in found.result_rows])

    async def export(
        self,
        sql: str,
        params: Params | None = None,
        *,
        fmt: str,
        settings: Mapping[str, Value] | None = None,
    ) -> bytes:
        """Ask, and have the answer as the server writes it in `fmt` (CSV, JSONEachRow, Parquet).

        Raises
        ------
        StoreUnavailable, StoreRejected
        """
        try:
            found = await self._client.raw_query(
                sql, parameters=self._bound(sql, params), settings=dict(settings or {}), fmt=fmt
            )
        except DRIVER_ERRORS as error:
            raise mapped(error, _head(sql)) from error
        return bytes(found)

    async def command(
        self, sql: str, params: Params | None = None, settings: Mapping[str, Value] | None = None
    ) -> None:
        """Run a statement that answers nothing.

        Raises
        ------
        StoreUnavailable, StoreRejected
        """
        try:
            await self._client.command(
                sql, parameters=self._bound(sql, params), settings=dict(settings or {})
            )
        except DRIVER_ERRORS as error:
            raise mapped(error, _head(sql)) from error

    async def insert_json(
        self, table: str, columns: Sequence[str], body: bytes, settings: Mapping[str, Value]
    ) -> None:
        """Insert rows already written as JSON, one object a row.

        Raises
        ------
        StoreUnavailable
            Whether the rows are there is not known: look, or send again under the same token.
        StoreRejected
        """
        try:
            await self._client.raw_insert(
                table,
                column_names=list(columns),
                insert_block=body,
                settings=dict(settings),
                fmt="JSONEachRow",
            )
        except DRIVER_ERRORS as error:
            raise mapped(error, f"insert into {table}") from error

    async def ping(self) -> bool:
        """Whether the store answers now."""
        return bool(await self._client.ping())

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _head(sql: str) -> str:
    return " ".join(sql.split())[:80]
