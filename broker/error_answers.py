"""The one table: which error becomes which answer, log level and advice.

Every error that can reach a client is listed in `TABLE`, most specific first; what is not
listed is our own fault and becomes a 500 without detail. A client always gets OpenAI's error
shape with a cause and a remedy.
"""

from __future__ import annotations

import logging
from typing import Any

from msgspec import Struct

from analytics.errors import (
    BadParameter,
    NotStored,
    StoreRejected,
    StoreUnavailable,
    UnknownReport,
)
from bidding.errors import (
    BadParams,
    BadRequest,
    MarketError,
    NoEligibleOffer,
    UnknownModel,
    UnknownParam,
)
from bidding.units import usd_from_nusd
from broker.errors import (
    BodyTooLarge,
    BudgetSpent,
    CheckFailed,
    DeadlineExceeded,
    ModelNotAllowed,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotReady,
    ParamsConflict,
    ParamsNotRecorded,
    RateLimited,
    SellersFailed,
    Shed,
    StatedBudgetSpent,
    TrialConflict,
)
from broker.shared_state import StateUnavailable


class Answer(Struct, frozen=True, kw_only=True):
    """How one kind of error is answered and logged."""

    status: int
    type: str
    code: str
    remedy: str
    level: int = logging.INFO


TABLE: tuple[tuple[type[MarketError], Answer], ...] = (
    (
        NotAuthenticated,
        Answer(
            status=401,
            type="authentication_error",
            code="invalid_api_key",
            remedy="send `Authorization: Bearer <key>` with a key of this broker",
        ),
    ),
    (
        NotAllowed,
        Answer(
            status=403,
            type="permission_error",
            code="missing_scope",
            remedy="use a key that has the scope this route asks for",
        ),
    ),
    (
        ModelNotAllowed,
        Answer(
            status=403,
            type="permission_error",
            code="model_not_allowed",
            remedy="name a model this key may use; GET /v1/models lists them",
        ),
    ),
    (
        NotFound,
        Answer(
            status=404,
            type="invalid_request_error",
            code="not_found",
            remedy="check the id; a decision is visible to the tenant that made it",
        ),
    ),
    (
        UnknownModel,
        Answer(
            status=404,
            type="invalid_request_error",
            code="model_not_found",
            remedy="GET /v1/models lists the models and offers on this market",
        ),
    ),
    (
        BodyTooLarge,
        Answer(
            status=413,
            type="invalid_request_error",
            code="body_too_large",
            remedy="send a smaller request",
        ),
    ),
    (
        BadRequest,
        Answer(
            status=400,
            type="invalid_request_error",
            code="invalid_value",
            remedy="correct the field that `param` names",
        ),
    ),
    (
        UnknownParam,
        Answer(
            status=422,
            type="invalid_request_error",
            code="unknown_param",
            remedy="GET /admin/params lists every parameter",
        ),
    ),
    (
        ParamsConflict,
        Answer(
            status=409,
            type="invalid_request_error",
            code="version_conflict",
            remedy="read the params again, look at what has changed, and send `if_version` anew",
        ),
    ),
    (
        TrialConflict,
        Answer(
            status=409,
            type="invalid_request_error",
            code="trial_conflict",
            remedy="GET /admin/params/trials tells what runs; promote, abort or stop it first",
        ),
    ),
    (
        ParamsNotRecorded,
        Answer(
            status=503,
            type="server_error",
            code="params_not_recorded",
            remedy="GET /admin/params tells whether it is in force; then try again",
            level=logging.WARNING,
        ),
    ),
    (
        BadParams,
        Answer(
            status=422,
            type="invalid_request_error",
            code="out_of_bounds",
            remedy="keep the parameter within its bounds",
        ),
    ),
    (
        NoEligibleOffer,
        Answer(
            status=422,
            type="invalid_request_error",
            code="no_eligible_offer",
            remedy='relax the rule that turned most away, or set sla.on_miss to "best_effort"',
        ),
    ),
    (
        CheckFailed,
        Answer(
            status=422,
            type="invalid_request_error",
            code="check_failed",
            remedy='relax the check, allow more answers, or set sla.verify.on_fail to "return"',
        ),
    ),
    (
        RateLimited,
        Answer(
            status=429,
            type="rate_limit_error",
            code="rate_limit_exceeded",
            remedy="retry after the time in the Retry-After header",
        ),
    ),
    (
        StatedBudgetSpent,
        Answer(
            status=429,
            type="insufficient_quota",
            code="stated_budget_spent",
            remedy="wait for the next period, ask for a cheaper answer, or state more in "
            "sla.budget.usd",
        ),
    ),
    (
        BudgetSpent,
        Answer(
            status=429,
            type="insufficient_quota",
            code="insufficient_quota",
            remedy="wait for the next period, ask for a cheaper answer, or have the budget raised",
        ),
    ),
    (
        Shed,
        Answer(
            status=429,
            type="rate_limit_error",
            code="shed",
            remedy="retry after the time in the Retry-After header",
        ),
    ),
    (
        DeadlineExceeded,
        Answer(
            status=504,
            type="timeout_error",
            code="deadline_exceeded",
            remedy="allow more time in sla.latency_ms, or less output in max_tokens",
            level=logging.WARNING,
        ),
    ),
    (
        SellersFailed,
        Answer(
            status=503,
            type="server_error",
            code="sellers_failed",
            remedy="retry after the time in the Retry-After header",
            level=logging.WARNING,
        ),
    ),
    (
        StateUnavailable,
        Answer(
            status=503,
            type="server_error",
            code="limits_unknown",
            remedy="retry shortly; a key with a budget is not served while its spend is not known",
            level=logging.WARNING,
        ),
    ),
    (
        NotStored,
        Answer(
            status=503,
            type="server_error",
            code="not_stored",
            remedy="retry in a few seconds; history older than its keeping time is gone",
        ),
    ),
    (
        UnknownReport,
        Answer(
            status=404,
            type="invalid_request_error",
            code="unknown_report",
            remedy="GET /v1/reports lists the reports",
        ),
    ),
    (
        BadParameter,
        Answer(
            status=400,
            type="invalid_request_error",
            code="invalid_value",
            remedy="GET /v1/reports lists each report's parameters and their types",
        ),
    ),
    (
        StoreUnavailable,
        Answer(
            status=503,
            type="server_error",
            code="history_unavailable",
            remedy="retry later; requests are served and recorded all the same",
            level=logging.WARNING,
        ),
    ),
    (
        StoreRejected,
        Answer(
            status=422,
            type="invalid_request_error",
            code="query_refused",
            remedy="ask for a shorter period",
            level=logging.WARNING,
        ),
    ),
    (
        NotReady,
        Answer(
            status=503,
            type="server_error",
            code="not_ready",
            remedy="wait until /readyz answers 200",
        ),
    ),
)

