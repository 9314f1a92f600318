"""docs/params.md is current, and what it leans on is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bidding.params import describe
from broker.params_page import MEASURED, REASONED, page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_current() -> None:
    written = (DOCS / "params.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m broker.params_page > docs/params.md"


def test_every_number_has_a_meaning_and_bounds() -> None:
    for doc in describe():
        assert doc.meaning, doc.path
        assert doc.ge is not None, doc.path
        assert doc.le is not None, doc.path


@pytest.mark.parametrize(("path", "name"), sorted(MEASURED.items()))
def test_what_is_called_measured_is_named_on_its_page(path: str, name: str) -> None:
    assert path in {doc.path for doc in describe()}
    text = (DOCS / "decisions" / name).read_text(encoding="utf-8")
    assert "easured" in text or "Picked on" in text


@pytest.mark.parametrize("name", sorted({*MEASURED.values(), *REASONED.values()}))
def test_the_pages_exist(name: str) -> None:
    assert (DOCS / "decisions" / name).is_file()
