"""Errors of the replay.

ReplayError             root
├── DatasetMissing      a file the question needs is not under the data folder
├── UnknownPolicy       a policy was asked for that is not on the roster
└── DatasetMalformed    a file is there but not of the layout README.md states
"""

from __future__ import annotations

from bidding.errors import MarketError


class ReplayError(MarketError):
    """Root of what a replay raises."""


class DatasetMissing(ReplayError):
    """`what` was asked for and is not under the folder searched; the message lists what is."""


class DatasetMalformed(ReplayError):
    """A data file lacks a column or holds a value that cannot be read; names file and row."""


class UnknownPolicy(ReplayError):
    """No policy of that name plays in this market; the message lists those that do."""