OUR_FAULT = Answer(
    status=500,
    type="server_error",
    code="internal_error",
    remedy="retry; if it persists, report the decision id",
    level=logging.ERROR,
)


def answer_for(error: BaseException) -> Answer:
    """The table's answer for `error`."""
    for kind, answer in TABLE:
        if isinstance(error, kind):
            return answer
    return OUR_FAULT


def body_for(error: BaseException, **extra: Any) -> dict[str, Any]:
    """The error as OpenAI's JSON shape, with our `remedy` and what the error carries."""
    answer = answer_for(error)
    param: str | None = None
    remedy = answer.remedy
    message = str(error) if isinstance(error, MarketError) else "internal error"
    if isinstance(error, BadRequest):
        param = error.path or None
        remedy = error.remedy or remedy
    elif isinstance(error, UnknownParam):
        param = error.path
        extra["near"] = error.near
    elif isinstance(error, BadParams):
        param = error.path or None
        if error.low is not None or error.high is not None:
            extra["bounds"] = [error.low, error.high]
    elif isinstance(error, ParamsConflict):
        param = "if_version"
        extra["version"] = error.version
    elif isinstance(error, TrialConflict):
        extra["version"] = error.version
    elif isinstance(error, BadParameter):
        param = error.parameter
    elif isinstance(error, UnknownModel):
        param = "model"
        extra["near"] = error.near
    elif isinstance(error, NoEligibleOffer):
        extra["no_bids"] = error.no_bids
        extra["needs"] = error.needs
    elif isinstance(error, BudgetSpent):
        param = "sla.budget" if isinstance(error, StatedBudgetSpent) else None
        extra["left_usd"] = usd_from_nusd(error.left_nusd)
        extra["decision_id"] = error.decision_id
    elif isinstance(error, SellersFailed):
        extra["attempts"] = [{"offer": o, "failure": f} for o, f in error.ends]
    elif isinstance(error, CheckFailed):
        extra["answers"] = [{"offer": o, "check": c} for o, c in error.ends]
        extra["decision_id"] = error.decision_id
        extra["spent_usd"] = error.spent_usd
    detail = {
        "message": message,
        "type": answer.type,
        "param": param,
        "code": answer.code,
        "remedy": remedy,
    }
    return {"error": {**detail, **extra}}
