"""Which reported prices may be believed: sanity, quarantine, confirmation. No I/O.

A catalogue that slips a unit (a real one listed a model at a million times its price for two
days) must not move what we buy. A change is held back when it exceeds a factor, falls to zero,
or contradicts another source of equal or higher rank; it comes into force when a second source
says the same, when ops confirm it, and it is forgotten when its source takes it back.

An offer that a source lists no longer is treated alike (decision 36): the seller's own page is
believed, others only when two agree and nobody lists it still; all else waits for ops.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from bidding.market import PriceList

Verdict = Literal["unchanged", "accepted", "quarantined"]
OPS: Final = "ops"
RANK: Final = {OPS: 3, "own": 3, "price-page": 2}
"""Who overrules whom; sources not named here are public catalogues, rank 1."""
_OF_SELLERS: Final = frozenset({"price-page"})
"""Sources that are the seller's own word on what it sells."""
_ROUNDING: Final = 0.005


class JudgeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_factor`: a price may move this much either way unasked. `fresh_s`: how long a source's
    last word counts against another's.
    """

    max_factor: Annotated[float, Meta(gt=1.0)] = 4.0
    fresh_s: Annotated[float, Meta(gt=0.0)] = 7 * 86_400.0


class Judged(Struct, frozen=True, kw_only=True):
    """What became of a report; `old` was in force before, `prices` is what was reported.

    `withdrawn`: it is reported that the offer is sold no longer; `prices` are its last.
    """

    verdict: Verdict
    offer: str
    source: str
    prices: PriceList
    old: PriceList | None
    reason: str = ""
    withdrawn: bool = False


class Held(Struct, frozen=True, kw_only=True):
    """A report in quarantine."""

    offer: str
    source: str
    prices: PriceList
    at_us: int
    reason: str
    withdrawn: bool = False


class PriceJudge:
    """Prices in force by offer, what each source last said, and what is held back."""

    def __init__(self, settings: JudgeSettings | None = None) -> None:
        self.settings = settings or JudgeSettings()
        self.in_force: dict[str, PriceList] = {}
        self._said: dict[str, dict[str, tuple[PriceList, int]]] = {}
        self._held: dict[str, dict[str, Held]] = {}
        self._gone: dict[str, set[str]] = {}
        self._withdrawn: dict[str, int] = {}

    def start(self, offer: str, prices: PriceList, *, withdrawn_by: str = "") -> None:
        """Take a price as given: the catalogue's own, or one that was in force before a restart;
        `withdrawn_by` a source, the offer was sold no longer then.
        """
        self.in_force[offer] = prices
        self._withdrawn.pop(offer, None)
        if withdrawn_by:
            self._withdrawn[offer] = RANK.get(withdrawn_by, 1)

    def is_withdrawn(self, offer: str) -> bool:
        """Whether it is believed that the offer is sold no longer."""
        return offer in self._withdrawn

    def held(self) -> list[Held]:
        """All that is in quarantine, oldest first."""
        found = [h for by_source in self._held.values() for h in by_source.values()]
        return sorted(found, key=lambda h: (h.at_us, h.offer, h.source))

    def hear(self, offer: str, prices: PriceList, source: str, at_us: int) -> Judged:
        """Judge what a source reports of an offer now."""
        said = self._said.setdefault(offer, {})
        old = self.in_force.get(offer)
        said[source] = (prices, at_us)
        held = self._held.get(offer, {})
        before = held.pop(source, None)
        self._gone.get(offer, set()).discard(source)
        if RANK.get(source, 1) < self._withdrawn.get(offer, 0):
            return self._judged(
                "unchanged", offer, source, prices, old, "a higher rank has withdrawn it"
            )
        if old is not None and same(prices, old) and offer not in self._withdrawn:
            return self._judged("unchanged", offer, source, prices, old)
        reason = self._doubt(offer, prices, old, source, at_us)
        confirmed = any(
            other != source and same(prices, words) and self._is_fresh(then, at_us)
            for other, (words, then) in said.items()
        )
        if reason and not confirmed:
            if before is not None and same(before.prices, prices):
                held[source] = before
                return self._judged("unchanged", offer, source, prices, old, before.reason)
            self._held.setdefault(offer, {})[source] = Held(
                offer=offer, source=source, prices=prices, at_us=at_us, reason=reason
            )
            return self._judged("quarantined", offer, source, prices, old, reason)
        if source not in RANK and old is not None and self._overruled(offer, source, at_us):
            return self._judged("unchanged", offer, source, prices, old, "a higher rank has spoken")
        return self._accept(offer, source, prices, old)

    def confirm(self, offer: str, source: str) -> Judged:
        """Ops believe what is held. Raises `KeyError` when nothing is."""
        held = self._held[offer].pop(source)
        if held.withdrawn:
            return self._withdraw(offer, OPS, held.prices)
        return self._accept(offer, source, held.prices, self.in_force.get(offer))

    def withdrawn(self, offer: str, source: str, at_us: int, *, many: bool = False) -> Judged:
        """Judge that a source lists the offer no longer; what it said of its price counts no more.

        Parameters
        ----------
        many : the source dropped a good part of its list at once, as a broken one would

        Raises
        ------
        KeyError
            No price of the offer was ever heard.
        """
        prices = self.in_force[offer]
        self._said.get(offer, {}).pop(source, None)
        held = self._held.setdefault(offer, {})
        before = held.pop(source, None)
        if source == OPS:
            return self._withdraw(offer, source, prices)
        if offer in self._withdrawn:
            return self._judged("unchanged", offer, source, prices, prices, withdrawn=True)
        self._gone.setdefault(offer, set()).add(source)
        reason = self._doubt_end(offer, source, at_us, many)
        if not reason:
            return self._withdraw(offer, source, prices)
        same_again = before is not None and before.withdrawn
        held[source] = Held(
            offer=offer,
            source=source,
            prices=prices,
            at_us=before.at_us if before is not None and same_again else at_us,
            reason=before.reason if before is not None and same_again else reason,
            withdrawn=True,
        )
        verdict: Verdict = "unchanged" if same_again else "quarantined"
        return self._judged(verdict, offer, source, prices, prices, reason, withdrawn=True)

    def _doubt_end(self, offer: str, source: str, at_us: int, many: bool) -> str:
        """Why it is not believed that an offer is sold no longer; "" where it is."""
        of_seller = source in _OF_SELLERS
        for other, (_, then) in self._said.get(offer, {}).items():
            counts = not of_seller or RANK.get(other, 1) >= RANK[source]
            # Ops who once believed a price do not list anything.
            if counts and other != OPS and self._is_fresh(then, at_us):
                return f"{source} lists it no longer, {other} still does"
        if many:
            return f"{source} lists it no longer, nor much else that it did"
        if not of_seller and len(self._gone[offer]) < 2:
            return f"{source} lists it no longer"
        return ""

    def _withdraw(self, offer: str, source: str, prices: PriceList) -> Judged:
        self._withdrawn[offer] = RANK.get(source, 1)
        held = self._held.get(offer, {})
        for other in [s for s, h in held.items() if h.withdrawn]:
            held.pop(other)
        return self._judged("accepted", offer, source, prices, prices, withdrawn=True)

    def _accept(self, offer: str, source: str, prices: PriceList, old: PriceList | None) -> Judged:
        self.in_force[offer] = prices
        self._withdrawn.pop(offer, None)
        held = self._held.get(offer, {})
        for other in [s for s, h in held.items() if same(h.prices, prices)]:
            held.pop(other)
        return self._judged("accepted", offer, source, prices, old)

    def _doubt(
        self, offer: str, prices: PriceList, old: PriceList | None, source: str, at_us: int
    ) -> str:
        if RANK.get(source) == RANK["ops"]:
            return ""
        for name in ("input", "output"):
            now: int = getattr(prices, f"{name}_nusd_per_mtok")
            was: int = getattr(old, f"{name}_nusd_per_mtok") if old is not None else now
            if now == was:
                continue
            if now == 0:
                return f"{name} price falls to zero"
            factor = self.settings.max_factor
            if was > 0 and not was / factor <= now <= was * factor:
                return f"{name} price changes {now / was:.3g}-fold, more than {factor:g}"
        rank = RANK.get(source, 1)
        for other, (words, then) in self._said.get(offer, {}).items():
            near = other != source and RANK.get(other, 1) >= rank and self._is_fresh(then, at_us)
            if near and old is not None and not same(words, prices):
                return f"{other} says otherwise"
        return ""

    def _overruled(self, offer: str, source: str, at_us: int) -> bool:
        return any(
            RANK.get(other, 1) > 1 and self._is_fresh(then, at_us)
            for other, (_, then) in self._said.get(offer, {}).items()
            if other != source
        )

    def _is_fresh(self, then_us: int, at_us: int) -> bool:
        return at_us - then_us <= self.settings.fresh_s * 1e6

    def _judged(
        self,
        verdict: Verdict,
        offer: str,
        source: str,
        prices: PriceList,
        old: PriceList | None,
        reason: str = "",
        *,
        withdrawn: bool = False,
    ) -> Judged:
        return Judged(
            verdict=verdict,
            offer=offer,
            source=source,
            prices=prices,
            old=old,
            reason=reason,
            withdrawn=withdrawn,
        )


def same(one: PriceList, other: PriceList) -> bool:
    """Whether two reports agree: equal, or what sources give agrees to half a percent.

    What only one of them tells (cache prices, tiers) is no contradiction, but it is a change.
    """
    if one == other:
        return True

    def near(name: str) -> bool:
        a, b = getattr(one, name), getattr(other, name)
        return a is None or b is None or abs(a - b) <= _ROUNDING * max(a, b)

    equal = ("input_nusd_per_mtok", "output_nusd_per_mtok", "cache_read_nusd_per_mtok")
    told = (one.cache_read_nusd_per_mtok is None) == (other.cache_read_nusd_per_mtok is None)
    plain = replace(one, tiers=()).request_nusd == other.request_nusd
    return told and plain and all(near(n) for n in equal) and one.tiers == other.tiers
