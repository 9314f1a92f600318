"""The control port: what is on at each seller, their books, their incidents, their pages.

    GET   /control/sellers                          everything that is on
    GET   /control/sellers/{provider}[/{model}]     faults on there
    PATCH /control/sellers/{provider}[/{model}]     FaultPatch: {"faults": [...]} replaces,
                                                    {"add": [...]}, {"clear": [...]}
    POST  /control/sellers/{provider}/incidents     IncidentSpec -> {"id": ...}
    PATCH /control/sellers/{provider}/incidents/{i} IncidentPatch
    GET   /control/ledger                           totals by provider
    GET   /control/ledger/{provider}                totals by offer
    GET   /control/ledger/{provider}/calls?after=N  calls one by one
    GET   /catalogue.json                           the catalogue with the real ports
    GET   /status/{provider}.json                   status page, hosted apart from the seller
    GET   /status/{provider}/api/v2/summary.json    the same, where Statuspage has it
    GET   /status/{provider}/api/v2/incidents.json  its newest incidents, over or not
    GET   /status/{provider}/history.atom, .rss     the same as feeds
    GET   /history/{provider}/…                     all four, of a real provider's past
    GET   /healthz

`{model}` is a canonical model (all its regions) or `model@region`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp import web

from bidding.market import Catalogue
from broker.paper.conditional import unless_known
from broker.paper.errors import BadControl
from broker.paper.faults import FaultPatch
from broker.paper.seller import Seller
from broker.paper.status import IncidentPatch, IncidentSpec
from broker.paper.status_history import StatusHistory


class Controlled(Protocol):
    """What the control port controls."""

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def sellers(self) -> Mapping[str, Seller]: ...

    @property
    def status_history(self) -> StatusHistory | None: ...

    async def patch(self, provider: str, patch: FaultPatch, model: str | None = None) -> None: ...


def control_app(market: Controlled, clock: Callable[[], float]) -> web.Application:
    """The control port's application."""
    app = web.Application(middlewares=[_refuse_politely])
    routes = _Routes(market, clock)
    app.add_routes(
        [
            web.get("/healthz", routes.healthz),
            web.get("/catalogue.json", routes.catalogue),
            web.get("/status/{provider}.json", routes.status),
            web.get("/{kind:status|history}/{provider}/{shape:.*}", routes.status),
            web.get("/control/sellers", routes.sellers),
            web.post("/control/sellers/{provider}/incidents", routes.open_incident),
            web.patch("/control/sellers/{provider}/incidents/{incident}", routes.update_incident),
            web.get("/control/sellers/{provider}", routes.faults),
            web.patch("/control/sellers/{provider}", routes.patch),
            web.get("/control/sellers/{provider}/{model}", routes.faults),
            web.patch("/control/sellers/{provider}/{model}", routes.patch),
            web.get("/control/ledger", routes.ledger),
            web.get("/control/ledger/{provider}", routes.ledger_of),
            web.get("/control/ledger/{provider}/calls", routes.calls),
        ]
    )
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _refuse_politely(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (BadControl, msgspec.DecodeError, ValueError) as error:
        return _json({"error": str(error)}, status=400)


class _Routes:
    def __init__(self, market: Controlled, clock: Callable[[], float]) -> None:
        self._market = market
        self._clock = clock

    def _seller(self, request: web.Request) -> Seller:
        name = request.match_info["provider"]
        seller = self._market.sellers.get(name)
        if seller is None:
            raise BadControl(f"no provider {name!r}; there are {list(self._market.sellers)}")
        return seller

    async def healthz(self, request: web.Request) -> web.Response:
        return _json({"ok": True})

    async def catalogue(self, request: web.Request) -> web.Response:
        return _json(self._market.catalogue)

    async def status(self, request: web.Request) -> web.Response:
        name, shape = request.match_info["provider"], request.match_info.get("shape", "")
        history = self._market.status_history
        if request.match_info.get("kind") == "history":
            if history is None:
                raise BadControl("no history of incidents was given to this market")
            page = history.page(name, self._clock())
        else:
            page = self._seller(request).status.now()
        url = str(request.url).removesuffix(shape).rstrip("/")
        encode = msgspec.json.encode
        bodies: dict[str, Callable[[], tuple[bytes, str]]] = {
            "": lambda: (encode(page.summary()), "application/json"),
            "api/v2/summary.json": lambda: (encode(page.summary()), "application/json"),
            "api/v2/incidents.json": lambda: (encode(page.incidents()), "application/json"),
            "history.atom": lambda: (page.atom(url), "application/atom+xml"),
            "history.rss": lambda: (page.rss(url), "application/rss+xml"),
        }
        if shape not in bodies:
            raise BadControl(f"no {shape!r} on a status page; there are {list(bodies)[1:]}")
        return unless_known(request, *bodies[shape]())

    async def sellers(self, request: web.Request) -> web.Response:
        return _json({name: s.board.all() for name, s in self._market.sellers.items()})

    async def faults(self, request: web.Request) -> web.Response:
        seller = self._seller(request)
        model = request.match_info.get("model")
        if model is None:
            return _json({"provider": seller.provider.id, "faults": seller.board.all()})
        offers = offers_named(seller, model)
        on = {offer: list(seller.board.of(offer).values()) for offer in offers}
        return _json({"provider": seller.provider.id, "faults": on})

    async def patch(self, request: web.Request) -> web.Response:
        patch = msgspec.json.decode(await request.read(), type=FaultPatch)
        seller = self._seller(request)
        await self._market.patch(seller.provider.id, patch, request.match_info.get("model"))
        return await self.faults(request)

    async def open_incident(self, request: web.Request) -> web.Response:
        spec = msgspec.json.decode(await request.read(), type=IncidentSpec)
        return _json({"id": self._seller(request).status.open(spec, self._clock())}, status=201)

    async def update_incident(self, request: web.Request) -> web.Response:
        patch = msgspec.json.decode(await request.read(), type=IncidentPatch)
        page = self._seller(request).status
        page.update(request.match_info["incident"], patch, self._clock())
        return _json(page.summary())

    async def ledger(self, request: web.Request) -> web.Response:
        return _json({name: s.ledger.totals for name, s in self._market.sellers.items()})

    async def ledger_of(self, request: web.Request) -> web.Response:
        ledger = self._seller(request).ledger
        return _json({"totals": ledger.totals, "offers": ledger.by_offer})

    async def calls(self, request: web.Request) -> web.Response:
        after, limit = request.query.get("after", "-1"), request.query.get("limit", "1000")
        return _json(self._seller(request).ledger.calls(int(after), int(limit)))


def offers_named(seller: Seller, model: str) -> list[str]:
    """Offer ids that `model` (canonical, with or without a region) means at `seller`."""
    wanted = f"{seller.provider.id}/{model}"
    found = [o.id for o in seller.offers if o.id == wanted]
    found = found or [o.id for o in seller.offers if o.model == model]
    if not found:
        sold = sorted({o.model for o in seller.offers})
        raise BadControl(f"{seller.provider.id} does not sell {model!r}; it sells {sold}")
    return found


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )
