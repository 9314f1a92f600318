"""Trials of params: in the shadow, where they only tell what they would buy, or as a canary, on a
stated share of requests.

Whether a request is in a trial is a pure function of the trial's version and the request's key
(its session's name, else its own id), so every worker and machine says the same without asking
anybody, and a conversation stays where it is. Another trial cuts traffic elsewhere, since its
version is part of what is hashed. Requests of a trial have an arm, by which their SLA classes
have prices of their own (`BidRequest.arm`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct

from bidding.params import PacingParams, Params
from bidding.request import ARM_MARK

TrialKind = Literal["shadow", "canary"]
MOST_PACE: Final = 10.0
"""Faster than this a price would answer to single requests."""
_LETTERS: Final[dict[TrialKind, str]] = {"shadow": "s", "canary": "v"}
_2_64: Final = float(2**64)
_ARM: Final = re.compile(rf"{ARM_MARK}([{''.join(_LETTERS.values())}][0-9]+)$")


class Trial(Struct, frozen=True, kw_only=True):
    """Params being tried.

    Attributes
    ----------
    share : float
        Of the requests concerned, in 0..1: bought under these params, or computed in the shadow.
    tenant : str
        Whose requests are concerned; empty for everybody's.
    until_us : int
        When it ends by itself, if nobody ends it before; 0: never.
    """

    kind: TrialKind
    params: Params
    share: float
    tenant: str = ""
    at_us: int = 0
    until_us: int = 0
    by: str = ""
    why: str = ""

    @property
    def arm(self) -> str:
        """Names the trial in requests, records and SLA classes."""
        return arm_of(self.kind, self.params.version)

    def takes(self, key: str, tenant: str, now_us: int) -> bool:
        """Whether the request of this key is part of the trial."""
        if self.until_us and now_us >= self.until_us:
            return False
        if self.tenant and tenant != self.tenant:
            return False
        return lot(f"{self.arm}:{key}") < self.share


class TrialPacing(Struct, frozen=True):
    """How the class prices of a trial move: its own numbers, `pace` times as fast, since each of
    its requests stands for so many if all were part of it.
    """

    params: PacingParams
    pace: float = 1.0


NO_TRIALS: Final[Mapping[str, TrialPacing]] = MappingProxyType({})


def pacing_of(trial: Trial | None) -> dict[str, TrialPacing]:
    """By arm, what the estimators need to know of a canary."""
    if trial is None:
        return {}
    pace = min(max(1.0 / max(trial.share, 1e-9), 1.0), MOST_PACE)
    return {trial.arm: TrialPacing(trial.params.pacing, pace)}


def arm_of(kind: TrialKind, version: int) -> str:
    """The arm of a trial of this version.

    Examples
    --------
    >>> arm_of("canary", 12)
    'v12'
    """
    return f"{_LETTERS[kind]}{version}"


def lot(key: str) -> float:
    """A number in 0..1 that is drawn once and for all for `key`, uniform over keys."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / _2_64


def class_and_arm(name: str) -> tuple[str, str]:
    """An SLA class's name without its arm, and the arm; empty where there is none.

    Examples
    --------
    >>> class_and_arm("acme|math|q0.95~v12")
    ('acme|math|q0.95', 'v12')
    """
    found = _ARM.search(name)
    return (name, "") if found is None else (name[: found.start()], found[1])
