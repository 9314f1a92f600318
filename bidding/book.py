"""All offers and what is believed of them, and the views made of it.

The book is mutable and has one owner: quotes, skills, prices and circuits are written into it
as they arrive, and `view()` copies it into an immutable, numbered picture. A quote or a skill
older than what the book holds is ignored, so replays and re-reads of the log are harmless; one
that cannot be (not finite, a negative spread, a share above one) is refused and the old stays.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from bidding.asks import Ask, Asks
from bidding.columns import (
    Bools,
    Floats,
    OfferColumns,
    offer_columns,
    price_columns,
)
from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.latency_pool import LatencyColumns
from bidding.estimators.quality import QualityEstimator
from bidding.estimators.quality_skill import SkillArrays, TaskSkill, p_good, skill_arrays
from bidding.estimators.season_columns import SeasonColumns
from bidding.estimators.seasons import Season
from bidding.facts import facts_of
from bidding.found_tasks import UNNAMED_TASK, FoundTasks
from bidding.gates import market_codes
from bidding.kernel import Kernel
from bidding.market import Catalogue, PriceList
from bidding.pacing import ClassPrices
from bidding.quote import Calibration, Quote
from bidding.sanity import is_sane_calibration, is_sane_quote, is_sane_skill
from bidding.skill import Skill
from bidding.view import MarketView, QuoteColumns, ShadowPrices, TaskColumns

PRIOR_FAIL_SHARE = 0.02
PRIOR_OUT_TOKENS = 150.0
PRIOR_OUT_LOG_SD = 0.8
_NOBODY = np.zeros(0, dtype=np.bool_)
_LATENCY_FIELDS = tuple(
    f for f in LatencyColumns._fields if f not in ("z_grid", "ttft_cdf", "total_cdf")
)


class MarketBook:
    """Offers, prices, quotes, skills and class prices, as last heard.

    `kernel` is handed to every view made from now on.
    """

    kernel: Kernel | None = None

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue.checked()
        self.offers: OfferColumns = offer_columns(catalogue)
        by_id = {o.id: o for o in catalogue.offers}
        self._prices = [by_id[i].prices for i in self.offers.offer_ids]
        self._price_columns = price_columns(self._prices)
        n = len(self.offers)
        self._asks = Asks(self._prices)
        self._seasons = SeasonColumns(n)
        self._priced = np.ones(n, dtype=bool)
        unseen = LatencyEstimator()
        unseen.grow(n)
        self._latency = unseen.quotes(0.0)
        self._quotes: dict[str, Floats] = {
            name: np.array(getattr(self._latency, name)) for name in _LATENCY_FIELDS
        }
        self._quotes["fail_share"] = np.full(n, PRIOR_FAIL_SHARE)
        self._quotes["capacity_share"] = np.zeros(n)
        self._evidence_n = np.zeros(n)
        self._calibrated_at_us = 0
        self._quoted_at_us = np.zeros(n, dtype=np.int64)
        self._open_until_us = np.zeros(n, dtype=np.int64)
        self._tasks: dict[str, TaskColumns] = {}
        self._skills: dict[str, Skill] = {}
        self._found = FoundTasks()
        self._model_of_row = [self.offers.model_ids[m] for m in self.offers.model.tolist()]
        self._prior = QualityEstimator(facts_of(catalogue)).skill("")
        self._generic = self._generic_columns()
        self._number = 0

    @property
    def number(self) -> int:
        """Number of the newest view made."""
        return self._number

    def apply_quote(self, quote: Quote) -> bool:
        """Take in a quote; False when its offer is unknown, or it is not newer or not possible."""
        row = self.offers.row_of.get(quote.offer)
        if row is None or quote.at_us <= self._quoted_at_us[row] or not is_sane_quote(quote):
            return False
        for name, column in self._quotes.items():
            column[row] = getattr(quote, name)
        beyond_prior = max(quote.fail_share - PRIOR_FAIL_SHARE, 0.0)
        self._evidence_n[row] = quote.ttft_n + quote.fail_n * beyond_prior
        self._open_until_us[row] = quote.retry_at_us if quote.health == "open" else 0
        self._quoted_at_us[row] = quote.at_us
        return True

    def apply_calibration(self, calibration: Calibration) -> bool:
        """Take in how well latency promises hold; False when it is not newer or not a table."""
        if calibration.at_us <= self._calibrated_at_us or not is_sane_calibration(calibration):
            return False
        tables = (calibration.z_grid, calibration.ttft_cdf, calibration.total_cdf)
        z_grid, ttft_cdf, total_cdf = (_frozen(np.array(t, dtype=np.float64)) for t in tables)
        self._latency = self._latency._replace(
            z_grid=z_grid, ttft_cdf=ttft_cdf, total_cdf=total_cdf
        )
        self._calibrated_at_us = calibration.at_us
        return True

    def apply_skill(self, skill: Skill) -> bool:
        """Take in a task's skill; False when it is not newer than the known, or not possible."""
        known = self._skills.get(skill.task)
        if (known is not None and skill.at_us <= known.at_us) or not is_sane_skill(skill):
            return False
        self._skills[skill.task] = skill
        self._tasks[skill.task] = self._task_columns(skill)
        if skill.task == UNNAMED_TASK:
            self._found = FoundTasks(skill.found)
        return True

    def apply_prices(self, offer_id: str, prices: PriceList) -> bool:
        """Put new list prices in force; False when the offer is unknown or a price not possible."""
        row = self.offers.row_of.get(offer_id)
        if row is None or not prices.is_sane:
            return False
        self._prices[row] = prices
        self._price_columns = price_columns(self._prices)
        self._asks.relisted(self._prices)
        if not self._priced[row]:
            self._priced = self._priced.copy()  # views hold the old one
            self._priced[row] = True
        return True

    def withdraw(self, offer_id: str) -> bool:
        """The offer is sold no longer, until a price of it is heard; False when that is no news."""
        row = self.offers.row_of.get(offer_id)
        if row is None or not self._priced[row]:
            return False
        self._priced = self._priced.copy()
        self._priced[row] = False
        return True

    def is_sold(self, row: int) -> bool:
        """Whether the offer at `row` may be bought as far as sellers and price lists say."""
        return bool(self._priced[row])

    def apply_ask(self, offer_id: str, ask: Ask) -> bool:
        """Take in a seller's spot price; False when the offer is unknown, or a price not possible.

        Only what is below the list price counts, only while it is in force.
        """
        row = self.offers.row_of.get(offer_id)
        if row is None or not ask.prices.is_sane:
            return False
        self._asks.put(row, ask)
        return True

    def apply_season(self, offer_id: str, latency: Season, errors: Season) -> bool:
        """Take in when in the week an offer is slow and when it fails; False when unknown."""
        row = self.offers.row_of.get(offer_id)
        return row is not None and self._seasons.put(row, latency, errors)

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
        half_open: Bools | None = None,
        quota_nusd: Floats | None = None,
        quota_token_nusd: Floats | None = None,
        shadow: ShadowPrices | None = None,
        ask_spent: Bools | None = None,
    ) -> MarketView:
        """A new immutable view.

        Parameters
        ----------
        circuit_open, quota_blocked : bool ndarray, (n_offers,), optional
            The gateway's own overlay: what it has seen itself and the log has not told it yet.
        n_inflight : ndarray, (n_offers,), optional
            Its own open calls.
        half_open : bool ndarray, (n_offers,), optional
            Offers whose circuit, there, waits for a probe.
        quota_nusd, quota_token_nusd : ndarray, (n_offers,), optional
            What a request, and a token, of an offer costs later ones there, where its quota is
            near its end.
        shadow : ShadowPrices, optional
            The same as one.
        ask_spent : bool ndarray, (n_offers,), optional
            Offers whose spot ask has no capacity left.
        """
        n = len(self.offers)
        self._number += 1
        now = {name: column.copy() for name, column in self._quotes.items()}
        self._seasons.apply(now, at_us, self._quoted_at_us)
        now = {name: _frozen(column) for name, column in now.items()}
        quotes = QuoteColumns(
            latency=self._latency._replace(**{name: now[name] for name in _LATENCY_FIELDS}),
            fail_share=now["fail_share"],
            capacity_share=now["capacity_share"],
            evidence_n=_frozen(self._evidence_n.copy()),
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
        blocked = np.zeros(n, bool) if quota_blocked is None else quota_blocked.copy()
        return MarketView(
            number=self._number,
            at_us=at_us,
            offers=self.offers,
            prices=self._asks.columns(self._price_columns, at_us, ask_spent),
            priced=self._priced,
            quotes=quotes,
            circuit_open=open_now,
            quota_blocked=blocked,
            market_codes=market_codes(
                priced=self._priced, quota_blocked=blocked, circuit_open=open_now
            ),
            n_inflight=np.zeros(n) if n_inflight is None else _not_negative(n_inflight),
            tasks=dict(self._tasks),
            generic=self._generic,
            classes=classes,
            classes_of_task=classes_of_task,
            found=self._found,
            half_open=_NOBODY if half_open is None or not half_open.any() else half_open.copy(),
            shadow=_scarce(shadow, quota_nusd, quota_token_nusd),
            kernel=self.kernel,
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
        quality = skill_arrays(self._completed(skill.quality), self._model_of_row)
        return task_columns(quality, log_tokens, log_sd)

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
        return task_columns(
            skill_arrays(self._prior, self._model_of_row),
            np.full(n, math.log(PRIOR_OUT_TOKENS)),
            np.full(n, PRIOR_OUT_LOG_SD),
        )


def task_columns(quality: SkillArrays, log_tokens: Floats, log_sd: Floats) -> TaskColumns:
    """Columns of a task: what follows from `quality` for an ordinary prompt is worked out."""
    good = p_good(quality.theta, quality.plain_sd)
    return TaskColumns(
        quality=quality,
        out_log_tokens=_frozen(log_tokens),
        out_log_sd=_frozen(log_sd),
        p_good=_frozen(good),
        p_good_sd=_frozen(good * (1.0 - good) * quality.own_sd),
    )


def _not_negative(column: Floats) -> Floats:
    """A copy with what is negative or not a number at 0."""
    return np.clip(np.nan_to_num(column, nan=0.0, posinf=1e9, neginf=0.0), 0.0, None)


def _scarce(
    shadow: ShadowPrices | None, per_request: Floats | None, per_token: Floats | None
) -> ShadowPrices | None:
    """The shadow prices made possible; None where nothing is scarce."""
    if shadow is None:
        if per_request is None or per_token is None:
            return None
        shadow = ShadowPrices(per_request, per_token)
    request, token = _not_negative(shadow.request_nusd), _not_negative(shadow.token_nusd)
    return ShadowPrices(request, token) if request.any() or token.any() else None


def _frozen(array: Floats) -> Floats:
    array.flags.writeable = False
    return array
