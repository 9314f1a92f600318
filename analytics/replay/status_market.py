"""The market on which status pages are replayed: several sellers a model, failing as told.

Sellers and list prices are those of April 2024 (`market/offers.csv`), models those that at least
two of them sell. An attempt fails with the share the truth of the moment gives; nothing else of
it is modelled, so latency is left out of quotes. Everything else between an attempt and the next
decision is the real thing: circuits, the estimator of failures, quotes, the book, the auction, and
the next best bid after a failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from analytics.replay.datasets import DataFolder
from bidding.auction import decide
from bidding.book import MarketBook
from bidding.estimators.circuit import CircuitBreakers
from bidding.estimators.reliability import ReliabilityEstimator
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.outcome import FailureClass, Outcome, OutcomeBatch
from bidding.params import Params
from bidding.quote import Quote
from bidding.quoting import OUTLIER_US
from bidding.request import BidRequest, Sla
from feeds.market_records import StatusRecord
from feeds.status.acting import IncidentsActing

MARKET: Final = "spring2024"
INPUT_TOKENS: Final = 500
OUTPUT_TOKENS: Final = 150
MOST_ATTEMPTS: Final = 3
TOOK_S: Final = 1.0
BASE_FAIL_SHARE: Final = 0.01


def catalogue_of(folder: DataFolder) -> Catalogue:
    """The models with more than one seller, and their sellers, at list prices."""
    rows = [
        r
        for r in folder.offers(MARKET)
        if r.input_usd_per_mtok is not None and r.output_usd_per_mtok is not None
    ]
    n_sellers: dict[str, int] = {}
    for row in rows:
        n_sellers[row.latency_model] = n_sellers.get(row.latency_model, 0) + 1
    sold = [r for r in rows if n_sellers[r.latency_model] > 1]
    models = sorted({r.latency_model for r in sold})
    return Catalogue(
        providers=[
            Provider(id=p, name=p, wire="openai", base_url="http://x", jurisdiction="us")
            for p in sorted({r.provider for r in sold})
        ],
        models=[Model(id=m, family=m, context_window=8192, max_output_tokens=4096) for m in models],
        offers=[
            Offer(
                provider=r.provider,
                model=r.latency_model,
                prices=PriceList(
                    input_nusd_per_mtok=round((r.input_usd_per_mtok or 0.0) * 1e9),
                    output_nusd_per_mtok=round((r.output_usd_per_mtok or 0.0) * 1e9),
                ),
            )
            for r in sold
        ],
    )


class Arm:
    """One way of running the market: with the pages heard, or not. Same seeds, same fates.

    Attributes
    ----------
    n_failed : failed attempts at offers in trouble
    spent_nusd : paid for answers
    """

    def __init__(self, catalogue: Catalogue, params: Params, *, hears: bool, seed: int) -> None:
        self._hears = hears
        self._params = params
        self._book = MarketBook(catalogue)
        self._beliefs = _Beliefs(self._book, params)
        self._acting = IncidentsActing(catalogue)
        self._circuits = CircuitBreakers(params.reliability.circuit, seed)
        self._circuits.grow(len(self._book.offers))
        self._prices = {o.id: o.prices for o in catalogue.offers}
        self._sellers: dict[str, tuple[str, ...]] = {
            m.id: tuple(o.id for o in catalogue.offers if o.model == m.id) for m in catalogue.models
        }
        self._pending: list[Outcome] = []
        self.n_failed = self.n_attempts = self.n_requests = self.n_unserved = 0
        self.spent_nusd = 0
        self.bought: dict[str, int] = {}

    def hear(self, record: StatusRecord) -> None:
        """A page's news."""
        if self._hears:
            self._acting.take(record)

    def ask(self, model: str, at_s: float, fate: float, trouble: Mapping[str, float]) -> None:
        """One request for a model: bought, and bought again elsewhere when it fails.

        Parameters
        ----------
        fate : in 0..1, the same for both arms, decides what an attempt meets
        trouble : failure share by seller, for those in trouble now
        """
        self._publish(at_s)
        self.n_requests += 1
        request = BidRequest(
            tenant="t",
            task="replay",
            sla=Sla(),
            input_tokens=INPUT_TOKENS,
            max_output_tokens=OUTPUT_TOKENS,
            candidates=self._sellers[model],
        )
        view = self._book.view(int(at_s * 1e6), circuit_open=~self._circuits.may_send(at_s))
        decision = decide(view, request, self._params, int(fate * 2**53))
        for n, bid in enumerate(decision.ranked[:MOST_ATTEMPTS]):
            if self._attempt(bid.offer, at_s, fate, n, trouble):
                return
        self.n_unserved += 1

    def _attempt(
        self, offer: str, at_s: float, fate: float, n: int, trouble: Mapping[str, float]
    ) -> bool:
        seller = offer.partition("/")[0]
        share = trouble.get(seller, BASE_FAIL_SHARE)
        # Another number for every seller and try, the same in both arms.
        luck = (fate * 7919.0 + n * 0.6180339887 + hash_share(offer)) % 1.0
        failed = luck < share
        row = self._book.offers.row_of[offer]
        self._circuits.sent(row, at_s)
        self._circuits.record(
            row, "failure" if failed else "success", at_s + TOOK_S, sent_at_s=at_s
        )
        self._pending.append(
            Outcome(
                offer=offer,
                at_us=int((at_s + TOOK_S) * 1e6),
                failure=FailureClass.SERVER_ERROR if failed else FailureClass.OK,
            )
        )
        self.n_attempts += 1
        self.n_failed += failed and seller in trouble
        self.bought[seller] = self.bought.get(seller, 0) + (n == 0)
        if not failed:
            self.spent_nusd += self._prices[offer].cost_nusd(INPUT_TOKENS, OUTPUT_TOKENS)
        return not failed

    def _publish(self, at_s: float) -> None:
        """What has ended by now is folded and quoted, as the estimators' process does."""
        now_us = int(at_s * 1e6)
        ended = [o for o in self._pending if o.at_us <= now_us]
        self._pending = [o for o in self._pending if o.at_us > now_us]
        self._beliefs.fold(ended)
        self._acting.act(self._beliefs, now_us)
        self._beliefs.publish(now_us)


