"""Named reports: each a file of `queries/`, whose head says what it asks and what it may be given.

The head is the documentation and the contract at once: question, grain, cost, and one line a
parameter, `-- Param: name Type = default | meaning` (no `=`: it must be given). Values are checked
here against their type and then bound by the server; nothing is ever put into the SQL text.

Times are given as ISO 8601 (UTC unless it says otherwise), as `now`, or as an age: `90s`, `15m`,
`24h`, `7d`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Any, Final, Literal

from msgspec import Struct

from analytics.errors import BadParameter, UnknownReport
from analytics.migrate import qualified
from analytics.store import Store
from feeds.clock import Clock, SystemClock

Format = Literal["csv", "json", "parquet"]
FORMATS: Final[dict[Format, str]] = {
    "csv": "CSVWithNames",
    "json": "JSONEachRow",
    "parquet": "Parquet",
}
_HEAD: Final = re.compile(r"-- (Question|Grain|Cost|Param): (.*)")
_MORE: Final = re.compile(r"--   (.*)")
_PARAM: Final = re.compile(r"(\w+) (\w+)(?: =(?: (\S+))?)? \| (.+)")
_AGE: Final = re.compile(r"(\d+)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_BOOLS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_UNSIGNED: Final = {"UInt32": 2**32 - 1, "UInt64": 2**64 - 1}


class Parameter(Struct, frozen=True):
    """What a report may be given. `default` None: it must be given."""

    name: str
    type: str
    default: str | None
    meaning: str


class Report(Struct, frozen=True):
    """A named question."""

    name: str
    question: str
    grain: str
    cost: str
    parameters: tuple[Parameter, ...]
    sql: str


class ReportResult(Struct, frozen=True):
    """A report's answer: column names, ClickHouse types, rows; and the values it was run with."""

    report: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    parameters: dict[str, object]

    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@lru_cache(maxsize=1)
def _all() -> dict[str, Report]:
    folder = resources.files("analytics").joinpath("queries")
    files = sorted((p for p in folder.iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)
    return {p.name[:-4]: parse(p.name[:-4], p.read_text()) for p in files}


def list_reports() -> list[Report]:
    """All reports, by name."""
    return list(_all().values())


def report(name: str) -> Report:
    """The report called `name`.

    Raises
    ------
    UnknownReport
        Carries the nearest names.
    """
    known = _all()
    if name not in known:
        raise UnknownReport(name, difflib.get_close_matches(name, known, n=3, cutoff=0.4))
    return known[name]


def parse(name: str, text: str) -> Report:
    """A query file into a `Report`. Raises `ValueError` on a head that does not say everything."""
    head: dict[str, str] = {}
    parameters: list[str] = []
    last = ""
    for line in text.splitlines():
        if match := _HEAD.fullmatch(line):
            last = match[1]
            if last == "Param":
                parameters.append(match[2])
            else:
                head[last] = match[2]
        elif (match := _MORE.fullmatch(line)) and last in head:
            head[last] += " " + match[1]
    missing = {"Question", "Grain", "Cost"} - set(head)
    if missing:
        raise ValueError(f"report {name}: no {', '.join(sorted(missing))} in its head")
    return Report(
        name=name,
        question=head["Question"],
        grain=head["Grain"],
        cost=head["Cost"],
        parameters=tuple(_parameter(name, p) for p in parameters),
        sql="\n".join(line for line in text.splitlines() if not line.startswith("--")),
    )


def _parameter(report_name: str, line: str) -> Parameter:
    match = _PARAM.fullmatch(line)
    if match is None:
        raise ValueError(f"report {report_name}: cannot read parameter {line!r}")
    default = (match[3] or "") if " =" in line.partition("|")[0] else None
    return Parameter(match[1], match[2], default, match[4])


def bind(
    asked: Report, given: Mapping[str, str | int | float | bool], now: datetime
) -> dict[str, object]:
    """Values for the report's parameters, checked, defaults filled in.

    Raises
    ------
    BadParameter
        Unknown, missing, or not of its type.
    """
    known = {p.name for p in asked.parameters}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise BadParameter(name, f"report {asked.name} has no such parameter; {hint}")
    values: dict[str, object] = {}
    for parameter in asked.parameters:
        value = given.get(parameter.name, parameter.default)
        if value is None:
            raise BadParameter(parameter.name, f"must be given: {parameter.meaning}")
        values[parameter.name] = _value(parameter, value, now)
    return values


def _value(parameter: Parameter, value: str | int | float | bool, now: datetime) -> object:
    name, text = parameter.name, str(value).strip()
    match parameter.type:
        case "String":
            return str(value)
        case "UInt32" | "UInt64":
            if not text.isascii() or not text.isdigit() or int(text) > _UNSIGNED[parameter.type]:
                raise BadParameter(name, f"{value!r} is not a whole number from 0 up")
            return int(text)
        case "Bool":
            if text.lower() not in _BOOLS:
                raise BadParameter(name, f"{value!r} is neither true nor false")
            return _BOOLS[text.lower()]
        case "DateTime":
            return moment(name, text, now)
        case other:
            raise BadParameter(name, f"type {other} is not one a report can have")


def moment(name: str, text: str, now: datetime) -> datetime:
    """A point in time: `now`, an age such as `24h`, or ISO 8601.

    Examples
    --------
    >>> moment("since", "2h", datetime(2026, 4, 1, 12, tzinfo=UTC)).isoformat()
    '2026-04-01T10:00:00+00:00'
    """
    if text == "now":
        return now
    if age := _AGE.fullmatch(text):
        try:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        except OverflowError as error:
            raise BadParameter(name, f"{text!r} is before the calendar begins") from error
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadParameter(
            name, f"{text!r} is no time; write 2026-04-01T12:00, 24h, 7d or now"
        ) from error
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if not datetime(1970, 1, 1, tzinfo=UTC) <= at < datetime(2106, 1, 1, tzinfo=UTC):
        raise BadParameter(name, f"{text!r} is not between 1970 and 2105")
    return at


async def run(
    store: Store,
    name: str,
    params: Mapping[str, str | int | float | bool] | None = None,
    *,
    clock: Clock | None = None,
) -> ReportResult:
    """Run a report.

    Parameters
    ----------
    store : Store, of the analyst's account as a rule
    name : of the report
    params : values by parameter name; text is read as the parameter's type
    clock : says what `now` is

    Raises
    ------
    UnknownReport, BadParameter
        The caller's to change.
    StoreUnavailable, StoreRejected
    """
    asked = report(name)
    values = bind(asked, params or {}, _now(clock))
    sql = qualified(asked.sql, store.settings)
    answer = await store.query(sql, values)
    columns, types = answer.columns, answer.types
    if not columns:  # an answer without rows comes without columns, too
        names = await store.export(sql, values, fmt="TabSeparatedWithNamesAndTypes")
        columns, types = (tuple(line.split("\t")) for line in names.decode().splitlines()[:2])
    return ReportResult(name, columns, types, answer.rows, values)


async def export(
    store: Store,
    name: str,
    params: Mapping[str, str | int | float | bool] | None = None,
    *,
    fmt: Format,
    clock: Clock | None = None,
) -> bytes:
    """A report's answer as a file: CSV with names, JSON one object a line, or Parquet.

    Raises
    ------
    As `run`.
    """
    asked = report(name)
    values = bind(asked, params or {}, _now(clock))
    return await store.export(qualified(asked.sql, store.settings), values, fmt=FORMATS[fmt])


def _now(clock: Clock | None) -> datetime:
    return datetime.fromtimestamp((clock or SystemClock()).now_us() / 1e6, UTC)
