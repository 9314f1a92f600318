"""The migrations of this build, as files: numbers, checksums, words, database names."""

from __future__ import annotations

import msgspec
import pytest

from analytics.errors import BadMigrations
from analytics.migrate import Migration, checked, migrations, qualified, statements
from analytics.store import StoreSettings


def test_this_build_has_migrations_numbered_from_one() -> None:
    files = migrations()
    assert [m.number for m in files] == list(range(1, len(files) + 1))
    assert len({m.checksum for m in files}) == len(files)


@pytest.mark.parametrize("numbers", [[2], [1, 3], [1, 1], [0, 1]])
def test_gaps_and_doubles_are_refused(numbers: list[int]) -> None:
    with pytest.raises(BadMigrations, match="missing or double"):
        checked([Migration(n, f"m{n}", "SELECT 1;\n") for n in numbers])


def test_one_set_of_files_serves_a_node_and_a_cluster() -> None:
    cluster = StoreSettings(cluster="c1", replicated=True)
    for migration in migrations():
        alone = statements(migration.text, StoreSettings())
        one = "\n".join(alone)
        many = "\n".join(statements(migration.text, cluster))
        assert "${" not in one + many
        assert len(alone) == many.count("ON CLUSTER 'c1'")
        assert one.count("MergeTree") == many.count("MergeTree")
        assert many.count("= Replicated") == one.count("MergeTree")
        assert "non_replicated" not in many


def test_every_statement_can_be_repeated() -> None:
    for migration in migrations():
        for statement in statements(migration.text, StoreSettings()):
            words = (
                *("IF NOT EXISTS", "IF EXISTS", "OR REPLACE"),
                *("MODIFY QUERY", "MODIFY SETTING", "MATERIALIZE PROJECTION"),
            )
            assert any(word in statement for word in words), statement[:80]


def test_another_database_takes_the_place_of_ours_and_nothing_else() -> None:
    sql = "SELECT 'market.attempts', market FROM market.a JOIN market_raw.b -- the market"
    settings = StoreSettings(database="desk")
    assert qualified(sql, settings) == (
        "SELECT 'market.attempts', market FROM desk.a JOIN desk_raw.b -- the market"
    )
    assert qualified(sql, StoreSettings()) == sql
    for migration in migrations():
        for statement in statements(migration.text, settings):
            assert " market." not in statement
            assert " market_raw." not in statement


def test_a_database_name_cannot_smuggle_sql() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"database": "x; DROP TABLE y"}, StoreSettings)
