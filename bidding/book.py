"""All offers and what is believed of them, and the views made of it.

The book is mutable and has one owner: quotes, skills, prices and circuits are written into it
as they arrive, and `view()` copies it into an immutable, numbered picture. A quote or a skill
older than what the book holds is ignored, so replays and re-reads of the log are harmless.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from bidding.columns import Bools, Floats, OfferColumns, offer_columns, price_columns
from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.latency_pool import LatencyColumns
from bidding.estimators.quality import QualityEstimator
from bidding.estimators.quality_skill import TaskSkill, skill_arrays
from bidding.facts import facts_of
from bidding.market import Catalogue, PriceList
from bidding.pacing import ClassPrices
from bidding.quote import Calibration, Quote
from bidding.skill import Skill
from bidding.view import MarketView, QuoteColumns, TaskColumns

PRIOR_FAIL_SHARE = 0.02
PRIOR_OUT_TOKENS = 150.0
PRIOR_OUT_LOG_SD = 0.8
_LATENCY_FIELDS = tuple(
    f for f in LatencyColumns._fields if f not in ("z_grid", "ttft_cdf", "total_cdf")
)


class MarketBook:
    """Offers, prices, quotes, skills and class prices, as last heard."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue.checked()
        self.offers: OfferColumns = offer_columns(catalogue)
        by_id = {o.id: o for o in catalogue.offers}
        self._prices = [by_id[i].prices for i in self.offers.offer_ids]
        self._price_columns = price_columns(self._prices)
        n = len(self.offers)
        self._priced = np.ones(n, dtype=bool)
        unseen = LatencyEstimator()
        unseen.grow(n)
        self._latency = unseen.quotes(0.0)
        self._quotes: dict[str, Floats] = {
            name: np.array(getattr(self._latency, name)) for name in _LATENCY_FIELDS
        }
        self._quotes["fail_share"] = np.full(n, PRIOR_FAIL_SHARE)
        self._quotes["capacity_share"] = np.zeros(n)
        self._calibrated_at_us = 0
        self._quoted_at_us = np.zeros(n, dtype=np.int64)
        self._open_until_us = np.zeros(n, dtype=np.int64)
        self._tasks: dict[str, TaskColumns] = {}
        self._skills: dict[str, Skill] = {}
        self._model_of_row = [self.offers.model_ids[m] for m in self.offers.model.tolist()]
        self._prior = QualityEstimator(facts_of(catalogue)).skill("")
        self._generic = self._generic_columns()
        self._number = 0

    @property
    def number(self) -> int:
        """Number of the newest view made."""
        return self._number

    def apply_quote(self, quote: Quote) -> bool:
        """Take in a quote; False when its offer is unknown or the quote is not newer."""
        row = self.offers.row_of.get(quote.offer)
        if row is None or quote.at_us <= self._quoted_at_us[row]:
            return False
        columns = self._quotes
        for name in columns:
            value = getattr(quote, name)
            if not math.isfinite(value):
                return False
        for name, column in columns.items():
            column[row] = getattr(quote, name)
        self._open_until_us[row] = quote.retry_at_us if quote.health == "open" else 0
        self._quoted_at_us[row] = quote.at_us
        return True

    def apply_calibration(self, calibration: Calibration) -> bool:
        """Take in how well latency promises hold; False when it is not newer or not a table."""
        tables = (calibration.z_grid, calibration.ttft_cdf, calibration.total_cdf)
        z_grid, ttft_cdf, total_cdf = (_frozen(np.array(t, dtype=np.float64)) for t in tables)
        if calibration.at_us <= self._calibrated_at_us or len({len(t) for t in tables}) != 1:
            return False
        if not np.isfinite([z_grid, ttft_cdf, total_cdf]).all() or len(z_grid) < 2:
            return False
        self._latency = self._latency._replace(
            z_grid=z_grid, ttft_cdf=ttft_cdf, total_cdf=total_cdf
        )
        self._calibrated_at_us = calibration.at_us
        return True

    def apply_skill(self, skill: Skill) -> bool:
        """Take in a task's skill; False when it is not newer than what is known."""
        known = self._skills.get(skill.task)
        if known is not None and skill.at_us <= known.at_us:
            return False
        self._skills[skill.task] = skill
        self._tasks[skill.task] = self._task_columns(skill)
        return True

    def apply_prices(self, offer_id: str, prices: PriceList) -> bool:
        """Put new list prices in force; False when the offer is unknown."""
        row = self.offers.row_of.get(offer_id)
        if row is None:
            return False
        self._prices[row] = prices
        self._price_columns = price_columns(self._prices)
        return True

    def prices(self, row: int) -> PriceList:
        """Prices in force for the offer at `row`."""
        return self._prices[row]

    def skill(self, task: str) -> Skill | None:
        """The newest skill of a task, if any was heard."""
        return self._skills.get(task)

    def tasks(self) -> list[str]:
        """Tasks something is known of."""
        return sorted(self._tasks)

    def quote_age_us(self, now_us: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Age of each offer's quote in µs; the whole epoch for an offer never quoted."""
        return now_us - self._quoted_at_us

    def view(
        self,
        at_us: int,
        *,
        circuit_open: Bools | None = None,
        quota_blocked: Bools | None = None,
        n_inflight: Floats | None = None,
    ) -> MarketView:
        """A new immutable view.

        Parameters
        ----------
        circuit_open, quota_blocked : bool ndarray, (n_offers,), optional
            The gateway's own overlay: what it has seen itself and the log has not told it yet.
        n_inflight : ndarray, (n_offers,), optional
            Its own open calls.
        """
        n = len(self.offers)
        self._number += 1
        now = {name: _frozen(column.copy()) for name, column in self._quotes.items()}
        quotes = QuoteColumns(
            latency=self._latency._replace(**{name: now[name] for name in _LATENCY_FIELDS}),
            fail_share=now["fail_share"],
            capacity_share=now["capacity_share"],
        )
        open_now = self._open_until_us > at_us
        if circuit_open is not None:
            open_now |= circuit_open
        classes: dict[str, ClassPrices] = {}
        classes_of_task: dict[str, tuple[ClassPrices, ...]] = {}
        for task, skill in self._skills.items():
            classes_of_task[task] = tuple(skill.classes)
            for prices in skill.classes:
                classes[prices.sla_class] = prices
        return MarketView(
            number=self._number,
            at_us=at_us,
            offers=self.offers,
            prices=self._price_columns,
            priced=self._priced,
            quotes=quotes,
            circuit_open=open_now,
            quota_blocked=np.zeros(n, bool) if quota_blocked is None else quota_blocked.copy(),
            n_inflight=np.zeros(n) if n_inflight is None else n_inflight.copy(),
            tasks=dict(self._tasks),
            generic=self._generic,
            classes=classes,
            classes_of_task=classes_of_task,
        )

    def _task_columns(self, skill: Skill) -> TaskColumns:
        """A skill spread over offers; what it does not know of a model stays generic."""
        at = {model: i for i, model in enumerate(skill.models)}
        log_tokens = self._generic.out_log_tokens.copy()
        log_sd = self._generic.out_log_sd.copy()
        for row, model in enumerate(self._model_of_row):
            place = at.get(model)
            if place is not None and math.isfinite(
                skill.out_log_tokens[place] + skill.out_log_sd[place]
            ):
                log_tokens[row] = skill.out_log_tokens[place]
                log_sd[row] = skill.out_log_sd[place]
        return TaskColumns(
            quality=skill_arrays(self._completed(skill.quality), self._model_of_row),
            out_log_tokens=_frozen(log_tokens),
            out_log_sd=_frozen(log_sd),
        )

    def _completed(self, quality: TaskSkill) -> TaskSkill:
        """The skill with every model it lacks as it is believed before any answer."""
        known = set(quality.models)
        prior = self._prior
        missing = [i for i, model in enumerate(prior.models) if model not in known]
        if not missing:
            return quality
        neutral = [1.0] + [0.0] * (len(quality.basis) - 1) if quality.basis else []
        return msgspec.structs.replace(
            quality,
            models=[*quality.models, *(prior.models[i] for i in missing)],
            theta=[*quality.theta, *(prior.theta[i] for i in missing)],
            theta_sd=[*quality.theta_sd, *(prior.theta_sd[i] for i in missing)],
            n_labels=[*quality.n_labels, *([0.0] * len(missing))],
            loadings=[*quality.loadings, *([neutral] * len(missing))] if neutral else [],
        )

    def _generic_columns(self) -> TaskColumns:
        n = len(self.offers)
        return TaskColumns(
            quality=skill_arrays(self._prior, self._model_of_row),
            out_log_tokens=_frozen(np.full(n, math.log(PRIOR_OUT_TOKENS))),
            out_log_sd=_frozen(np.full(n, PRIOR_OUT_LOG_SD)),
        )


def _frozen(array: Floats) -> Floats:
    array.flags.writeable = False
    return array
