"""Taking statements apart by their text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.embedded.sql_text import first_word, output_format, split_format, split_insert


@pytest.mark.parametrize(
    ("body", "head", "format_", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1\n", "INSERT INTO t ", "CSV", b"1\n"),
        (
            b"insert into db.t (a, `b c`) format Native\n\0\xff",
            "insert into db.t (a, `b c`) ",
            "Native",
            b"\0\xff",
        ),
        (
            b"INSERT INTO settings SETTINGS x = 'FORMAT' FORMAT TSV \r\n1",
            "INSERT INTO settings |SETTINGS x = 'FORMAT' ",
            "TSV",
            b"1",
        ),
        (
            b"/* FORMAT A */ INSERT -- FORMAT B\nINTO t FORMAT JSONEachRow {}",
            "/* FORMAT A */ INSERT -- FORMAT B\nINTO t ",
            "JSONEachRow",
            b"{}",
        ),
        (b"INSERT INTO format FORMAT CSV\n", "INSERT INTO format ", "CSV", b""),
        (b"INSERT INTO TABLE values FORMAT CSV;\nx", "INSERT INTO TABLE values ", "CSV", b"x"),
        (
            b"INSERT INTO FUNCTION f(a, FORMAT) FORMAT CSV\n\n",
            "INSERT INTO FUNCTION f(a, FORMAT) ",
            "CSV",
            b"\n",
        ),
        ("INSERT INTO `té` FORMAT CSV\né".encode(), "INSERT INTO `té` ", "CSV", "é".encode()),
    ],
)
def test_head_format_and_data_of_an_insert(
    body: bytes, head: str, format_: str, data: bytes
) -> None:
    found = split_insert(body)
    assert found is not None
    before, _, settings = head.partition("|")
    assert (found.head, found.settings, found.format) == (before, settings, format_)
    assert body[found.data_at :] == data


@pytest.mark.parametrize(
    "body",
    [
        b"INSERT INTO t VALUES (1, 'FORMAT CSV')",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x",
        b"SELECT 1 FORMAT CSV",
        b"CREATE TABLE t (a Int8)",
        b"INSERT INTO t FORMAT",
        b"INSERT INTO t (a",
        b"",
        b"\xff\xfe",
    ],
)
def test_what_is_whole_sql(body: bytes) -> None:
    assert split_insert(body) is None


def test_a_head_longer_than_the_first_look() -> None:
    columns = ", ".join(f"column_{i}" for i in range(20_000))
    body = f"INSERT INTO t ({columns}) FORMAT CSV\n1".encode()
    found = split_insert(body)
    assert found is not None
    assert body[found.data_at :] == b"1"


@given(data=st.binary(max_size=200), format_=st.sampled_from(["CSV", "Native", "RowBinary"]))
def test_data_are_never_touched(data: bytes, format_: str) -> None:
    found = split_insert(f"INSERT INTO t FORMAT {format_}\n".encode() + data)
    assert found is not None
    assert found.format == format_
    body = f"INSERT INTO t FORMAT {format_}\n".encode() + data
    assert body[found.data_at :] == data


@pytest.mark.parametrize(
    ("sql", "rest", "format_"),
    [
        ("SELECT 1", "SELECT 1", ""),
        ("SELECT 1 format CSV", "SELECT 1 ", "CSV"),
        ("SELECT 1 FORMAT JSON ; ; -- end", "SELECT 1 ", "JSON"),
        ("SELECT 'FORMAT CSV'", "SELECT 'FORMAT CSV'", ""),
        ("SELECT (1 AS FORMAT) x", "SELECT (1 AS FORMAT) x", ""),
        ("SELECT `FORMAT` CSV", "SELECT `FORMAT` CSV", ""),
        ("SELECT 1 -- FORMAT CSV", "SELECT 1 -- FORMAT CSV", ""),
        (";", "", ""),
    ],
)
def test_format_is_cut_off(sql: str, rest: str, format_: str) -> None:
    assert split_format(sql) == (rest, format_)


def test_output_format_also_before_settings() -> None:
    assert output_format("SELECT 1 FORMAT CSV SETTINGS max_threads = 1") == "CSV"
    assert output_format("SELECT (SELECT 1 FORMAT CSV)") == ""


def test_first_word() -> None:
    assert first_word(" -- x\n ((select 1)") == "SELECT"
    assert first_word("/* only */") == ""
    assert first_word("; DROP") == ""


@given(st.text(max_size=300))
def test_any_text_can_be_taken_apart(text: str) -> None:
    rest, _ = split_format(text)
    assert text.startswith(rest)
    split_insert(text.encode())
    first_word(text)
