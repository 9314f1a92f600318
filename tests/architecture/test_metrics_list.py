"""The list of metrics in docs is the code's."""

from __future__ import annotations

from pathlib import Path

from broker.metrics import document, listed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_list_of_metrics_is_current() -> None:
    assert PAGE.read_text() == document(), "run: python -m broker.metrics > docs/metrics.md"


def test_every_metric_has_a_word_on_it() -> None:
    assert all(meaning.endswith(".") and len(meaning) > 10 for *_, meaning in listed())
