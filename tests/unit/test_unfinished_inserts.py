"""The newest line of a deduplication log goes if, and only if, its part was never stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.embedded.unfinished import forget_unfinished

LINES = [f"1\t202611_{n}_{n}_0\t202611_{n}77_{n}88\n" for n in (1, 2, 3)]


def table(data_dir: Path, log: str, parts: list[str], number: int = 1) -> Path:
    place = data_dir / "store" / "abc" / "abc-def"
    folder = place / "deduplication_logs"
    folder.mkdir(parents=True, exist_ok=True)
    for part in (*parts, "detached"):
        (place / part).mkdir(exist_ok=True)
    file = folder / f"deduplication_log_{number}.txt"
    file.write_text(log)
    return file


@pytest.mark.parametrize(
    "parts",
    [
        ["202611_1_3_1"],
        ["202611_1_1_0", "202611_3_3_0"],
        ["202611_1_5_2_9"],
        ["202611_3_3_1"],
    ],
)
def test_a_token_whose_part_is_there_or_was_merged_stays(tmp_path: Path, parts: list[str]) -> None:
    file = table(tmp_path, "".join(LINES), parts)
    assert forget_unfinished(tmp_path) == []
    assert file.read_text() == "".join(LINES)


@pytest.mark.parametrize("parts", [[], ["202611_1_2_1"], ["202610_1_9_1"], ["tmp_insert_202611_3"]])
def test_a_token_whose_part_was_never_stored_goes(tmp_path: Path, parts: list[str]) -> None:
    file = table(tmp_path, "".join(LINES), parts)
    assert forget_unfinished(tmp_path) == [f"abc-def: {LINES[-1].strip()}"]
    assert file.read_text() == "".join(LINES[:-1])


def test_a_line_torn_off_in_writing_goes(tmp_path: Path) -> None:
    file = table(tmp_path, "".join(LINES) + "1\t202611_4", ["202611_1_4_1"])
    assert len(forget_unfinished(tmp_path)) == 1
    assert file.read_text() == "".join(LINES)


def test_the_newest_line_may_be_in_the_log_before_the_newest(tmp_path: Path) -> None:
    older = table(tmp_path, "".join(LINES), ["202611_1_2_1"], number=9)
    table(tmp_path, "", [], number=10)
    assert len(forget_unfinished(tmp_path)) == 1
    assert older.read_text() == "".join(LINES[:-1])


def test_a_part_that_was_dropped_is_no_unfinished_insert(tmp_path: Path) -> None:
    dropped = "".join(LINES) + LINES[-1].replace("1\t", "2\t", 1)
    file = table(tmp_path, dropped, [])
    assert forget_unfinished(tmp_path) == []
    assert file.read_text() == dropped


def test_no_tables_no_work(tmp_path: Path) -> None:
    assert forget_unfinished(tmp_path / "absent") == []
