"""From attempts to quotes: the estimators of offers, side by side, behind one door.

Owns which offer sits in which row, up to where each offer's log is folded in, and which quotes
have changed since they were last published. An attempt at or below an offer's own position was
folded in before and is passed over, so reading a stretch of the log again is harmless. What others
tell of offers goes to `hearsay`, which has its say when quotes are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from bidding.errors import BadState
from bidding.estimators.decay import Floats
from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.reliability import ReliabilityEstimator
from bidding.estimators.season_columns import is_sane_season, log_at
from bidding.estimators.seasons import HOURS, Season
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
        self._season_logs: Floats = np.zeros((0, HOURS))
        self.n_folded = 0
        self.n_told = 0
        self.n_repeated = 0

    @property
    def offers(self) -> list[str]:
        """Offers known, in row order."""
        return list(self._rows)

    def steer(self, params: Params) -> None:
        """Go on under other params; every quote may look different by them."""
        self.latency.steer(params.latency)
        self.reliability.steer(params.reliability)
        self.hearsay.params = params.trust
        self._changed.update(range(len(self._positions)))

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
                self.hearsay.told(self._even(outcome, row))
                self.n_told += 1
                continue
            if self.hearsay.heard(outcome.offer):
                self.hearsay.seen(self._even(outcome, row))
            rows.append(row)
            fresh.append(outcome)
        if not fresh:
            return
        batch = self._evened(OutcomeBatch.of(fresh, rows))
        for estimator in self._estimators:
            estimator.fold(batch)
        # What one offer's attempts say of an incident, they say of the others it names.
        self._changed.update(self.reliability.reports.kin(batch.row).tolist())
        self.n_folded += len(fresh)

    def set_season(self, offer: str, latency: Season) -> None:
        """From now on take an offer's hour of the week out of what is measured of it."""
        if not is_sane_season(latency):
            return
        row = self._row(offer)
        if row >= len(self._season_logs):
            grown = np.zeros((row + 1, HOURS))
            grown[: len(self._season_logs)] = self._season_logs
            self._season_logs = grown
        self._season_logs[row] = np.log(np.asarray(latency.multiplier, dtype=np.float64))

    def _evened(self, batch: OutcomeBatch) -> OutcomeBatch:
        """The batch as it would have been in even hours: times to first token, and what holds
        them, without their season.
        """
        seasoned = batch.row < len(self._season_logs)
        if not seasoned.any():
            return batch
        log = np.zeros(len(batch))
        log[seasoned] = log_at(self._season_logs, batch.row[seasoned], batch.at_s[seasoned])
        keep = np.exp(-log)
        has_first = np.isfinite(batch.ttft_ms)
        shift = np.where(has_first, batch.ttft_ms * (1.0 - keep), 0.0)
        waited = np.where(has_first, batch.waited_ms - shift, batch.waited_ms * keep)
        return batch.timed(batch.ttft_ms * keep, batch.total_ms - shift, waited)

    def _even(self, outcome: Outcome, row: int) -> Outcome:
        """The same of one call."""
        if row >= len(self._season_logs) or outcome.ttft_ms is None:
            return outcome
        at_s = np.array([outcome.at_us * 1e-6])
        keep = math.exp(-log_at(self._season_logs, np.array([row]), at_s).item())
        shift = outcome.ttft_ms * (1.0 - keep)
        total_ms = None if outcome.total_ms is None else outcome.total_ms - shift
        return msgspec.structs.replace(outcome, ttft_ms=outcome.ttft_ms * keep, total_ms=total_ms)

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
