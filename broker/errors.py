"""What a gateway answers instead of an answer, as types; `error_answers` says how each is told.

Losing a bid is a value and not listed here.

    GatewayError (MarketError)
    ├── NotAuthenticated     no key or a wrong one
    ├── NotAllowed           the key lacks the scope
    ├── NotFound             no such decision, for this tenant
    ├── BodyTooLarge
    ├── ModelNotAllowed      the key may not buy what the request names
    ├── Shed                 we are full; carries when to come back
    │   ├── RateLimited      the key has used up its requests or tokens of this minute
    │   └── BudgetSpent      the key has used up its money of this day or month
    │       └── StatedBudgetSpent  the budget that the request states (`sla.budget`) is used up
    ├── SellersFailed        every ranked seller was tried in vain; carries the attempts' ends
    ├── CheckFailed          every answer failed the check the app asked for; carries which
    ├── DeadlineExceeded     the deadline passed before an answer
    ├── ParamsConflict       the params are of another version than the change was made for
    ├── TrialConflict        a trial of params runs that is in the way, or none runs
    ├── ParamsNotRecorded    the log did not take a change of the params, or did not say so
    └── NotReady             the market has not been heard of yet
"""

from __future__ import annotations

from collections.abc import Sequence

from bidding.errors import MarketError
from broker.shared_state import Cap


class GatewayError(MarketError):
    """Root of what a gateway answers instead of an answer."""


class NotAuthenticated(GatewayError):
    """No API key, or one that is unknown, revoked or expired."""


class NotAllowed(GatewayError):
    """The key is good but lacks the scope that the route asks for."""


class ModelNotAllowed(GatewayError):
    """The key may not buy any of the models that the request names."""


class NotFound(GatewayError):
    """Nothing of that id that this key may see."""


class BodyTooLarge(GatewayError):
    """The body is over the route's limit."""


class Shed(GatewayError):
    """Too many requests are under way; `retry_after_s` says when to come back."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(Shed):
    """The key is over its limit of requests or tokens a minute."""


class BudgetSpent(Shed):
    """What is left of the key's budget does not pay for this request. `budget` is which, with
    `left_nusd` beside what is set aside; `decision_id` is the request that was refused.
    """

    def __init__(
        self, message: str, retry_after_s: float, *, budget: Cap | None = None, left_nusd: int = 0
    ) -> None:
        super().__init__(message, retry_after_s)
        self.budget = budget
        self.left_nusd = left_nusd
        self.decision_id = ""


class StatedBudgetSpent(BudgetSpent):
    """What is left of the budget that the request itself states does not pay for it."""


class SellersFailed(GatewayError):
    """Every seller tried has failed. `ends` names each attempt's offer and failure class."""

    def __init__(self, ends: Sequence[tuple[str, str]], retry_after_s: float = 1.0) -> None:
        tried = ", ".join(f"{offer}: {failure}" for offer, failure in ends) or "none could be tried"
        super().__init__(f"no seller delivered ({tried})")
        self.ends = list(ends)
        self.retry_after_s = retry_after_s


class CheckFailed(GatewayError):
    """No answer passed the checks of `sla.verify`; `ends` are (offer, check that it failed)."""

    def __init__(
        self, ends: list[tuple[str, str]], *, decision_id: str = "", spent_usd: float = 0.0
    ) -> None:
        tried = ", ".join(f"{offer}: {check}" for offer, check in ends)
        super().__init__(f"no answer passed its check ({tried})")
        self.ends = ends
        self.decision_id = decision_id
        self.spent_usd = spent_usd


class DeadlineExceeded(GatewayError):
    """The request's deadline passed before any seller answered."""


class ParamsConflict(GatewayError):
    """The params moved on; `version` is the one in force."""

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


class TrialConflict(GatewayError):
    """A trial of params is in the way of what was asked, or there is none; `version` is its own."""

    def __init__(self, message: str, version: int | None = None) -> None:
        super().__init__(message)
        self.version = version


class ParamsNotRecorded(GatewayError):
    """A change of the params is not known to be on the log."""


class NotReady(GatewayError):
    """This gateway has not caught up with the market yet."""
