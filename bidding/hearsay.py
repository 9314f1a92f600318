"""What others tell of offers: kept apart from what we have seen, and let in only so far.

Pushed telemetry is never folded into an offer's own statistics. Each source has its own tally per
offer, and when a quote is made the quote is moved from what we believe towards what each source
claims: by the weight of its evidence beside ours, never by more than its cap, all of them together
never by more than theirs. So a cap holds by construction, and when a source is muted all that it
ever said is gone at once. Only means move; what we have not seen ourselves never makes us surer.

A source is judged where its claims and our own attempts of the same minutes speak of the same
offer. They conflict when their failure shares are apart by more than a margin and both of their
errors, or their times to first token by more than a factor. Every event of a source that arrives
in a conflict counts one up, every one in agreement one down; a source whose count reaches the
limit at any offer is muted. Which events come in which batch changes nothing.

References
----------
Wilson (1927), the score interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Struct

from bidding.estimators.bounds import number
from bidding.outcome import FailureClass, Outcome, lesson
from bidding.quote import Quote

PREFIX: Final = "pushed/"
"""Of the keys of a quote's state under which a source's tally stands; the bare one is ours."""
_VERSION: Final = 1.0
_MAX_MS: Final = 1e7
_LOG_SD: Final = 0.6
"""Spread of single calls, where two means are compared."""
_MIN_OWN: Final = 3.0
_MIN_TIMES: Final = 8.0


class TrustParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What pushed telemetry may do, and when its source is no longer heard."""

    source_cap: Annotated[
        float, number(0, 1, "share", "most that one source may move a quote towards its claim")
    ] = 0.3
    all_cap: Annotated[
        float, number(0, 1, "share", "most that all sources together may move a quote")
    ] = 0.5
    half_life_s: Annotated[
        float, number(10, 86_400, "s", "memory of what sources claim, and of ours beside it")
    ] = 300.0
    prior_n: Annotated[
        float, number(0, 1000, "attempts", "our own doubt, against which claims are weighed")
    ] = 10.0
    fail_margin: Annotated[
        float, number(0.01, 1, "share", "failure shares further apart than this are a conflict")
    ] = 0.15
    time_ratio: Annotated[
        float, number(1.1, 100, "ratio", "times to first token further apart are a conflict")
    ] = 3.0
    mute_after: Annotated[
        float, number(1, 100_000, "events", "events in conflict at one offer that mute a source")
    ] = 100.0
    mute_s: Annotated[float, number(1, 31_536_000, "s", "how long a source stays muted")] = 86_400.0


class Mute(Struct, frozen=True, kw_only=True):
    """A source is no longer heard, from `at_us` until `until_us`: the offer it lied about, what it
    claimed and what we saw there, and how many of its events were in conflict.
    """

    source: str
    at_us: int
    until_us: int
    offer: str = ""
    n_conflicts: float = 0.0
    claimed_fail_share: float = 0.0
    own_fail_share: float = 0.0
    claimed_ttft_ms: float = 0.0
    own_ttft_ms: float = 0.0


class Tally(Struct):
    """Decayed sums of one teller's events at one offer. `size_*` are centred log sizes."""

    at_s: float = 0.0
    n_events: float = 0.0
    n_conflicts: float = 0.0
    trust: float = 0.0
    tried: float = 0.0
    failed: float = 0.0
    n_ttft: float = 0.0
    log_ttft: float = 0.0
    size_in: float = 0.0
    n_tpot: float = 0.0
    log_tpot: float = 0.0
    size_out: float = 0.0

    def add(self, told: Outcome, half_life_s: float) -> None:
        """Count an event; one older than the newest weighs as that."""
        self.age_to(told.at_us * 1e-6, half_life_s)
        taught = lesson(told.failure)
        if taught in ("success", "failure"):
            self.tried += 1.0
            self.failed += taught == "failure"
        first = told.ttft_ms
        if told.failure is not FailureClass.OK or first is None or not 0.01 < first < _MAX_MS:
            return
        self.n_ttft += 1.0
        self.log_ttft += math.log(first)
        self.size_in += math.log((told.input_tokens + 300.0) / 800.0)
        rest = (told.total_ms or 0.0) - first
        if told.output_tokens > 1 and 0.0 < rest < _MAX_MS:
            self.n_tpot += 1.0
            self.log_tpot += math.log(max(rest / (told.output_tokens - 1), 0.01))
            self.size_out += math.log((told.output_tokens + 20.0) / 120.0)

    def age_to(self, now_s: float, half_life_s: float) -> None:
        """Let what is old fade."""
        keep = self.kept_share(now_s, half_life_s)
        self.at_s = max(self.at_s, now_s)
        self.tried *= keep
        self.failed *= keep
        self.n_ttft *= keep
        self.log_ttft *= keep
        self.size_in *= keep
        self.n_tpot *= keep
        self.log_tpot *= keep
        self.size_out *= keep

    def kept_share(self, now_s: float, half_life_s: float) -> float:
        """What is left at `now_s` of what is counted."""
        return float(0.5 ** (max(now_s - self.at_s, 0.0) / half_life_s))

    @property
    def fail_share(self) -> float:
        """Failed of those tried; 0 where none was."""
        return self.failed / self.tried if self.tried > 0.0 else 0.0

    @property
    def ttft_ms(self) -> float:
        """Geometric mean; 0 where none was timed."""
        return math.exp(self.log_ttft / self.n_ttft) if self.n_ttft > 0.0 else 0.0

    def state(self) -> list[float]:
        """The whole memory, the version first."""
        return [_VERSION, *msgspec.structs.astuple(self)]


