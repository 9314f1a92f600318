"""How long to wait, in worked cases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bidding.waiting import Aim, Forecast, WaitRules, first_token_timeout_ms

CASES = json.loads((Path(__file__).parents[2] / "golden" / "fallback" / "waits.json").read_text())


def forecast(given: list[float] | None) -> Forecast | None:
    if given is None:
        return None
    median_ms, sd, tpot_ms = given
    return Forecast(math.log(median_ms), sd, math.log(tpot_ms))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["why"])
def test_wait(case: dict[str, Any]) -> None:
    wait = first_token_timeout_ms(
        forecast(case["own"]),
        forecast(case["other"]),
        Aim(**case["aim"]),
        WaitRules(),
        alone=case.get("alone", False),
    )
    assert wait == pytest.approx(case["wait_ms"], rel=1e-3)
