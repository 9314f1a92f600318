"""`broker replay --mode latency`: absent data are named, not stumbled over."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.replay.cli import main


def test_absent_samples_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--mode", "latency", "--json"]) == 2
    assert "thefastest/samples.csv.gz" in capsys.readouterr().err