class Hearsay:
    """Tallies of all sources, and which of them are muted. Pure: time comes with the events."""

    def __init__(self, params: TrustParams | None = None) -> None:
        self.params = params or TrustParams()
        self.muted_until_us: dict[str, int] = {}
        self._claims: dict[str, dict[str, Tally]] = {}
        self._own: dict[str, Tally] = {}
        self._new: list[Mute] = []

    def heard(self, offer: str) -> bool:
        """Whether anybody has told us of this offer."""
        return offer in self._claims

    def sources(self, offer: str) -> Mapping[str, Tally]:
        """What each source claims of an offer."""
        return self._claims.get(offer, {})

    def seen(self, ours: Outcome) -> None:
        """An attempt of our own, at an offer that is heard of."""
        self._own.setdefault(ours.offer, Tally()).add(ours, self.params.half_life_s)

    def told(self, claim: Outcome) -> None:
        """An event that `claim.pusher` tells of."""
        p = self.params
        claims = self._claims.setdefault(claim.offer, {})
        tally = claims.setdefault(claim.pusher, Tally())
        tally.add(claim, p.half_life_s)
        tally.trust = min(max(claim.trust, 0.0), 1.0) if math.isfinite(claim.trust) else 0.0
        tally.n_events += 1.0
        if self.is_muted(claim.pusher, claim.at_us):
            return
        own = self._own.setdefault(claim.offer, Tally())
        own.age_to(claim.at_us * 1e-6, p.half_life_s)
        if own.tried < _MIN_OWN:
            return
        if conflicting(tally, own, p):
            tally.n_conflicts += 1.0
        else:
            tally.n_conflicts = max(tally.n_conflicts - 1.0, 0.0)
        if tally.n_conflicts >= p.mute_after:
            mute = Mute(
                source=claim.pusher,
                at_us=claim.at_us,
                until_us=claim.at_us + round(p.mute_s * 1e6),
                offer=claim.offer,
                n_conflicts=tally.n_conflicts,
                claimed_fail_share=tally.fail_share,
                own_fail_share=own.fail_share,
                claimed_ttft_ms=tally.ttft_ms,
                own_ttft_ms=own.ttft_ms,
            )
            self.mute(mute)
            self._new.append(mute)

    def is_muted(self, source: str, at_us: int) -> bool:
        """Whether a source is not heard at this time."""
        return at_us < self.muted_until_us.get(source, 0)

    def mute(self, mute: Mute) -> None:
        """Hear a source no longer, until the mute ends; one that ended at once lifts it."""
        self.muted_until_us[mute.source] = mute.until_us
        for claims in self._claims.values():
            if mute.source in claims:
                claims[mute.source].n_conflicts = 0.0

    def new_mutes(self) -> list[Mute]:
        """Mutes since the last call."""
        new, self._new = self._new, []
        return new

    def moved(self, quote: Quote, now_us: int) -> Quote:
        """The quote moved towards what is claimed of its offer, within the caps."""
        claims = self._claims.get(quote.offer)
        if not claims:
            return quote
        state = dict(quote.state)
        for name, tally in self._tallies(quote.offer):
            state[name] = tally.state()
        heard = [t for source, t in claims.items() if not self.is_muted(source, now_us)]
        half_life_s = self.params.half_life_s
        worth = [t.trust * t.kept_share(now_us * 1e-6, half_life_s) for t in heard]
        fail = self._shares([w * t.tried for w, t in zip(worth, heard, strict=True)], quote.fail_n)
        ttft = self._shares([w * t.n_ttft for w, t in zip(worth, heard, strict=True)], quote.ttft_n)
        tpot = self._shares([w * t.n_tpot for w, t in zip(worth, heard, strict=True)], quote.tpot_n)
        own_ttft, own_tpot = quote.ttft_log_ms, quote.tpot_log_ms
        fail_share, ttft_log_ms, tpot_log_ms = quote.fail_share, own_ttft, own_tpot
        for i, tally in enumerate(heard):
            fail_share += fail[i] * (tally.fail_share - quote.fail_share)
            if ttft[i] > 0.0:
                claimed = (tally.log_ttft - quote.ttft_per_log_input * tally.size_in) / tally.n_ttft
                ttft_log_ms += ttft[i] * (claimed - own_ttft)
            if tpot[i] > 0.0:
                slope = quote.tpot_per_log_output
                claimed = (tally.log_tpot - slope * tally.size_out) / tally.n_tpot
                tpot_log_ms += tpot[i] * (claimed - own_tpot)
        return msgspec.structs.replace(
            quote,
            fail_share=min(max(fail_share, 0.0), 1.0),
            ttft_log_ms=ttft_log_ms,
            tpot_log_ms=tpot_log_ms,
            state=state,
        )

    def restore(self, quote: Quote) -> None:
        """Resume from a published quote; a tally that cannot be read starts afresh."""
        claims: dict[str, Tally] = {}
        for name, state in quote.state.items():
            if not name.startswith(PREFIX):
                continue
            tally = _tally(state)
            if tally is None:
                continue
            source = name.removeprefix(PREFIX)
            if source:
                claims[source] = tally
            else:
                self._own[quote.offer] = tally
        if claims:
            self._claims[quote.offer] = claims

    def _tallies(self, offer: str) -> Iterator[tuple[str, Tally]]:
        if offer in self._own:
            yield PREFIX, self._own[offer]
        for source, tally in self._claims[offer].items():
            yield f"{PREFIX}{source}", tally

    def _shares(self, weights: Sequence[float], own_n: float) -> list[float]:
        """How far each source moves a number: its part of all evidence, capped."""
        p = self.params
        whole = own_n + p.prior_n + sum(weights)
        shares = [min(w / whole, p.source_cap) if w > 0.0 else 0.0 for w in weights]
        together = sum(shares)
        if together > p.all_cap:
            shares = [share * p.all_cap / together for share in shares]
        return shares