class _Beliefs:
    """The estimator of failures, as the estimators' process uses it, straight into a book."""

    def __init__(self, book: MarketBook, params: Params) -> None:
        self._book = book
        self._rows = book.offers.row_of
        self._reliability = ReliabilityEstimator(params.reliability)
        self._reliability.grow(len(book.offers))
        for row, model in enumerate(book.offers.model.tolist()):
            self._reliability.set_market(row, model)

    def report(self, offer: str, severity: str, chance: float, report_id: float) -> None:
        self._reliability.report(self._rows[offer], severity, chance, report_id)

    def fold(self, ended: Sequence[Outcome]) -> None:
        if ended:
            self._reliability.fold(OutcomeBatch.of(ended, [self._rows[o.offer] for o in ended]))

    def publish(self, now_us: int) -> None:
        found = self._reliability.quotes(now_us * 1e-6)
        for offer, row in self._rows.items():
            out = bool(found.ejected[row])
            self._book.apply_quote(
                Quote(
                    offer=offer,
                    at_us=now_us,
                    ttft_log_ms=6.0,
                    ttft_log_sd=0.3,
                    ttft_n=100.0,
                    tpot_log_ms=3.0,
                    tpot_log_sd=0.3,
                    tpot_n=100.0,
                    fail_share=found.fail_share.item(row),
                    fail_n=found.fail_n.item(row),
                    health="open" if out else "closed",
                    retry_at_us=max(int(found.retry_at_s[row] * 1e6), now_us + OUTLIER_US)
                    if out
                    else 0,
                )
            )


def hash_share(name: str) -> float:
    """A number in 0..1 that depends on the name alone (FNV-1a), the same in every process."""
    found = 0xCBF29CE484222325
    for byte in name.encode():
        found = ((found ^ byte) * 0x100000001B3) & (2**64 - 1)
    return (found >> 11) / float(1 << 53)
