"""Every error the market raises, as one tree.

    MarketError
    ├── BadRequest          the buyer asked for something malformed; the message names the field
    ├── UnknownModel        no such model or offer; carries near names
    ├── NoEligibleOffer     nothing may or can serve this request; carries no-bid counts
    ├── BadState            a stored estimator state that cannot be resumed from
    ├── BadParams           a live-tunable number out of its bounds; carries them
    │   └── UnknownParam    no such number; carries near names
    └── BadCatalogue        offers, models or providers that contradict each other

Losing a bid is a value (`NoBid`), not an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class MarketError(Exception):
    """Root of all errors raised by this project's market."""


class BadRequest(MarketError):
    """The request cannot be priced. `path` names the field, `remedy` says what to change."""

    def __init__(self, message: str, *, path: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.remedy = remedy


class UnknownModel(MarketError):
    """No offer, model or task is called `name`; `near` holds the closest known names."""

    def __init__(self, name: str, near: Sequence[str]) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"unknown model {name!r}{hint}")
        self.name = name
        self.near = list(near)


class NoEligibleOffer(MarketError):
    """No offer can take the request. `no_bids` counts the turned away per reason; `needs` names
    the capabilities that it asks for.
    """

    def __init__(self, message: str, no_bids: Mapping[str, int], needs: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.no_bids = dict(no_bids)
        self.needs = list(needs)


class BadState(MarketError):
    """A stored state is of another version or shape; start this series afresh."""


class BadParams(MarketError):
    """A parameter is unknown or out of bounds; `path` names it, `low` and `high` bound it."""

    def __init__(
        self, message: str, *, path: str = "", low: float | None = None, high: float | None = None
    ) -> None:
        super().__init__(message)
        self.path = path
        self.low = low
        self.high = high


class UnknownParam(BadParams):
    """No live-tunable number has this path; `near` holds the closest known ones."""

    def __init__(self, path: str, near: Sequence[str]) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"no parameter {path!r}{hint}", path=path)
        self.near = list(near)


class BadCatalogue(MarketError):
    """The catalogue is inconsistent; `faults` lists everything wrong with it at once."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)
