"""From attempts to quotes: the estimators of offers, side by side, behind one door.

Owns which offer sits in which row, up to where each offer's log is folded in, and which quotes
have changed since they were last published. An attempt at or below an offer's own position was
folded in before and is passed over, so reading a stretch of the log again is harmless. What others
tell of offers goes to `hearsay`, which has its say when quotes are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from bidding.errors import BadState
from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.reliability import ReliabilityEstimator
from bidding.hearsay import Hearsay
from bidding.outcome import Outcome, OutcomeBatch
from bidding.params import Params
from bidding.quote import Calibration, OfferEstimator, Position, Quote

OUTLIER_US: Final = 500_000
"""How long an offer stays out for failing more than its rivals, before it is looked at again."""


class Quoter:
    """Folds attempts into quotes. Pure: time is an argument."""

    def __init__(self, params: Params | None = None) -> None:
        made = params or Params()
        self.latency = LatencyEstimator(made.latency)
        self.reliability = ReliabilityEstimator(made.reliability)
        self.hearsay = Hearsay(made.trust)
        self._estimators: tuple[OfferEstimator, ...] = (self.latency, self.reliability)
        self._rows: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._models: dict[str, int] = {}
        self._positions: list[dict[tuple[str, int], Position]] = []
        self._changed: set[int] = set()
        self.n_folded = 0
        self.n_told = 0
        self.n_repeated = 0

    @property
    def offers(self) -> list[str]:
        """Offers known, in row order."""
        return list(self._rows)

    def fold(self, outcomes: Sequence[Outcome], positions: Sequence[Position]) -> None:
        """Take in attempts with their places on the log, in log order."""
        rows: list[int] = []
        fresh: list[Outcome] = []
        for outcome, position in zip(outcomes, positions, strict=True):
            row = self._row(outcome.offer)
            at = (position.topic, position.partition)
            known = self._positions[row].get(at)
            if known is not None and known.log == position.log and position.offset <= known.offset:
                self.n_repeated += 1
                continue
            self._positions[row][at] = position
            self._changed.add(row)
            if outcome.pusher:
                self.hearsay.told(outcome)
                self.n_told += 1
                continue
            if self.hearsay.heard(outcome.offer):
                self.hearsay.seen(outcome)
            rows.append(row)
            fresh.append(outcome)
        if not fresh:
            return
        batch = OutcomeBatch.of(fresh, rows)
        for estimator in self._estimators:
            estimator.fold(batch)
        self.n_folded += len(fresh)

    def restore(self, quote: Quote) -> None:
        """Resume from a published quote; a state that cannot be read starts afresh."""
        row = self._row(quote.offer)
        self._positions[row] = {(p.topic, p.partition): p for p in quote.positions}
        self.hearsay.restore(quote)
        for estimator in self._estimators:
            state = quote.state.get(estimator.name)
            if state is None:
                continue
            try:
                estimator.restore(row, state)
            except BadState:
                continue

    def report(self, offer: str, severity: str, chance: float, report_id: float) -> None:
        """Hear a status page's incident on an offer ("none": that there is none any more).

        See `ReliabilityEstimator.report`. An offer never heard of is none to look at for a
        report that is over.
        """
        if severity == "none" and offer not in self._rows:
            return
        row = self._row(offer)
        if self.reliability.report(row, severity, chance, report_id):
            self._changed.add(row)

    @property
    def has_news(self) -> bool:
        """Whether a quote has changed since quotes were last made."""
        return bool(self._changed)

    def position(self, offer: str) -> list[Position]:
        """Up to where the offer's log is folded in."""
        row = self._rows.get(offer)
        return [] if row is None else list(self._positions[row].values())

    def quotes(self, now_us: int, *, everything: bool = False) -> list[Quote]:
        """Quotes that changed since the last call (or all), as believed at `now_us`."""
        names = self.offers
        rows = range(len(names)) if everything else sorted(self._changed)
        self._changed.clear()
        if not names:
            return []
        latency = self.latency.quotes(now_us * 1e-6)
        reliability = self.reliability.quotes(now_us * 1e-6)
        ejected = reliability.ejected.tolist()
        retry_at_us = np.rint(reliability.retry_at_s * 1e6).astype(np.int64).tolist()
        made = (
            Quote(
                offer=names[row],
                at_us=now_us,
                ttft_log_ms=latency.ttft_log_ms.item(row),
                ttft_log_sd=latency.ttft_log_sd.item(row),
                ttft_n=latency.ttft_n.item(row),
                ttft_per_log_input=latency.ttft_per_log_input.item(row),
                ttft_per_log_inflight=latency.ttft_per_log_inflight.item(row),
                tpot_log_ms=latency.tpot_log_ms.item(row),
                tpot_log_sd=latency.tpot_log_sd.item(row),
                tpot_n=latency.tpot_n.item(row),
                tpot_per_log_output=latency.tpot_per_log_output.item(row),
                tpot_per_log_inflight=latency.tpot_per_log_inflight.item(row),
                fail_share=reliability.fail_share.item(row),
                fail_n=reliability.fail_n.item(row),
                capacity_share=reliability.capacity_share.item(row),
                health="open" if ejected[row] else "closed",
                retry_at_us=max(retry_at_us[row], now_us + OUTLIER_US) if ejected[row] else 0,
                positions=list(self._positions[row].values()),
                state={e.name: e.state(row) for e in self._estimators},
            )
            for row in rows
        )
        return [self.hearsay.moved(quote, now_us) for quote in made]

    def calibration(self, now_us: int) -> Calibration | None:
        """How well promises hold over the offers known; None before the first."""
        if not self._rows:
            return None
        latency = self.latency.quotes(now_us * 1e-6)
        return Calibration(
            at_us=now_us,
            z_grid=np.asarray(latency.z_grid).tolist(),
            ttft_cdf=np.asarray(latency.ttft_cdf).tolist(),
            total_cdf=np.asarray(latency.total_cdf).tolist(),
        )

    def _row(self, offer: str) -> int:
        row = self._rows.get(offer)
        if row is None:
            row = self._rows[offer] = len(self._rows)
            self._positions.append({})
            for estimator in self._estimators:
                estimator.grow(row + 1)
            base = offer.partition("@")[0]
            self.latency.set_group(row, self._groups.setdefault(base, len(self._groups)))
            model = base.partition("/")[2]
            self.reliability.set_market(row, self._models.setdefault(model, len(self._models)))
        return row
