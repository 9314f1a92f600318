"""Class prices of a canary: apart from all others, faster by what it stands for, then forgotten."""

from __future__ import annotations

from bidding.pacing import ClassPricer
from bidding.params import PacingParams
from bidding.trial import TrialPacing

PLAIN = "t|math|q0.9"
ARM = f"{PLAIN}~v3"


def fold(pricer: ClassPricer, name: str, n: int, p_good: float) -> None:
    for _ in range(n):
        pricer.fold_decision(
            name,
            target_quality=0.9,
            target_on_time=None,
            p_good=p_good,
            p_on_time=None,
            on_time=None,
            free=True,
        )


def price(pricer: ClassPricer, name: str) -> float:
    found = pricer.price_of(name)
    assert found is not None
    return found.quality_price_nusd


def test_a_canarys_prices_begin_at_its_classs_and_move_apart() -> None:
    pricer = ClassPricer(PacingParams())
    fold(pricer, PLAIN, 200, 0.85)
    outside = price(pricer, PLAIN)
    fold(pricer, ARM, 10, 0.85)
    assert pricer.price_of(ARM) is None  # of a trial that nobody has told of
    lower = PacingParams(quality_margin=-0.095, label_scaling=0.0)
    pricer.steer(PacingParams(), {"v3": TrialPacing(lower, 10.0)})
    fold(pricer, ARM, 1, 0.905)
    assert 0.9 * outside < price(pricer, ARM) < outside
    assert price(pricer, PLAIN) == outside
    fold(pricer, ARM, 300, 0.905)
    assert price(pricer, ARM) < 0.7 * outside
    assert price(pricer, PLAIN) == outside
    pricer.steer(PacingParams(), {})
    assert [c.sla_class for c in pricer.prices()] == [PLAIN]
    assert price(pricer, PLAIN) == outside
