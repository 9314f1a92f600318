"""What is left of our quotas at sellers, as this gateway knows it: prices and gates by offer."""

from __future__ import annotations

import numpy as np

from bidding.columns import Bools, Floats, OfferColumns
from bidding.quota import Told, Window
from bidding.units import NUSD_PER_USD
from broker.providers.limits import QuotaLeft


class Quotas:
    """Windows of every offer that tells of any, over the rows of `OfferColumns`."""

    def __init__(self, offers: OfferColumns) -> None:
        self._offers = offers
        self._requests: dict[int, Window] = {}
        self._tokens: dict[int, Window] = {}
        self._tokens_each: dict[int, float] = {}
        self._spent: set[int] = set()

    def told(self, offer: str, left: QuotaLeft, sent_at_s: float, now_s: float) -> bool:
        """The headers of the answer to a call sent then; whether what may be asked has changed."""
        row = self._offers.row_of[offer]
        if left.requests_left is not None:
            told = Told(
                limit=left.requests_limit, left=left.requests_left, reset_s=left.requests_reset_s
            )
            self._requests.setdefault(row, Window()).told(told, sent_at_s, now_s)
        if left.tokens_left is not None:
            told = Told(limit=left.tokens_limit, left=left.tokens_left, reset_s=left.tokens_reset_s)
            self._tokens.setdefault(row, Window()).told(told, sent_at_s, now_s)
        return self._changed(row, now_s)

    def sent(self, offer: str, n_tokens: float, now_s: float) -> bool:
        """A call of about so many tokens goes out; whether what may be asked has changed."""
        row = self._offers.row_of[offer]
        if row in self._requests:
            self._requests[row].used(1.0, now_s)
        if row in self._tokens:
            self._tokens[row].used(n_tokens, now_s)
            each = self._tokens_each.get(row, n_tokens)
            self._tokens_each[row] = each + 0.1 * (n_tokens - each)
        elif row not in self._requests:
            return False
        return self._changed(row, now_s)

    def blocked(self, now_s: float) -> Bools:
        """Offers whose quota is used up until it starts anew, shape (n_offers,)."""
        mask = np.zeros(len(self._offers), dtype=np.bool_)
        for windows in (self._requests, self._tokens):
            for row, window in windows.items():
                if window.is_spent(now_s):
                    mask[row] = True
        return mask

    def prices_nusd(self, price_usd: float, now_s: float) -> tuple[Floats, Floats]:
        """What a request, and a token, costs extra at each offer, shape (n_offers,) each.

        Parameters
        ----------
        price_usd : what a request costs extra where nothing of the use to come can be served
        """
        request = np.zeros(len(self._offers))
        token = np.zeros(len(self._offers))
        for row, window in self._requests.items():
            request[row] = price_usd * NUSD_PER_USD * window.scarcity(now_s)
        for row, window in self._tokens.items():
            each = max(self._tokens_each.get(row, 0.0), 1.0)
            token[row] = price_usd * NUSD_PER_USD * window.scarcity(now_s) / each
        return request, token

    @property
    def any(self) -> bool:
        """Whether any seller has told of a quota."""
        return bool(self._requests or self._tokens)

    def _changed(self, row: int, now_s: float) -> bool:
        """Whether an offer has become spent, or has been seen to be so no longer."""
        spent = any(
            row in windows and windows[row].is_spent(now_s)
            for windows in (self._requests, self._tokens)
        )
        if spent == (row in self._spent):
            return False
        self._spent.symmetric_difference_update((row,))
        return True
