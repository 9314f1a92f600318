"""Every error of facts being kept and asked.

StoreError (MarketError)
├── StoreUnavailable     the store does not answer, or is too full or too busy now: try again
├── StoreRejected        the store answers no, and will again; carries its code
├── StoreDiffers         what the store holds is not what we wrote: stop, a person must look
├── BadMigrations        files or the store's history have gaps, changes, or are newer than we
├── NotStored            a decision's view or params are not in the store, yet or any more
├── UnknownReport        no such report; carries near names
└── BadParameter         a report's parameter is missing, unknown or of another type

EmbeddingUnavailable (MarketError)   no weights to make prompt features from

The recorder retries `StoreUnavailable` and stops at every other one; it never skips a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from bidding.errors import MarketError


class StoreError(MarketError):
    """Root of what can go wrong between a fact and the analyst."""


class StoreUnavailable(StoreError):
    """The store cannot take or answer this now; retrying may help."""


class StoreRejected(StoreError):
    """The store refuses this and will again. `code` and `name` are ClickHouse's, if it said."""

    def __init__(self, message: str, *, code: int | None = None, name: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.name = name


class StoreDiffers(StoreError):
    """The store holds other rows than were acknowledged; writing on would hide it."""


class BadMigrations(StoreError):
    """The schema's history cannot be continued; the message says which number and why."""


class NotStored(StoreError):
    """What a decision was made of cannot be found; a moment later it may be there."""


class UnknownReport(StoreError):
    """No report is called `name`; `near` holds the closest known names."""

    def __init__(self, name: str, near: Sequence[str]) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"unknown report {name!r}{hint}")
        self.name = name
        self.near = list(near)


class BadParameter(StoreError):
    """A report's parameter `parameter` cannot be used; the message says what it should be."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


class EmbeddingUnavailable(MarketError):
    """The weights behind prompt features are not installed; go on without features."""
