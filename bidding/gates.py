"""Hard filters, before price and never traded off.

Every offer turned away keeps its first reason. What the rules say of an offer depends on the
catalogue alone and is kept with it; what the market says (prices, quotas, circuits) is laid
over once per view. Neither is done per request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bidding.columns import Bools, Ints, OfferColumns
from bidding.decision import NoBid
from bidding.request import Compliance

MAX_GATED: Final = 4096
_CODES: dict[NoBid, int] = {reason: i + 1 for i, reason in enumerate(NoBid)}
_REASONS: tuple[NoBid, ...] = tuple(NoBid)

GateKey = tuple[Compliance, int, tuple[str, ...] | None, int, int]
"""Compliance, needs, candidates; prompt and answer tokens where a limit may be exceeded, else 0."""


@dataclass(frozen=True, slots=True)
class Gated:
    """Who may bid.

    Attributes
    ----------
    codes : why each offer may not bid: 0 where it may, else a code for `reason_of`; (n_offers,)
    rows : those that may, (n_eligible,); `row_list` the same as a list
    no_bids : offers turned away, counted per reason
    """

    codes: Ints
    rows: Ints
    row_list: list[int]
    no_bids: dict[str, int]


def gated(codes: Ints) -> Gated:
    """Who may bid under these codes."""
    rows = np.flatnonzero(codes == 0)
    return Gated(codes, rows, rows.tolist(), reason_counts(codes))


def by_rules(offers: OfferColumns, key: GateKey) -> Gated:
    """Who may bid by the rules alone; kept with the offers."""
    known = offers.gated.get(key)
    if known is None:
        known = gated(_rule_codes(offers, key))
        if len(offers.gated) >= MAX_GATED:
            offers.gated.clear()
        offers.gated[key] = known
    return known


def market_codes(*, priced: Bools, quota_blocked: Bools, circuit_open: Bools) -> Ints | None:
    """Why the market keeps offers from bidding, whatever is asked; None where it keeps none."""
    if priced.all() and not quota_blocked.any() and not circuit_open.any():
        return None
    codes = np.zeros(len(priced), dtype=np.int64)
    codes[circuit_open] = _CODES[NoBid.CIRCUIT_OPEN]
    codes[quota_blocked] = _CODES[NoBid.QUOTA]
    codes[~priced] = _CODES[NoBid.UNPRICED]
    return codes


def overlaid(ruled: Gated, market: Ints | None) -> Gated:
    """Who may bid by the rules and the market."""
    if market is None:
        return ruled
    return gated(np.where(ruled.codes == 0, market, ruled.codes))


def _rule_codes(offers: OfferColumns, key: GateKey) -> Ints:
    rules, needs, candidates, prompt_tokens, answer_tokens = key
    codes = np.zeros(len(offers), dtype=np.int64)

    def turn_away(mask: Bools, reason: NoBid) -> None:
        codes[mask & (codes == 0)] = _CODES[reason]

    turn_away(~offers.enabled, NoBid.DISABLED)
    if candidates is not None:
        turn_away(~offers.named(candidates), NoBid.NOT_A_CANDIDATE)
    if rules.allow:
        turn_away(~offers.named(rules.allow), NoBid.DENIED)
    if rules.deny:
        turn_away(offers.named(rules.deny), NoBid.DENIED)
    if rules.regions:
        allowed = np.isin(offers.jurisdiction.astype(str), np.array(rules.regions, dtype=str))
        turn_away(~allowed, NoBid.REGION)
    if rules.zdr:
        turn_away(offers.retains, NoBid.RETENTION)
    if rules.no_training:
        turn_away(offers.trains, NoBid.TRAINING)
    if rules.pii:
        turn_away(~offers.pii_allowed, NoBid.PII)
    if needs:
        turn_away((offers.capabilities & needs) != needs, NoBid.CAPABILITY)
    turn_away(prompt_tokens + float(answer_tokens) > offers.context_window, NoBid.CONTEXT_WINDOW)
    turn_away(answer_tokens > offers.max_output_tokens, NoBid.CONTEXT_WINDOW)
    return codes


def reason_counts(codes: Ints) -> dict[str, int]:
    """How many offers each reason turned away, in the gates' order."""
    counts = np.bincount(codes, minlength=len(_REASONS) + 1)[1:]
    return {r.value: int(n) for r, n in zip(_REASONS, counts, strict=True) if n}


def code_of(reason: NoBid) -> int:
    """The code that stands for `reason`."""
    return _CODES[reason]


def reason_of(code: int) -> NoBid:
    """The reason that `code` (1 or more) stands for."""
    return _REASONS[code - 1]
