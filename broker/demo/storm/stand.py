"""Where a storm takes place: a gateway and the paper market behind it, over HTTP alone.

Each break has three sellers of its own, so that none comes with a bad name from the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from bidding.market import Catalogue
from broker.paper.faults import FaultPatch, FaultSpec

_INPUT_TOKENS = 3_600
_OUTPUT_TOKENS = 150
_CLEARLY = 1.15


class Trio(NamedTuple):
    """Three sellers of one model, the cheapest first."""

    model: str
    providers: tuple[str, ...]


def trios(catalogue: Catalogue, models: Sequence[str]) -> Iterator[Trio]:
    """Trios in each of which another offer is clearly the cheapest for what the storm asks."""
    for model in models:
        cost = {
            o.provider: o.prices.cost_nusd(_INPUT_TOKENS, _OUTPUT_TOKENS)
            for o in catalogue.offers
            if o.model == model and o.region is None
        }
        names = sorted(cost, key=lambda p: cost[p])
        for i in range(len(names) - 2):
            dearer = [p for p in names[i + 1 :] if cost[p] >= _CLEARLY * cost[names[i]]]
            if len(dearer) >= 2:
                yield Trio(model, (names[i], *dearer[:2]))


class Stand:
    """The market under storm.

    Parameters
    ----------
    url, key : the gateway's, and an app's key
    control_url : the paper market's control port
    model, providers : what is bought, and of whom
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        *,
        url: str,
        key: str,
        control_url: str,
        model: str,
        providers: Sequence[str],
    ) -> None:
        self.http = http
        self.url = url
        self.model = model
        self.providers = tuple(providers)
        self.headers = {"Authorization": f"Bearer {key}"}
        self._key = key
        self._control_url = control_url

    def among(self, trio: Trio) -> Self:
        """The same market with other sellers."""
        return type(self)(
            self.http,
            url=self.url,
            key=self._key,
            control_url=self._control_url,
            model=trio.model,
            providers=trio.providers,
        )

    def offer(self, provider: str) -> str:
        """The provider's offer of the model."""
        return f"{provider}/{self.model}"

    async def market(self) -> dict[str, dict[str, Any]]:
        """The offers on sale to us, by provider."""
        async with self.http.get(f"{self.url}/v1/market", headers=self.headers) as response:
            body = await response.json()
        wanted = {self.offer(p): p for p in self.providers}
        return {wanted[o["offer"]]: o for o in body["data"] if o["offer"] in wanted}

    @property
    def cheapest(self) -> str:
        """Who asks the least."""
        return self.providers[0]

    async def health(self, provider: str) -> str:
        """How the gateway sees a seller now."""
        return str((await self.market())[provider]["health"])

    async def attempts(self) -> dict[tuple[str, str], int]:
        """The gateway's count of attempts that have ended, by provider and failure class."""
        return await self._counted("broker_attempts")

    async def n_probes(self, provider: str) -> int:
        """The gateway's own tries of a seller so far, which are among its attempts."""
        counted = await self._counted("broker_probes")
        return sum(n for (who, _), n in counted.items() if who == provider)

    async def _counted(self, metric: str) -> dict[tuple[str, str], int]:
        async with self.http.get(f"{self.url}/metrics") as response:
            text = await response.text()
        wanted = {self.offer(p): p for p in self.providers}
        found: dict[tuple[str, str], int] = {}
        for family in text_string_to_metric_families(text):
            if family.name != metric:
                continue
            for sample in family.samples:
                provider = wanted.get(sample.labels.get("offer", ""))
                if provider is not None and sample.name == f"{metric}_total":
                    found[provider, sample.labels["failure"]] = round(sample.value)
        return found

    async def n_lost_at(self, decisions: Sequence[str], provider: str) -> int:
        """How many of these requests were sent to a seller in vain, from their autopsies."""
        offer, n_lost = self.offer(provider), 0
        for decision in decisions:
            url = f"{self.url}/v1/decisions/{decision}"
            async with self.http.get(url, headers=self.headers) as response:
                told = await response.json()
            vain = [a for a in told["attempts"] if a["offer"] == offer and a["failure"] != "ok"]
            n_lost += bool(vain)
        return n_lost

    async def set_faults(self, provider: str, faults: list[FaultSpec]) -> None:
        """Make `faults` all that is wrong with a seller."""
        body = msgspec.json.encode(FaultPatch(faults=faults))
        url = f"{self._control_url}/control/sellers/{provider}"
        async with self.http.patch(url, data=body) as response:
            response.raise_for_status()

    async def calls(self, provider: str, after: int = -1) -> list[dict[str, Any]]:
        """The seller's own book of calls."""
        url = f"{self._control_url}/control/ledger/{provider}/calls?after={after}&limit=100000"
        async with self.http.get(url) as response:
            found: list[dict[str, Any]] = await response.json()
        return found
