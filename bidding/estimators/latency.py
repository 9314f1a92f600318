"""How long an offer takes: time to first token and time per token, learned from every attempt.

Owns the memory of each offer and its folding; the arithmetic is in `latency_model`, what the
offers teach one another in `latency_pool`. The idea that is not obvious: an offer's events are
folded in blocks (at most a quarter of a second and 512 calls of one offer) against a reference law
frozen when the block began. Within a block everything is a sum, so it runs as a few numpy
calls over all offers; block borders depend on the offer's own events alone, so the result does
not depend on how the log was cut into batches.

A change is caught by a two-sided CUSUM of clipped residuals, kept in whole numbers so that its
sums are exact. An alarm replaces the short memory by what was seen since the change began and
shortens the long one; one spike alone cannot raise it.

References
----------
Page (1954), Continuous inspection schemes (CUSUM).
Kuleshov, Fenner, Ermon (2018), Accurate uncertainties using calibrated regression (the
histogram of standardised residuals that recalibrates promises).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from bidding.estimators.decay import (
    Bools,
    DecayedSums,
    Floats,
    Ints,
    Order,
    RowClock,
    grown,
    kept_lives,
    lives_of,
    split_state,
)
from bidding.estimators.latency_fold import MAX_MS, MIN_LOG_MS, Observations, observe
from bidding.estimators.latency_model import (
    JUMPED,
    LEVELS,
    N_CHANNELS,
    N_FAST,
    N_RUN,
    N_SLOW,
    TPOT,
    TTFT,
    Law,
    Prior,
    censored,
    goes_on,
    law,
)
from bidding.estimators.latency_params import LatencyParams
from bidding.estimators.latency_pool import Z_EDGES, LatencyColumns, pooled
from bidding.outcome import OutcomeBatch

BLOCK_S: Final = 0.25
BLOCK_CALLS: Final = 512
N_PROMISES: Final = 1 + len(LEVELS)
N_BINS: Final = len(Z_EDGES) + 1
_SIGNS: Final = np.array([1, -1])[None, :, None]
_CUSUM_UNIT: Final = 1024
_MAX_LOG_MS: Final = math.log(MAX_MS)
_N_REF: Final = 5
_LIVES: Final = (LatencyParams().slow_half_life_s, LatencyParams().fast_half_life_s)
_REF_MEAN, _REF_SD, _REF_SIZE, _REF_BUSY, _REF_N = range(_N_REF)


class LatencyEstimator:
    """TTFT and TPOT of every offer; an `OfferEstimator`."""

    name: ClassVar[str] = "latency"
    version: ClassVar[int] = 1

    def __init__(self, params: LatencyParams | None = None) -> None:
        self.params = params or LatencyParams()
        self.clock = RowClock()
        self.slow = DecayedSums(N_CHANNELS * N_SLOW, self.params.slow_half_life_s)
        self.fast = DecayedSums(N_CHANNELS * N_FAST, self.params.fast_half_life_s)
        self.residuals = DecayedSums(N_CHANNELS * N_BINS, self.params.slow_half_life_s)
        self.promises = DecayedSums(N_PROMISES, self.params.slow_half_life_s)
        self.block: Ints = np.zeros(0, dtype=np.int64)
        self.n_in_block: Ints = np.zeros(0, dtype=np.int64)
        self.reference: Floats = np.zeros((N_CHANNELS, _N_REF, 0))
        self.cusum: Ints = np.zeros((N_CHANNELS, 2, 0), dtype=np.int64)
        self.run: Floats = np.zeros((N_CHANNELS, 2, N_RUN, 0))
        self.n_dirty: Floats = np.zeros(0)
        self.group: Ints = np.zeros(0, dtype=np.int64)
        self._prior = constant_prior(self.params)

    @property
    def n_rows(self) -> int:
        return len(self.block)

    def grow(self, n_rows: int) -> None:
        """Make room for `n_rows` offers; new rows start from the prior, each its own group."""
        self.clock.grow(n_rows)
        for sums in (self.slow, self.fast, self.residuals, self.promises):
            sums.grow(n_rows)
        self.block = grown(self.block, n_rows)
        self.n_in_block = grown(self.n_in_block, n_rows)
        self.reference = grown(self.reference, n_rows)
        self.cusum = grown(self.cusum, n_rows)
        self.run = grown(self.run, n_rows)
        self.n_dirty = grown(self.n_dirty, n_rows)
        fresh = -1 - np.arange(len(self.group), self.n_rows, dtype=np.int64)
        self.group = np.concatenate([self.group, fresh])

    def steer(self, params: LatencyParams) -> None:
        """Go on under other params: what was learned stays, and is forgotten at their rates."""
        present = self.clock.present_s()
        for sums in (self.slow, self.residuals, self.promises):
            sums.retune(params.slow_half_life_s, present)
        self.fast.retune(params.fast_half_life_s, present)
        self.params = params
        self._prior = constant_prior(params)

    def set_group(self, row: int, group: int) -> None:
        """Say which offers resemble each other most: the same provider and model elsewhere."""
        if group < 0:
            raise ValueError(f"group of row {row} must be at least 0, not {group}")
        self.group[row] = group

    def fold(self, batch: OutcomeBatch) -> None:
        """Take in a batch of outcomes, in log order."""
        if not len(batch):
            return
        order = Order(batch.row)
        tau = self.clock.read(order, batch.at_s)
        seen = observe(batch.take(order.index))
        np.add.at(self.n_dirty, order.row, seen.dirty.astype(np.float64))
        block = np.floor(tau / BLOCK_S).astype(np.int64)
        starts, ordinal = self._block_starts(order, block)
        for at in order.rounds(starts):
            self._fold_round(order.row[at], tau[at], block[at], starts[at], ordinal[at], seen, at)

    def _block_starts(self, order: Order, block: Ints) -> tuple[Bools, Ints]:
        """Which events begin a block, and each event's place in its run of equal `block`."""
        changes = np.ones(len(block), dtype=np.bool_)
        changes[1:] = block[1:] != block[:-1]
        carries = (block[order.first] == self.block[order.rows]) & (self.n_in_block[order.rows] > 0)
        changes[order.first] = ~carries
        origin = np.arange(len(block))
        carried = np.zeros(len(block), dtype=np.int64)
        carried[order.first] = np.where(carries, self.n_in_block[order.rows], 0)
        heads = changes.copy()
        heads[order.first] = True
        head = np.maximum.accumulate(np.where(heads, origin, 0))
        ordinal = origin - head + carried[head]
        return changes | (ordinal % BLOCK_CALLS == 0), ordinal

    def _fold_round(
        self,
        row: Ints,
        tau: Floats,
        block: Ints,
        starts: Bools,
        ordinal: Ints,
        seen: Observations,
        at: Ints,
    ) -> None:
        first = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
        last = np.append(first[1:], len(row)) - 1
        rows = row[first]
        begin = starts[first]
        if begin.any():
            self._begin_blocks(rows[begin], tau[first][begin])
        quiet_s = np.maximum(block[first] - self.block[rows], 0) * BLOCK_S
        quiet_s = np.where(self.n_in_block[rows] > 0, quiet_s, 1.0)
        self.block[rows] = block[last]
        self.n_in_block[rows] = ordinal[last] + 1

        ref = self.reference[:, :, row]
        size, busy = seen.size[:, at], seen.busy[at]
        shift = size * self._prior_size + busy * self.params.inflight_slope
        own = size * ref[:, _REF_SIZE] + busy * ref[:, _REF_BUSY]
        expected = ref[:, _REF_MEAN] + own + shift
        log_ms, weight = seen.log_ms[:, at], seen.weight[:, at]
        timed = weight.copy()
        extra = np.zeros_like(log_ms)

        whole = seen.whole_log_ms[at]
        split = np.isfinite(whole)
        if split.any():
            # An offer's slopes may point anywhere; far from what it was asked, so may their sum.
            ms = np.exp(np.clip(expected[:, split], MIN_LOG_MS, _MAX_LOG_MS))
            ratio = whole[split] - np.log(ms[TTFT] + ms[TPOT] * seen.further_tokens[at][split])
            log_ms[:, split] = expected[:, split] + ratio
            weight[:, split] = 0.5 * seen.trust[at][split]
            weight[TPOT, split] *= seen.further_tokens[at][split] >= 1.0
        waited = seen.waited[:, at]
        if waited.any():
            c, i = np.nonzero(waited)
            value, more, share = censored(expected[c, i], ref[c, _REF_SD, i], log_ms[c, i])
            # A stream that stopped tells of a silence, and hardly of a pace.
            drifts = np.hypot(ref[c, _REF_SD, i], self.params.drift_log_sd)
            paced = goes_on(expected[c, i], drifts, log_ms[c, i])
            share = share * np.where(c == TPOT, paced, 1.0)
            log_ms[c, i] = value
            extra[c, i] = more
            weight[c, i] *= share
            timed[c, i] *= share

        log_ms = np.clip(log_ms, MIN_LOG_MS, _MAX_LOG_MS)
        x = log_ms - shift
        e = x - own
        known = ref[:, _REF_N]
        z = np.where(known > 0.0, (log_ms - expected) / ref[:, _REF_SD], 0.0)
        decay = self.slow.weights(row, tau)  # one half-life and one landmark for all but fast
        self._add_sums(row, tau, decay, x, e, extra, size, busy, weight)
        self._add_residuals(row, decay, z, np.where(known >= 1.0, timed, 0.0))
        heard = first[begin]
        worth = seen.trust[at][heard] * np.minimum(quiet_s[begin], 1.0)
        self._add_promises(row[heard], seen.promised[at][heard], worth * decay[heard])
        self._add_runs(row, e, extra, weight)
        self._watch(rows, first, z, np.where(known >= self.params.alarm_after_n, weight, 0.0))

    def _begin_blocks(self, rows: Ints, tau: Floats) -> None:
        """Move landmarks, act on alarms and freeze the reference law of `rows`."""
        for sums in (self.slow, self.fast, self.residuals, self.promises):
            sums.advance(rows, tau)
        alarmed = (self.cusum[:, :, rows] > self._alarm_level).any(axis=(0, 1))
        if alarmed.any():
            self._act_on_alarms(rows[alarmed], tau[alarmed])
        self.run[:, :, :, rows] *= (self.cusum[:, :, rows] > 0)[:, :, None, :]
        own = self._law(*self._sums(rows, tau))
        self.reference[:, _REF_MEAN, rows] = own.mean
        self.reference[:, _REF_SD, rows] = np.sqrt(own.var + own.mean_var)
        self.reference[:, _REF_SIZE, rows] = own.slope_size
        self.reference[:, _REF_BUSY, rows] = own.slope_busy
        self.reference[:, _REF_N, rows] = own.slow_n

    def _act_on_alarms(self, rows: Ints, tau: Floats) -> None:
        slow, fast = self._sums(rows, tau)
        slow, fast, raised = self._after_alarm(rows, tau, slow, fast)
        for k, values in enumerate(slow.reshape(N_CHANNELS * N_SLOW, -1)):
            self.slow.put(k, rows, tau, values)
        for k, values in enumerate(fast.reshape(N_CHANNELS * N_FAST, -1)):
            self.fast.put(k, rows, tau, values)
        self.cusum[:, :, rows] *= ~raised[:, None, :]

    def _after_alarm(
        self, rows: Ints, tau: Floats, slow: Floats, fast: Floats
    ) -> tuple[Floats, Floats, Bools]:
        """Sums as they stand once pending alarms of `rows` are acted on, and where those were."""
        cusum = self.cusum[:, :, rows]
        raised: Bools = np.any(cusum > self._alarm_level, axis=1)
        upward = cusum[:, 0] >= cusum[:, 1]
        run = np.where(upward[:, None, :], self.run[:, 0][:, :, rows], self.run[:, 1][:, :, rows])
        jumped = np.concatenate([run, np.full_like(run[:, :1], JUMPED)], axis=1)
        age = np.maximum(tau - (self.block[rows] + 1) * BLOCK_S, 0.0)
        jumped *= np.exp2(-np.minimum(age / self.params.fast_half_life_s, 1000.0))
        kept = np.minimum(1.0, self.params.keep_n / np.maximum(slow[:, 0], 1e-12))
        return (
            slow * np.where(raised, kept, 1.0)[:, None, :],
            np.where(raised[:, None, :], jumped, fast),
            raised,
        )

    def _sums(self, rows: Ints, tau: Floats) -> tuple[Floats, Floats]:
        slow = self.slow.at(rows, tau).reshape(N_CHANNELS, N_SLOW, -1)
        fast = self.fast.at(rows, tau).reshape(N_CHANNELS, N_FAST, -1)
        return slow, fast

    def _law(self, slow: Floats, fast: Floats) -> Law:
        p = self.params
        return law(
            slow,
            fast,
            self._prior,
            slope_var=p.slope_sd**2,
            noise_n=p.noise_n,
            drift_var=p.drift_log_sd**2,
        )

    def _add_sums(
        self,
        row: Ints,
        tau: Floats,
        decay: Floats,
        x: Floats,
        e: Floats,
        extra: Floats,
        size: Floats,
        busy: Floats,
        weight: Floats,
    ) -> None:
        w = weight * decay
        wx, ws, wb = w * x, w * size, w * busy
        columns = [w, wx, wx * x + w * extra, ws, wb]
        columns += [ws * size, wb * busy, ws * busy, ws * x, wb * x]
        self.slow.add(row, np.stack(columns, axis=1).reshape(N_CHANNELS * N_SLOW, -1))
        w = weight * self.fast.weights(row, tau)
        we = w * e
        columns = [w, we, we * e + w * extra, np.zeros_like(w)]
        self.fast.add(row, np.stack(columns, axis=1).reshape(N_CHANNELS * N_FAST, -1))

    def _add_residuals(self, row: Ints, decay: Floats, z: Floats, weight: Floats) -> None:
        bins = np.searchsorted(Z_EDGES, z)
        w = weight * decay
        for channel in range(N_CHANNELS):
            used = w[channel] > 0.0
            k = channel * N_BINS + bins[channel][used]
            self.residuals.add_one(k, row[used], w[channel][used])

    def _add_promises(self, row: Ints, promised: Floats, worth: Floats) -> None:
        """Count promises by the second, not by the call.

        Outcomes are late by as much as calls last, and a loop that counted each of a thousand
        calls made on one stale quote would swing; so of a block the first counts, for the
        seconds (at most one) since the offer was last heard of.
        """
        given = ~np.isnan(promised)
        if given.any():
            row, promised, w = row[given], promised[given], worth[given]
            missed = (promised > LEVELS[:, None]) - (1.0 - LEVELS[:, None])
            self.promises.add(row, w * np.concatenate([np.ones((1, len(row))), missed]))

    def _add_runs(self, row: Ints, e: Floats, extra: Floats, weight: Floats) -> None:
        we = weight * e
        values = np.stack([weight, we, we * e + weight * extra], axis=1)
        for channel in range(N_CHANNELS):
            for sign in range(2):
                for k in range(N_RUN):
                    np.add.at(self.run[channel, sign, k], row, values[channel, k])

    def _watch(self, rows: Ints, first: Ints, z: Floats, weight: Floats) -> None:
        """Move the CUSUMs of `rows` by their events, which begin at `first`."""
        p = self.params
        clipped = np.clip(z, -p.alarm_clip_sd, p.alarm_clip_sd)[:, None, :]
        moves = (_SIGNS * clipped - p.alarm_slack_sd) * weight[:, None, :]
        path = np.cumsum(np.rint(moves * _CUSUM_UNIT).astype(np.int64), axis=2)
        before = np.where(first > 0, path[:, :, first - 1], 0)
        end = path[:, :, np.append(first[1:], path.shape[2]) - 1] - before
        low = np.minimum.reduceat(path, first, axis=2) - before
        self.cusum[:, :, rows] = np.maximum(self.cusum[:, :, rows] + end, end - np.minimum(low, 0))

    @property
    def _alarm_level(self) -> int:
        return round(self.params.alarm_level_sd * _CUSUM_UNIT)

    @property
    def _prior_size(self) -> Floats:
        return np.array([[self.params.input_slope], [self.params.output_slope]])

    def quotes(self, now_s: float) -> LatencyColumns:
        """What is believed at wall-clock `now_s` of all offers, with what they teach each other."""
        rows = np.arange(self.n_rows)
        tau = self.clock.now_s(now_s)
        slow, fast, _ = self._after_alarm(rows, tau, *self._sums(rows, tau))
        residuals = self.residuals.at(rows, tau).reshape(N_CHANNELS, N_BINS, -1)
        promises = self.promises.at(rows, tau)
        return pooled(slow, fast, residuals, promises, self.group, self._prior, self.params)

    def state(self, row: int) -> list[float]:
        """The row's whole memory as finite floats, the first being `version`."""
        return [
            float(self.version),
            *self.clock.state(row),
            *self.slow.state(row),
            *self.fast.state(row),
            *self.residuals.state(row),
            *self.promises.state(row),
            float(self.block[row]),
            float(self.n_in_block[row]),
            *self.reference[:, :, row].ravel().tolist(),
            *self.cusum[:, :, row].ravel().astype(np.float64).tolist(),
            *self.run[:, :, :, row].ravel().tolist(),
            float(self.n_dirty[row]),
            *kept_lives(_LIVES, (self.slow.half_life_s, self.fast.half_life_s)),
        ]

    def restore(self, row: int, state: Sequence[float]) -> None:
        """Replace the row's memory. Raises `BadState` on another version or shape."""
        sizes = [
            1,
            RowClock.N_STATE,
            1 + self.slow.n_sums,
            1 + self.fast.n_sums,
            1 + self.residuals.n_sums,
            1 + self.promises.n_sums,
            1,
            1,
            N_CHANNELS * _N_REF,
            N_CHANNELS * 2,
            N_CHANNELS * 2 * N_RUN,
            1,
        ]
        state, (slow_s, fast_s) = lives_of(state, sum(sizes), _LIVES)
        parts = split_state(self.name, self.version, state, sizes)
        self.clock.restore(row, parts[1])
        tau = float(self.clock.present_s()[row])
        self.slow.restore_from(row, parts[2], slow_s, tau)
        self.fast.restore_from(row, parts[3], fast_s, tau)
        self.residuals.restore_from(row, parts[4], slow_s, tau)
        self.promises.restore_from(row, parts[5], slow_s, tau)
        self.block[row] = int(parts[6][0])
        self.n_in_block[row] = int(parts[7][0])
        self.reference[:, :, row] = np.reshape(parts[8], (N_CHANNELS, _N_REF))
        self.cusum[:, :, row] = np.reshape(parts[9], (N_CHANNELS, 2)).astype(np.int64)
        self.run[:, :, :, row] = np.reshape(parts[10], (N_CHANNELS, 2, N_RUN))
        self.n_dirty[row] = parts[11][0]


def constant_prior(params: LatencyParams) -> Prior:
    """What is believed of an offer in a market nothing is known of: columns (2, 1)."""
    mean = np.log([[params.prior_ttft_ms], [params.prior_tpot_ms]])
    column = np.ones((N_CHANNELS, 1))
    spread = params.market_log_sd**2 + params.group_log_sd**2
    return Prior(
        mean=mean,
        mean_var=column * spread,
        noise_var=column * params.noise_log_sd**2,
        slope_size=column * 0.0,
        slope_busy=column * 0.0,
    )
