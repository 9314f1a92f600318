"""Who waits for what: calls of both accounts brought to the engine's threads.

The writer and the analyst have threads of their own, so a crowd of slow questions never stands
before an insert; an analyst's query also runs on one core at a lower priority. Analysts beyond
the number allowed at once wait, and beyond that are turned away at once rather than after a
timeout.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from broker.embedded import allowed, guard
from broker.embedded.accounts import AnalystLimits
from broker.embedded.engine import Answer, Engine, identifier
from broker.embedded.errors import (
    TOO_MANY_ROWS_OR_BYTES,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    QueryFailed,
    Refused,
)
from broker.embedded.http_request import Call

_N_WRITER_THREADS: Final = 4
_NICE: Final = 10


class Desk:
    """Runs calls on an `Engine` off the event loop.

    Parameters
    ----------
    engine : the process's engine
    limits : of the analyst's account; its databases are created if they are missing
    """

    def __init__(self, engine: Engine, limits: AnalystLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._writer = ThreadPoolExecutor(_N_WRITER_THREADS, "writer")
        self._analyst = ThreadPoolExecutor(limits.max_concurrent, "analyst")
        self._n_analyst_calls = 0
        self._analyst_settings = _analyst_settings(limits)
        with engine.session("", {}) as session:
            for database in limits.databases:
                session.query(f"CREATE DATABASE IF NOT EXISTS {identifier(database)}")

    async def write(self, call: Call) -> Answer:
        """Run any statement with the writer's rights."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._run, call)

    async def read(self, call: Call) -> Answer:
        """Run one SELECT with the analyst's rights.

        Raises
        ------
        Refused : not allowed; says which part
        QueryFailed : the engine's error, a limit reached, or too many waiting (code 202)
        """
        limits = self._limits
        if self._n_analyst_calls >= limits.max_concurrent + limits.max_waiting:
            raise QueryFailed(
                TOO_MANY_SIMULTANEOUS_QUERIES,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"{self._n_analyst_calls} analysts' queries are running or waiting; try later.",
            )
        self._n_analyst_calls += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._analyst, self._ask, call)
        finally:
            self._n_analyst_calls -= 1

    def close(self) -> None:
        """Let running calls finish, take no more, close the engine."""
        self._analyst.shutdown(cancel_futures=True)
        self._writer.shutdown()
        self._engine.close()

    def _run(self, call: Call) -> Answer:
        return self._engine.run(
            call.sql,
            params=call.params,
            settings=call.settings,
            database=call.database,
            default_format=call.default_format,
        )

    def _ask(self, call: Call) -> Answer:
        limits = self._limits
        database = call.database
        if database in ("", "default"):
            database = limits.databases[0]
        if database not in limits.databases:
            raise Refused(f"database {database!r}; {', '.join(limits.databases)} may be read.")
        for name in call.settings:
            if name not in allowed.SETTINGS:
                raise Refused(f"setting {name!r}.")
        with self._engine.session(database, self._analyst_settings) as session:
            session.set({**call.settings, "readonly": "1"})
            approved = guard.approve(
                session,
                _text(call.sql),
                params=call.params,
                default_format=call.default_format,
                limits=limits,
            )
            answer = session.query(approved.sql, approved.format, call.params)
        if len(answer.data) > limits.max_result_bytes:
            # A constant column counts once for the engine and once a row in what is sent.
            raise QueryFailed(
                TOO_MANY_ROWS_OR_BYTES,
                "TOO_MANY_ROWS_OR_BYTES",
                f"the answer has {len(answer.data)} bytes; {limits.max_result_bytes} are allowed.",
            )
        return answer


def _text(sql: bytes) -> str:
    try:
        return sql.decode()
    except UnicodeDecodeError as error:
        raise Refused("the query is not UTF-8.") from error


def _analyst_settings(limits: AnalystLimits) -> dict[str, str]:
    return {
        "max_execution_time": str(limits.max_execution_s),
        "timeout_overflow_mode": "throw",
        "max_result_rows": str(limits.max_result_rows),
        "max_result_bytes": str(limits.max_result_bytes),
        "result_overflow_mode": "throw",
        "max_memory_usage": str(limits.max_memory_bytes),
        "max_threads": str(limits.max_threads),
        "max_query_size": str(2 * guard.MAX_SQL_CHARS),
        "max_ast_depth": "300",
        "max_ast_elements": "20000",
        "max_expanded_ast_elements": "100000",
        "os_threads_nice_value_query": str(_NICE),
        # The wrapping must not cost the query its ORDER BY.
        "query_plan_remove_redundant_sorting": "0",
        "additional_table_filters": guard.row_filters(limits),
        "allow_introspection_functions": "0",
    }
