"""The schema's history: numbered SQL files, applied in order, forward only.

The files name the databases `market` and `market_raw` and are plain ClickHouse but for three
words from the settings: `${cluster}`, `${engine}` and `${window}`. So one set of files serves one
node and a cluster. Every statement can be repeated, so a migration cut off half-way, or run by two
processes at once, is finished by running it again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Final

from msgspec import Struct

from analytics.errors import BadMigrations, StoreDiffers
from analytics.store import Store, StoreSettings

#: Repeated inserts are recognized among at least this many newer ones (RELIABILITY H3).
MIN_WINDOW: Final = 10_000
_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_DATABASE: Final = re.compile(r"\b(FROM|JOIN|TO|AS|INTO|VIEW|TABLE|EXISTS) market(_raw)?\b")
_WINDOW: Final = re.compile(r"(?:non_)?replicated_deduplication_window = (\d+)")

_HISTORY: Final = """
CREATE TABLE IF NOT EXISTS market_raw.migrations${cluster}
(number UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = ${engine}ReplacingMergeTree ORDER BY number
"""


class Migration(Struct, frozen=True):
    """One file: its number, its name, and its text before the settings' words are put in."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """The files of this build, in order.

    Raises
    ------
    BadMigrations
        A file's name is not `NNNN_name.sql`, or numbers do not run 1, 2, 3 …
    """
    found = []
    for path in resources.files("analytics").joinpath("migrations").iterdir():
        if not path.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise BadMigrations(f"{path.name} is not called NNNN_name.sql")
        found.append(Migration(int(match[1]), match[2], path.read_text()))
    return checked(sorted(found, key=lambda m: m.number))


def checked(files: Sequence[Migration]) -> list[Migration]:
    """`files`, if their numbers run from 1 without a gap or a double."""
    for expected, migration in enumerate(files, start=1):
        if migration.number != expected:
            raise BadMigrations(f"migration {expected} is missing or double: {migration.name}")
    return list(files)


def statements(text: str, settings: StoreSettings) -> list[str]:
    """The statements of a migration, with the settings' words and database names put in.

    Examples
    --------
    >>> statements("CREATE TABLE market.a${cluster} (x Int8)\\nENGINE = ${engine}MergeTree;\\n",
    ...     StoreSettings(cluster="c", replicated=True, database="m2"))
    ["CREATE TABLE m2.a ON CLUSTER 'c' (x Int8)\\nENGINE = ReplicatedMergeTree"]
    """
    words = {
        "cluster": f" ON CLUSTER '{settings.cluster}'" if settings.cluster else "",
        "engine": "Replicated" if settings.replicated else "",
        "window": ("" if settings.replicated else "non_") + "replicated_deduplication_window",
    }
    sql = qualified(Template(text).substitute(words), settings)
    bare = (line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    parts = "\n".join(bare).split(";\n")
    return [s for part in parts if (s := part.strip().rstrip(";").strip())]


def qualified(sql: str, settings: StoreSettings) -> str:
    """`sql`, written for the databases `market` and `market_raw`, for the settings' databases."""
    if settings.database == "market":
        return sql
    return _DATABASE.sub(rf"\1 {settings.database}\2", sql)


async def migrate(store: Store, files: Sequence[Migration] | None = None) -> list[str]:
    """Bring the store's schema to this build's, and check what exactness rests on.

    Parameters
    ----------
    store : Store
    files : migrations to apply, in order; those of this build unless a test brings its own

    Returns
    -------
    list of str
        Names of the migrations applied now; empty when there was nothing to do.

    Raises
    ------
    BadMigrations
        The store is newer than this build, was migrated by other files, or has gaps.
    StoreDiffers
        A table's deduplication window is too small for repeats to be harmless.
    StoreUnavailable, StoreRejected
    """
    files = migrations() if files is None else checked(files)
    settings = store.settings
    cluster = " ON CLUSTER " + f"'{settings.cluster}'" if settings.cluster else ""
    await store.command(f"CREATE DATABASE IF NOT EXISTS {settings.raw}{cluster}")
    for statement in statements(_HISTORY, settings):
        await store.command(statement)
    applied = await _applied(store)
    _compare(applied, files)
    fresh = [m for m in files if m.number not in applied]
    for migration in fresh:
        for statement in statements(migration.text, settings):
            await store.command(statement)
        await store.command(
            "INSERT INTO {raw:Identifier}.migrations (number, name, checksum)"
            " SELECT {number:UInt32}, {name:String}, {checksum:String}",
            {"number": migration.number, "name": migration.name, "checksum": migration.checksum},
        )
    await check_windows(store)
    return [m.name for m in fresh]


async def is_behind(store: Store) -> bool:
    """Whether migrations of this build are still to be run on the store, or are running."""
    answer = await store.query(
        "SELECT count() FROM system.tables WHERE database = {raw:String} AND name = 'migrations'"
    )
    if not answer.rows[0][0]:
        return True
    applied = await _applied(store)
    return any(m.number not in applied for m in migrations())


async def _applied(store: Store) -> dict[int, tuple[str, str]]:
    answer = await store.query(
        "SELECT number, name, checksum FROM {raw:Identifier}.migrations FINAL ORDER BY number"
    )
    return {number: (name, checksum) for number, name, checksum in answer.rows}


def _compare(applied: dict[int, tuple[str, str]], files: Sequence[Migration]) -> None:
    ours = {m.number: m for m in files}
    for number, (name, checksum) in applied.items():
        if number not in ours:
            raise BadMigrations(
                f"the store has migration {number} ({name}), which this build does not know;"
                " run a build at least as new as the store"
            )
        if checksum != ours[number].checksum:
            raise BadMigrations(
                f"migration {number} ({name}) was applied from another text; restore the file"
                " and put the change into a new migration"
            )
    if applied and max(applied) != len(applied):
        missing = next(n for n in range(1, max(applied)) if n not in applied)
        raise BadMigrations(f"the store lacks migration {missing} but has later ones")


async def check_windows(store: Store) -> None:
    """Refuse to go on where ClickHouse would forget an insert too soon.

    Raises
    ------
    StoreDiffers
        Names every table whose deduplication window is below `MIN_WINDOW`.
    """
    answer = await store.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = {raw:String}"
        " AND engine LIKE '%MergeTree' AND name NOT IN ('migrations', 'lives') ORDER BY name"
    )
    small = []
    for name, query in answer.rows:
        window = _WINDOW.search(query)
        if window is None or int(window[1]) < MIN_WINDOW:
            small.append(f"{name} ({window[1] if window else 'server default'})")
    if small:
        raise StoreDiffers(
            f"deduplication window below {MIN_WINDOW} inserts: {', '.join(small)};"
            " ALTER TABLE … MODIFY SETTING it back"
        )
