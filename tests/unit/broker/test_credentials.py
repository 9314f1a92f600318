"""Keys out of files: fresh ones taken, unreadable ones survived."""

from __future__ import annotations

import os
from pathlib import Path

from broker.credentials import LOOK_EVERY_NS, Credentials


def test_a_fresh_key_is_taken_within_a_second_and_the_last_one_kept(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("ya29.first\n")
    now = [0]
    keys = Credentials({"google": f"file:{file}", "openai": "sk-1"}, lambda: now[0])
    assert (keys.key("google"), keys.key("openai"), keys.key("aws")) == ("ya29.first", "sk-1", None)
    assert keys.changes("google")
    assert not keys.changes("openai")
    file.write_text("ya29.second\n")
    os.utime(file, ns=(1, 1))
    assert keys.key("google") == "ya29.first"
    now[0] = LOOK_EVERY_NS
    assert keys.key("google") == "ya29.second"
    file.unlink()
    now[0] *= 3
    assert keys.key("google") == "ya29.second"
