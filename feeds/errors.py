"""Every error of facts on their way.

FeedError (MarketError)
├── BadRecord            cannot be read: to the dead letters, with its reason
│   └── UnknownVersion   of a later version than this build knows
├── FetchFailed          a feed's document was not to be had, and what was refused about it
├── LogUnavailable       the log does not answer: try again, the spool keeps what is owed
│   └── LogChanged       the log is a new one and holds nothing of the old: read it from its start
├── LogRefused           the log answers no, and will again: configuration
├── Unmakeable           a view cannot be made again: something it was made of is missing
├── SpoolFull            the spool dropped its oldest records; carries how many
├── SpoolBroken          the spool's disk fails: records are held in memory meanwhile
└── TooManyBad           a share of dead letters beyond reason: we are the fault, so stop
"""

from __future__ import annotations

from typing import Any

from bidding.errors import MarketError


class FeedError(MarketError):
    """Root of what can go wrong between a fact and its reader."""


class BadRecord(FeedError):
    """Bytes that are no record; the message is the reason kept with the dead letter."""


class UnknownVersion(BadRecord):
    """A record of a kind or version this build does not know."""


class Unmakeable(FeedError):
    """A view cannot be made again; the message names what is missing."""


class FetchFailed(FeedError):
    """A feed's document was not to be had; `refusal` is a kind of `feeds.fetch.Refusal`."""

    def __init__(self, refusal: Any, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class LogUnavailable(FeedError):
    """The log cannot be reached now; retrying may help."""


class LogChanged(LogUnavailable):
    """The log was replaced by the incarnation `log`: offsets of the old one mean nothing in it."""

    def __init__(self, log: str, *, was: str) -> None:
        super().__init__(f"the log is a new one, {log}, no longer {was}")
        self.log = log


class LogRefused(FeedError):
    """The log refuses the operation; retrying will not help."""


class SpoolFull(FeedError):
    """The spool is at its bound and dropped `n_dropped` of its oldest records."""

    def __init__(self, n_dropped: int) -> None:
        super().__init__(f"spool full: dropped the {n_dropped} oldest records")
        self.n_dropped = n_dropped


class SpoolBroken(FeedError):
    """The spool's file cannot be read or written now: full, gone, damaged or in use."""


class TooManyBad(FeedError):
    """So many records were unreadable that the reader must be at fault; it stops."""
