"""docs/replay.md is what its findings say, and the findings are of this code and these data."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from analytics.replay.document import CANARY, SECTIONS, canary, standard
from analytics.replay.rendering import page

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def test_the_page_is_drawn_from_its_findings() -> None:
    found = msgspec.json.decode((ROOT / "docs" / "replay.json").read_bytes())
    assert set(SECTIONS) <= set(found)
    assert (ROOT / "docs" / "replay.md").read_text() == page(found)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data folder ../shared/data")
def test_the_findings_are_of_this_code() -> None:
    """A short replay again: if this fails, `make replay` and look at what moved."""
    found = msgspec.json.decode((ROOT / "docs" / "replay.json").read_bytes())
    now = canary(DATA)
    assert CANARY["seeds"] == 1
    assert now["quality"] == pytest.approx(found["canary"]["quality"], abs=0.03)
    assert now["usd_per_1k"] == pytest.approx(found["canary"]["usd_per_1k"], rel=0.3)


def test_figures_of_sets_that_may_not_be_published_are_refused() -> None:
    with pytest.raises(ValueError, match="may not be published"):
        standard(data=DATA, sets=("alpaca_eval_v1",))
