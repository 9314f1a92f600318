"""Reads the plain files under a data folder: CSV and JSON Lines, gzipped or not.

Values become columns here: numbers are float64 with NaN for a blank, times are seconds since
the epoch. A column that is absent is an error that names the file, a file that is absent is
for the caller to judge.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.replay.errors import DatasetMalformed

Floats = NDArray[np.float64]


def find_file(folder: Path, name: str) -> Path | None:
    """`folder/name` or its gzipped twin, whichever exists."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def open_text(path: Path) -> TextIO:
    """The file as UTF-8 text, decompressed when its name ends in `.gz`."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


class Table:
    """A CSV file as named columns of text, converted on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_text(path) as lines:
            reader = csv.reader(lines)
            self.header = next(reader, [])
            rows = [row for row in reader if len(row) == len(self.header)]
        self._columns = dict(zip(self.header, zip(*rows, strict=True), strict=True)) if rows else {}
        self.n_rows = len(rows)

    def text(self, name: str) -> list[str]:
        """The column `name` as text. Raises `DatasetMalformed` when there is none."""
        if name not in self.header:
            raise DatasetMalformed(f"{self.path}: no column {name!r} among {self.header}")
        return list(self._columns.get(name, ()))

    def numbers(self, name: str) -> Floats:
        """The column `name` as float64, NaN where blank."""
        try:
            return np.array([float(v) if v else np.nan for v in self.text(name)], dtype=np.float64)
        except ValueError as error:
            raise DatasetMalformed(f"{self.path}: column {name!r}: {error}") from error

    def times(self, name: str) -> Floats:
        """The column `name` of ISO 8601 times as seconds since the epoch, UTC."""
        return np.array([epoch_s(v) for v in self.text(name)], dtype=np.float64)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The file's objects, one a line, in order."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise DatasetMalformed(f"{path}: line {number}: {error}") from error


def epoch_s(time_utc: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; NaN for a blank.

    Examples
    --------
    >>> epoch_s("2024-04-15T08:04:59Z")
    1713168299.0
    """
    if not time_utc:
        return float("nan")
    return datetime.fromisoformat(time_utc).timestamp()
