"""`broker report`: a named report on the terminal or as a file on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import get_args

import msgspec
from rich.console import Console
from rich.table import Table

from analytics import reports
from analytics.store import Store
from bidding.errors import BadRequest
from broker.config import Settings, analyst_store


def listing() -> Table:
    """All reports with their questions and parameters."""
    table = Table("report", "question", "parameters")
    for report in reports.list_reports():
        parameters = ", ".join(
            p.name if p.default is None else f"{p.name}={p.default}" for p in report.parameters
        )
        table.add_row(report.name, report.question, parameters)
    return table


def arguments(given: Sequence[str]) -> dict[str, str]:
    """`name=value` pairs. Raises `BadRequest` on one without a value."""
    values = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadRequest(f"{pair!r} is no parameter", remedy="write name=value")
        values[name] = value
    return values


async def show(settings: Settings, name: str, given: dict[str, str], fmt: str) -> None:
    """Run a report as the analyst and print it.

    Raises
    ------
    UnknownReport, BadParameter, BadRequest, StoreUnavailable, StoreRejected
    """
    async with await Store.open(analyst_store(settings)) as store:
        if fmt == "table":
            result = await reports.run(store, name, given)
            table = Table(*result.columns, title=name)
            for row in result.rows:
                table.add_row(*("" if value is None else str(value) for value in row))
            Console().print(table)
            return
        if fmt not in get_args(reports.Format):
            known = ", ".join(get_args(reports.Format))
            raise BadRequest(f"unknown format {fmt!r}", remedy=f"choose table, {known}")
        body = await reports.export(store, name, given, fmt=msgspec.convert(fmt, reports.Format))
        sys.stdout.buffer.write(body)
