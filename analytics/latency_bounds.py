"""What is wanted of latency promises, and whether the figures of a replay have it.

Attainment, calibration and the winner's curse are judged where they are hardest: a day promised
at its midnight from the days before. Sharpness is judged where a quote is as fresh as quotes
are (`thefastest`: before every round; `llmperf`: before every call).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

POOLED: Final = {"0.5": 0.015, "0.9": 0.01, "0.95": 0.01, "0.99": 0.005}
"""How far the share kept may lie from each level promised."""
PER_OFFER: Final = {"0.5": 0.08, "0.9": 0.05, "0.95": 0.04, "0.99": 0.015}
"""The same of an offer, on average."""
ECE: Final = 0.04
CURSE: Final = 0.03
"""How far the promise of an offer chosen for barely clearing a bar may lie from what it keeps;
over all bars together, since a bar alone has some ninety choices and an error of five points.
"""
PINBALL: Final = {"thefastest": 0.092, "llmperf": 0.060}
_SCORED: Final = "thefastest_next_day"


def verdict(found: Mapping[str, Any]) -> dict[str, object]:
    """`wanted`: every bound with what was seen; `holds`: whether all are kept."""
    day = found[_SCORED]
    lines = [
        _line(f"attained {q}", abs(day["attained"][q]["mean"] - float(q)), bound)
        for q, bound in POOLED.items()
    ]
    lines += [
        _line(f"per offer {q}", day["per_offer_gap"][q], bound) for q, bound in PER_OFFER.items()
    ]
    lines.append(_line("ECE at deadlines", day["ece"], ECE))
    chosen = day["winners_curse"]["all"]
    if chosen["n"]:
        lines.append(_line("winner's curse", abs(chosen["kept"] - chosen["promised"]), CURSE))
    wanted = [line | {"of": _SCORED} for line in lines]
    wanted += [
        _line("pinball", found[name]["pinball_log_s"]["mean"], bound) | {"of": name}
        for name, bound in PINBALL.items()
    ]
    return {"wanted": wanted, "holds": all(line["holds"] for line in wanted)}


def _line(what: str, off: float, bound: float) -> dict[str, object]:
    return {"what": what, "off": float(off), "bound": bound, "holds": bool(off <= bound)}
