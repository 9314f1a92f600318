"""Hard filters, before price and never traded off.

Every offer turned away keeps its first reason. Gates run once per view and kind of request,
not per request: their result is part of the slate.
"""

from __future__ import annotations

import numpy as np

from bidding.columns import Bools, Ints, OfferColumns
from bidding.decision import NoBid
from bidding.request import BidRequest

_CODES: dict[NoBid, int] = {reason: i + 1 for i, reason in enumerate(NoBid)}
_REASONS: tuple[NoBid, ...] = tuple(NoBid)


def gate(
    offers: OfferColumns,
    request: BidRequest,
    *,
    priced: Bools,
    quota_blocked: Bools,
    circuit_open: Bools,
) -> Ints:
    """Why each offer may not bid: 0 where it may, else a code for `reason_counts`.

    Parameters
    ----------
    priced, quota_blocked, circuit_open : bool ndarray, (n_offers,)
        State of the market, from the view.

    Returns
    -------
    ndarray of int64, (n_offers,)
    """
    rules = request.sla.compliance
    codes = np.zeros(len(offers), dtype=np.int64)

    def turn_away(mask: Bools, reason: NoBid) -> None:
        codes[mask & (codes == 0)] = _CODES[reason]

    turn_away(~offers.enabled, NoBid.DISABLED)
    if request.candidates is not None:
        turn_away(~offers.named(request.candidates), NoBid.NOT_A_CANDIDATE)
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
    if request.needs:
        turn_away((offers.capabilities & request.needs) != request.needs, NoBid.CAPABILITY)
    wanted = float(request.max_output_tokens or 0)
    turn_away(request.input_tokens + wanted > offers.context_window, NoBid.CONTEXT_WINDOW)
    turn_away(wanted > offers.max_output_tokens, NoBid.CONTEXT_WINDOW)
    turn_away(~priced, NoBid.UNPRICED)
    turn_away(quota_blocked, NoBid.QUOTA)
    turn_away(circuit_open, NoBid.CIRCUIT_OPEN)
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
