"""κ from a key's budget: a day is neither overspent nor hoarded, by one process or by two."""

from __future__ import annotations

import random

from broker.budget_pacing import BudgetPacing
from broker.shared_state import Cap

DAY_US = 86_400_000_000
N = 4_000
CHEAP, DEAR = 100_000.0, 900_000.0
WORTH = 1_600_000.0
"""What the dearer answer's better quality is worth, nusd: bought while a dollar is a dollar."""


def _bought(kappa: float, rng: random.Random) -> float:
    """What an auction buys: the dear offer while it is worth its money, on requests that differ."""
    gain = WORTH * rng.random()
    return DEAR if gain > (1.0 + kappa) * (DEAR - CHEAP) else CHEAP


def _day(workers: list[BudgetPacing], day: int, cap_nusd: int, rng: random.Random) -> float:
    cap = Cap(f"k|day 1970-01-{day + 1:02d}", cap_nusd)
    spent = 0.0
    for i in range(N):
        now_us = day * DAY_US + i * DAY_US // N
        worker = workers[i % len(workers)]
        cost = _bought(worker.money_price("k", (cap,)), rng)
        spent += cost
        worker.spent("k", (cap,), cost, now_us)
        if i % 10 == 0:
            for each in workers:
                each.told("k", {cap.period: round(spent)}, now_us)
    return spent


def test_a_day_is_spent_and_not_overspent() -> None:
    rng = random.Random(3)
    cap_nusd = round(N * 300_000)
    for n_workers in (1, 2):
        workers = [BudgetPacing() for _ in range(n_workers)]
        spent = [_day(workers, day, cap_nusd, rng) for day in range(4)]
        for day_nusd in spent[1:]:
            assert 0.95 * cap_nusd <= day_nusd <= 1.01 * cap_nusd


def test_money_that_is_not_short_has_no_price() -> None:
    rng = random.Random(4)
    pacing = BudgetPacing()
    cap_nusd = round(N * 2 * DEAR)
    _day([pacing], 0, cap_nusd, rng)
    assert pacing.money_price("k", (Cap("k|day 1970-01-01", cap_nusd),)) == 0.0


def test_a_process_that_starts_in_mid_period_paces_what_is_left() -> None:
    rng = random.Random(5)
    pacing = BudgetPacing()
    cap_nusd = round(N * 300_000)
    cap = Cap("k|day 1970-01-01", cap_nusd)
    before = cap_nusd / 2
    spent = before
    pacing.told("k", {cap.period: round(spent)}, DAY_US // 2)
    for i in range(N // 2):
        now_us = DAY_US // 2 + i * DAY_US // N
        cost = _bought(pacing.money_price("k", (cap,)), rng)
        spent += cost
        pacing.spent("k", (cap,), cost, now_us)
        pacing.told("k", {cap.period: round(spent)}, now_us)
    assert 0.93 * cap_nusd <= spent <= 1.02 * cap_nusd


def test_budgets_of_keys_and_kinds_are_apart() -> None:
    pacing = BudgetPacing()
    short, long = Cap("a|day 1970-01-01", 1_000), Cap("a|month 1970-01", 10**15)
    for i in range(500):
        pacing.spent("k", (short, long), 1e6, i * 1_000_000)
    assert pacing.money_price("k", (short,)) > 1.0
    assert pacing.money_price("k", (long,)) == 0.0
    assert pacing.money_price("k", (short, long)) == pacing.money_price("k", (short,))
    assert pacing.money_price("b", (Cap("b|day 1970-01-01", 1_000),)) == 0.0
