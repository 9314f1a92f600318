"""Days of a budget: spent, not overspent, and worth about what the best constant price buys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analytics.replay.budget_mode import LEAST_SPEND, MOST_SPEND, Choices, line, one_day
from analytics.replay.cli import main
from bidding.budget import DEFAULTS


def test_absent_data_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--mode", "budget", "--json"]) == 2
    assert "quality set" in capsys.readouterr().err


def test_made_days_are_spent_to_the_budget() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    prices = np.geomspace(1.0, 1e4, 60)
    hardness = rng.uniform(0.5, 2.0, (1, 300))
    cost = 100.0 * prices[:, None] ** 0.5 * hardness
    quality = (rng.uniform(size=(1, 300)) < 0.5 + 0.4 * np.linspace(0, 1, 60)[:, None]) * 1.0
    shape = np.sort(rng.beta(2.0, 2.0, 3000))
    days = [one_day(shape, 300, rng) for _ in range(8)]
    found = line("made", 0.5, days, Choices(prices, cost, quality), DEFAULTS)
    assert found.n_days == 3
    assert found.spend_share_least >= LEAST_SPEND
    assert found.spend_share_most <= MOST_SPEND
    assert found.quality_share.mean >= 0.97
