"""What one policy has learnt so far: the real estimators, folded tick by tick into its own book.

The same parts as in the estimators' process, without the log between them: outcomes and labels
of a tick are folded, quotes and skill are applied to the book, and the next view shows them.
Every policy has a learner of its own and learns from what it bought itself.
"""

from __future__ import annotations

import math

import numpy as np

from analytics.replay.files import Floats
from analytics.replay.world import World
from bidding.book import MarketBook
from bidding.columns import Bools, Ints
from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.quality import LabelBatch, QualityEstimator
from bidding.estimators.reliability import ReliabilityEstimator
from bidding.estimators.tokens import AnswerBatch, TokenTask
from bidding.facts import facts_of
from bidding.kernel import Kernel
from bidding.outcome import FAILURE_CODES, FailureClass, OutcomeBatch
from bidding.pacing import ClassPricer
from bidding.params import Params
from bidding.quote import Calibration, Quote
from bidding.skill import Skill
from bidding.view import MarketView

_OK = FAILURE_CODES[FailureClass.OK]
_FAILED = FAILURE_CODES[FailureClass.SERVER_ERROR]
FAILED_AFTER_MS = 300.0
"""How long a seller that is down takes to say so."""


class Learner:
    """Estimators and book of one policy on one task.

    Parameters
    ----------
    uses_latency : bool
        Whether latencies are learnt; only where there is a deadline or a policy that looks.
    kernel : Kernel, optional
        Makes the same decisions in less time.
    """

    def __init__(
        self,
        world: World,
        task: str,
        params: Params,
        *,
        uses_latency: bool,
        kernel: Kernel | None = None,
    ) -> None:
        self.task = task
        self.book = MarketBook(world.catalogue)
        self.book.kernel = kernel
        self.quality = QualityEstimator(facts_of(world.catalogue))
        self.tokens = TokenTask(params.tokens)
        self.tokens.grow(len(world.models))
        self.pricer = ClassPricer(params.pacing)
        self.uses_latency = uses_latency
        n = len(world.offer_ids)
        self.latency = LatencyEstimator(params.latency)
        self.reliability = ReliabilityEstimator(params.reliability)
        self.latency.grow(n)
        self.reliability.grow(n)
        for row in range(n):
            self.reliability.set_market(row, int(world.model_of[row]))
        self.model_of = world.model_of
        self.models = world.models
        self.offer_ids = world.offer_ids
        self._models: list[str] = []
        self._outcomes: list[tuple[int, float, int, float, float, float]] = []
        self._labels: list[tuple[str, float, tuple[float, ...] | None, float]] = []

    def note_attempt(
        self, row: int, at_s: float, ttft_s: float, out_tokens: float, in_tokens: float
    ) -> None:
        """An attempt as it ended; an infinite `ttft_s` is a failure."""
        failed = math.isinf(ttft_s)
        code = _FAILED if failed else _OK
        ttft_ms = math.nan if failed else ttft_s * 1e3
        self._outcomes.append((row, at_s, code, ttft_ms, out_tokens, in_tokens))

    def note_label(
        self, row: int, at_s: float, quality: float, features: tuple[float, ...] | None
    ) -> None:
        """A judged answer of the offer at `row`."""
        self._labels.append((self.models[self.model_of[row]], quality, features, at_s))

    def tick(self, at_s: float) -> None:
        """Fold what was noted since the last tick and publish it to the book."""
        self._fold_labels()
        self._fold_outcomes(at_s)
        self._publish_skill(at_s)

    def view(
        self, at_s: float, circuit_open: Bools | None = None, half_open: Bools | None = None
    ) -> MarketView:
        """The market as this learner sees it now."""
        return self.book.view(int(at_s * 1e6), circuit_open=circuit_open, half_open=half_open)

    def _fold_labels(self) -> None:
        if not self._labels:
            return
        models, outcome, features, at_s = (list(c) for c in zip(*self._labels, strict=True))
        n = len(models)
        self.quality.fold(
            LabelBatch([self.task] * n, models, outcome, [1.0] * n, [1.0] * n, features, at_s)
        )
        self._labels.clear()

    def _fold_outcomes(self, now_s: float) -> None:
        if not self._outcomes:
            return
        columns = np.array(self._outcomes, dtype=np.float64).T
        row: Ints = columns[0].astype(np.int64)
        at_s, ttft_ms, out_tokens, in_tokens = columns[1], columns[3], columns[4], columns[5]
        code: Ints = columns[2].astype(np.int64)
        ok = code == _OK
        ones = np.ones(len(row))
        self.tokens.fold(
            AnswerBatch(
                row=self.model_of[row[ok]],
                at_s=at_s[ok],
                output_tokens=out_tokens[ok],
                cut=np.zeros(int(ok.sum()), dtype=bool),
                trust=ones[ok],
            )
        )
        self._outcomes.clear()
        if self.uses_latency:
            batch = OutcomeBatch(
                row=row,
                at_s=at_s,
                failure=code,
                ttft_ms=ttft_ms,
                total_ms=np.where(ok, math.nan, FAILED_AFTER_MS),
                waited_ms=np.full(len(row), math.nan),
                input_tokens=in_tokens,
                output_tokens=out_tokens,
                n_inflight=np.zeros(len(row)),
                trust=ones,
            )
            self.latency.fold(batch)
            self.reliability.fold(batch)
            self._publish_quotes(now_s)

    def _publish_quotes(self, now_s: float) -> None:
        latency = self.latency.quotes(now_s)
        reliability = self.reliability.quotes(now_s)
        at_us = int(now_s * 1e6)
        for row, offer in enumerate(self.offer_ids):
            self.book.apply_quote(
                Quote(
                    offer=offer,
                    at_us=at_us,
                    ttft_log_ms=float(latency.ttft_log_ms[row]),
                    ttft_log_sd=float(latency.ttft_log_sd[row]),
                    ttft_n=float(latency.ttft_n[row]),
                    tpot_log_ms=float(latency.tpot_log_ms[row]),
                    tpot_log_sd=float(latency.tpot_log_sd[row]),
                    tpot_n=float(latency.tpot_n[row]),
                    ttft_per_log_input=float(latency.ttft_per_log_input[row]),
                    fail_share=float(reliability.fail_share[row]),
                    fail_n=float(reliability.fail_n[row]),
                    capacity_share=float(reliability.capacity_share[row]),
                    health="open" if reliability.ejected[row] else "closed",
                    retry_at_us=int(reliability.retry_at_s[row] * 1e6),
                )
            )
        self.book.apply_calibration(
            Calibration(
                at_us=at_us,
                z_grid=latency.z_grid.tolist(),
                ttft_cdf=latency.ttft_cdf.tolist(),
                total_cdf=latency.total_cdf.tolist(),
            )
        )

    def _publish_skill(self, now_s: float) -> None:
        mean, sd, _ = self.tokens.log_law(now_s)
        self.book.apply_skill(
            Skill(
                task=self.task,
                at_us=int(now_s * 1e6),
                quality=self.quality.skill(self.task),
                models=self.models,
                out_log_tokens=mean.tolist(),
                out_log_sd=sd.tolist(),
                classes=self.pricer.prices(),
            )
        )


def believed(learner: Learner) -> dict[str, Floats]:
    """What the learner believes of each model now: mean and sd of its log-odds of a good answer."""
    skill = learner.quality.skill(learner.task)
    return {"theta": np.array(skill.theta), "theta_sd": np.array(skill.theta_sd)}
