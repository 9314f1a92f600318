"""Worked auctions as data: what the market was, what was asked, and the decision it must give.

`tests/golden/auctions/market.json` is the market all cases start from; a case says what is
different (`then`: what the book hears next, in order; `overlay`: the gateway's own columns by
offer), what is asked, which params are changed, the seed, and the decision. Numbers are compared
to 12 significant digits, since processors differ in the last bit of an exponential; all else
exactly.

After a change that is meant to change decisions:

    python -m tests.fakes.golden_auctions            # writes every case's decision anew
    git diff tests/golden/auctions                   # and read what has become of each
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bidding.asks import Ask
from bidding.auction import decide
from bidding.book import MarketBook
from bidding.kernel import Kernel
from bidding.market import Capability, Catalogue, PriceList
from bidding.params import Params
from bidding.params_change import with_changes
from bidding.quote import Quote
from bidding.request import BidRequest
from bidding.skill import Skill
from bidding.view import MarketView, ShadowPrices

FOLDER: Final = Path(__file__).parents[1] / "golden" / "auctions"
MARKET: Final = FOLDER / "market.json"

Case = dict[str, Any]


def cases() -> dict[str, Case]:
    """Every case by its name."""
    files = sorted(FOLDER.glob("*.json"))
    return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in files if f != MARKET}


def view_of(case: Case, kernel: Kernel | None = None) -> MarketView:
    """The market of a case."""
    base = json.loads(MARKET.read_text(encoding="utf-8"))
    book = MarketBook(msgspec.convert(base["catalogue"], Catalogue))
    book.kernel = kernel
    for heard in [*base["heard"], *case.get("then", ())]:
        _hear(book, heard)
    columns: dict[str, Any] = {}
    overlay = case.get("overlay", {})
    for name in ("circuit_open", "quota_blocked", "ask_spent"):
        if name in overlay:
            columns[name] = _column(book, dict.fromkeys(overlay[name], 1.0)) > 0.0
    if "n_inflight" in overlay:
        columns["n_inflight"] = _column(book, overlay["n_inflight"])
    if "shadow" in overlay:
        per = overlay["shadow"]
        columns["shadow"] = ShadowPrices(
            _column(book, per["request_nusd"]), _column(book, per["token_nusd"])
        )
    return book.view(case.get("at_us", base["at_us"]), **columns)


def decided(case: Case, kernel: Kernel | None = None) -> Any:
    """The decision of a case, as plain data with numbers to 12 digits."""
    asked = dict(case["request"])
    asked["needs"] = int(Capability.from_names(asked.get("needs", ())))
    request = msgspec.convert(asked, BidRequest)
    params = Params(version=1)
    if case.get("params"):
        params = with_changes(params, case["params"], version=2)
    decision = decide(view_of(case, kernel), request, params, case["seed"])
    return _plain(msgspec.to_builtins(decision))


def remake() -> int:
    """Write every case's decision anew; how many differ from what they were."""
    n_changed = 0
    for name, case in cases().items():
        known, case["decision"] = case.get("decision"), decided(case)
        n_changed += known != case["decision"]
        text = json.dumps(case, indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
    return n_changed


def _hear(book: MarketBook, heard: dict[str, Any]) -> None:
    ((kind, fact),) = heard.items()
    if kind == "quote":
        taken = book.apply_quote(msgspec.convert(fact, Quote))
    elif kind == "skill":
        taken = book.apply_skill(msgspec.convert(fact, Skill))
    elif kind == "prices":
        taken = book.apply_prices(fact["offer"], msgspec.convert(fact["prices"], PriceList))
    elif kind == "ask":
        taken = book.apply_ask(fact["offer"], msgspec.convert(fact["ask"], Ask))
    else:
        raise ValueError(f"a book does not hear of {kind!r}")
    if not taken:
        raise ValueError(f"the book did not take {heard}")


def _column(book: MarketBook, by_offer: dict[str, float]) -> np.ndarray[Any, Any]:
    column = np.zeros(len(book.offers))
    for offer, value in by_offer.items():
        column[book.offers.row_of[offer]] = value
    return column


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


if __name__ == "__main__":
    sys.stdout.write(f"{remake()} decisions have changed\n")
