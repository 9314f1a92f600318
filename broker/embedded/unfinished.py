"""Tokens the engine remembers for parts it never stored: forgotten before it starts.

A table that deduplicates inserts logs a part's token and then gives the part its name, both under
the table's lock. Killed between the two, the engine comes back with a token whose rows are
nowhere, and drops the insert when it is sent again (chDB 26.9: 3 of 150 kills amid small inserts).
Only the newest token of a table can be in that state, because of the lock; so what is done here is
to take that one line off the log when no part on disk holds its block. A token whose part went
later (dropped, expired) is followed by a line that says so, or is older than the newest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_LOGS: Final = "store/*/*/deduplication_logs"
_NUMBER: Final = re.compile(r"deduplication_log_(\d+)\.txt")
#: ``<partition>_<first block>_<last block>_<level>``, and a mutation's number where there was one.
_PART: Final = re.compile(r"(?P<partition>.+?)_(?P<first>\d+)_(?P<last>\d+)_\d+(?:_\d+)?")
_ADDED: Final = b"1"


def forget_unfinished(data_dir: Path) -> list[str]:
    """Cut the newest line off each deduplication log under `data_dir` if its part is not there.

    To be called while no engine has `data_dir` open.

    Returns
    -------
    What was cut, one text per table, for the log
    """
    cut = (_forget_newest(folder) for folder in sorted(data_dir.glob(_LOGS)))
    return [text for text in cut if text]


def _forget_newest(folder: Path) -> str:
    files = {int(m[1]): file for file in folder.iterdir() if (m := _NUMBER.fullmatch(file.name))}
    for number in sorted(files, reverse=True):
        file = files[number]
        lines = file.read_bytes().splitlines(keepends=True)
        if not lines:
            continue
        newest = lines[-1]
        if newest.endswith(b"\n") and not _is_missing(newest, folder.parent):
            return ""
        _write_whole(file, b"".join(lines[:-1]))
        return f"{folder.parent.name}: {newest.decode(errors='replace').strip()}"
    return ""


def _is_missing(line: bytes, table: Path) -> bool:
    kind, name = (*line.rstrip(b"\n").split(b"\t"), b"")[:2]
    part = _PART.fullmatch(name.decode(errors="replace"))
    if kind != _ADDED or part is None:
        return False
    block = int(part["first"])
    return not any(
        held["partition"] == part["partition"] and int(held["first"]) <= block <= int(held["last"])
        for folder in table.iterdir()
        if (held := _PART.fullmatch(folder.name))
    )


def _write_whole(file: Path, data: bytes) -> None:
    written = file.with_suffix(".rewritten")
    written.write_bytes(data)
    written.replace(file)