def conflicting(claim: Tally, own: Tally, params: TrustParams) -> bool:
    """Whether what a source claims of an offer cannot be what we see there.

    Examples
    --------
    >>> perfect, failing = Tally(tried=20.0, failed=0.0), Tally(tried=20.0, failed=19.0)
    >>> conflicting(perfect, failing, TrustParams()), conflicting(perfect, perfect, TrustParams())
    (True, False)
    """
    low, high = _wilson(claim.failed, claim.tried)
    own_low, own_high = _wilson(own.failed, own.tried)
    if high + params.fail_margin < own_low or own_high + params.fail_margin < low:
        return True
    if claim.n_ttft < _MIN_TIMES or own.n_ttft < _MIN_TIMES:
        return False
    apart = abs(claim.log_ttft / claim.n_ttft - own.log_ttft / own.n_ttft)
    doubt = 2.0 * _LOG_SD * math.sqrt(1.0 / claim.n_ttft + 1.0 / own.n_ttft)
    return apart > math.log(params.time_ratio) + doubt


def _wilson(failed: float, tried: float, z: float = 1.96) -> tuple[float, float]:
    n = max(tried, 1e-9)
    share = min(max(failed / n, 0.0), 1.0)
    centre = (share + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z * math.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / (1.0 + z * z / n)
    return centre - half, centre + half


def _tally(state: Sequence[float]) -> Tally | None:
    n_fields = len(Tally.__struct_fields__)
    if len(state) != n_fields + 1 or state[0] != _VERSION or not all(map(math.isfinite, state)):
        return None
    return Tally(*state[1:])
