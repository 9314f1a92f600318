"""What a seller's refusal means: status, code, type and phrase to `FailureClass`, as tables.

The most specific word wins: first a code or type that can mean one thing only, then a phrase
of the message (vendors hide "prompt is too long" behind a general `invalid_request_error`),
then a general type, then the status. An error inside a 200, or inside a stream, goes the same
way without a status. What is kept of an error is its status and code, never its free text:
sellers quote prompts and keys in it.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from bidding.outcome import FailureClass as F
from broker.providers.quirks import Quirks
from broker.wire.json_guard import MAX_DEPTH, json_depth
from broker.wire.neutral import Failed

MAX_ERROR_BYTES = 64 * 1024
MAX_RETRY_AFTER_S = 3600.0
MAX_MESSAGE_CHARS = 500

CODES: dict[str, F] = {
    "context_length_exceeded": F.CONTEXT_TOO_LONG,
    "context_window_exceeded": F.CONTEXT_TOO_LONG,
    "string_above_max_length": F.CONTEXT_TOO_LONG,
    "request_too_large": F.CONTEXT_TOO_LONG,
    "max_tokens_exceeded": F.CONTEXT_TOO_LONG,
    "insufficient_quota": F.QUOTA,
    "billing_hard_limit_reached": F.QUOTA,
    "billing_not_active": F.QUOTA,
    "billing_error": F.QUOTA,
    "account_deactivated": F.AUTH,
    "insufficient_balance": F.QUOTA,
    "payment_required": F.QUOTA,
    "servicequotaexceededexception": F.QUOTA,
    "rate_limit_exceeded": F.RATE_LIMITED,
    "rate_limit_error": F.RATE_LIMITED,
    "rate_limit_reached": F.RATE_LIMITED,
    "rate_limited": F.RATE_LIMITED,
    "too_many_requests": F.RATE_LIMITED,
    "tokens": F.RATE_LIMITED,
    "requests": F.RATE_LIMITED,
    "resource_exhausted": F.RATE_LIMITED,
    "throttlingexception": F.RATE_LIMITED,
    "overloaded_error": F.OVERLOADED,
    "overloaded": F.OVERLOADED,
    "engine_overloaded": F.OVERLOADED,
    "engine_overloaded_error": F.OVERLOADED,
    "capacity_exceeded": F.OVERLOADED,
    "modelnotreadyexception": F.OVERLOADED,
    "serviceunavailableexception": F.OVERLOADED,
    "slow_down": F.OVERLOADED,
    "unavailable": F.OVERLOADED,
    "queue_exceeded": F.OVERLOADED,
    "model_not_found": F.MODEL_MISSING,
    "model_not_available": F.MODEL_MISSING,
    "model_decommissioned": F.MODEL_MISSING,
    "deploymentnotfound": F.MODEL_MISSING,
    "not_found_error": F.MODEL_MISSING,
    "resourcenotfoundexception": F.MODEL_MISSING,
    "invalid_api_key": F.AUTH,
    "incorrect_api_key": F.AUTH,
    "authentication_error": F.AUTH,
    "permission_error": F.AUTH,
    "permission_denied": F.AUTH,
    "unauthenticated": F.AUTH,
    "accessdeniedexception": F.AUTH,
    "unrecognizedclientexception": F.AUTH,
    "content_filter": F.REFUSED,
    "content_policy_violation": F.REFUSED,
    "content_management_policy": F.REFUSED,
    "data_inspection_failed": F.REFUSED,
    "responsibleaipolicyviolation": F.REFUSED,
    "unsupported_parameter": F.REFUSED,
    "unsupported_value": F.REFUSED,
    "unsupported_country_region_territory": F.AUTH,
    "api_key_invalid": F.AUTH,
    "access_token_expired": F.AUTH,
    "consumer_suspended": F.AUTH,
    "internalserverexception": F.SERVER_ERROR,
    "modelerrorexception": F.SERVER_ERROR,
    "modeltimeoutexception": F.SERVER_ERROR,
    "modelstreamerrorexception": F.SERVER_ERROR,
}
"""Codes and types (lower case) that mean one thing whatever the status."""

PHRASES: tuple[tuple[re.Pattern[str], F], ...] = tuple(
    (re.compile(pattern), failure)
    for pattern, failure in (
        (r"maximum context length|context (?:window|length|limit)", F.CONTEXT_TOO_LONG),
        (r"(?:prompt|input|request)(?: is| was)? too (?:long|large)", F.CONTEXT_TOO_LONG),
        (r"too many (?:input )?tokens|input token count .{0,40}exceeds", F.CONTEXT_TOO_LONG),
        (r"reduce the length of the (?:messages|prompt)", F.CONTEXT_TOO_LONG),
        (r"exceeded your current quota|credit balance|insufficient (?:credit|balance)", F.QUOTA),
        (r"billing|payment required|out of credits", F.QUOTA),
        (r"rate.?limit|too many requests|throttl", F.RATE_LIMITED),
        (r"overloaded|over capacity|at capacity|no capacity|slow down", F.OVERLOADED),
        (
            r"currently loading|is loading|no healthy upstream|no available (?:server|worker)",
            F.OVERLOADED,
        ),
        (
            r"model .{0,120}(?:does not exist|not found|decommissioned|is not available)",
            F.MODEL_MISSING,
        ),
        (r"no such model|unknown model|invalid model", F.MODEL_MISSING),
        (r"model identifier is invalid|on-demand throughput isn.t supported", F.MODEL_MISSING),
        (r"(?:invalid|incorrect|missing|expired|no) (?:api|x-api)[ -]?key", F.AUTH),
        (r"content (?:management )?policy|content filter|safety (?:system|filter)", F.REFUSED),
        (r"(?:parameter|argument|field|feature|value).{0,80}not supported", F.REFUSED),
        (r"unsupported (?:parameter|argument|value)|unrecognized request argument", F.REFUSED),
        (r"user location is not supported", F.AUTH),
    )
)
"""Phrases of a message, lower case, in order of precedence."""

TYPES: dict[str, F] = {
    "invalid_request_error": F.BAD_REQUEST,
    "invalid_argument": F.BAD_REQUEST,
    "failed_precondition": F.BAD_REQUEST,
    "validationexception": F.BAD_REQUEST,
    "bad_request": F.BAD_REQUEST,
    "api_error": F.SERVER_ERROR,
    "server_error": F.SERVER_ERROR,
    "internal_server_error": F.SERVER_ERROR,
    "internal": F.SERVER_ERROR,
    "timeout_error": F.SERVER_ERROR,
    "deadline_exceeded": F.SERVER_ERROR,
}
"""General types: they decide only when no phrase does."""

STATUSES: dict[int, F] = {
    400: F.BAD_REQUEST,
    401: F.AUTH,
    402: F.QUOTA,
    403: F.AUTH,
    404: F.MODEL_MISSING,
    405: F.MODEL_MISSING,
    408: F.SERVER_ERROR,
    409: F.SERVER_ERROR,
    410: F.MODEL_MISSING,
    413: F.CONTEXT_TOO_LONG,
    415: F.BAD_REQUEST,
    422: F.BAD_REQUEST,
    424: F.SERVER_ERROR,
    425: F.OVERLOADED,
    429: F.RATE_LIMITED,
    498: F.OVERLOADED,
    503: F.SERVER_ERROR,
    529: F.OVERLOADED,
}
"""The status alone. A bare 503 may be anything; only words make it capacity."""

_CODE = re.compile(r"[^A-Za-z0-9_.-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class SellerError(NamedTuple):
    """The error in a body, as far as it could be read."""

    code: str = ""
    kind: str = ""
    message: str = ""
    status: int = 0
    retry_s: float | None = None


def read_error(body: bytes) -> SellerError:
    """The error in `body`, whatever vendor's shape; empty when it holds none."""
    if len(body) > MAX_ERROR_BYTES or json_depth(body) > MAX_DEPTH:
        return SellerError()
    try:
        return error_from(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return SellerError()


def error_from(value: Any) -> SellerError:
    """The error in a decoded body: OpenAI, Anthropic, Google, AWS, Cohere, FastAPI shapes."""
    if isinstance(value, list) and value:
        return error_from(value[0])
    if isinstance(value, str):
        return SellerError(message=value)
    if not isinstance(value, dict):
        return SellerError()
    inner = value.get("error", value.get("errors"))
    if inner is not None and inner is not value:
        found = error_from(inner)
        if not found.message and isinstance(value.get("message"), str):
            found = found._replace(message=value["message"])
        return found
    code = value.get("code")
    kind = value.get("type") or value.get("__type") or value.get("status")
    message = value.get("message", value.get("detail", value.get("Message")))
    if isinstance(message, list) and message and isinstance(message[0], dict):
        message = message[0].get("msg")
    reason, retry_s = _google_details(value.get("details"))
    code = reason or code
    status = code if isinstance(code, int) and 400 <= code < 600 else 0
    if isinstance(code, int) and not status:
        code = str(code)
    return SellerError(
        code=code if isinstance(code, str) else "",
        kind=kind if isinstance(kind, str) else "",
        message=message if isinstance(message, str) else "",
        status=status,
        retry_s=retry_s,
    )


def _google_details(details: Any) -> tuple[str, float | None]:
    """`ErrorInfo.reason` and `RetryInfo.retryDelay` of a Google error (google.rpc)."""
    reason, retry_s = "", None
    for detail in details if isinstance(details, list) else ():
        kind = detail.get("@type") if isinstance(detail, dict) else None
        if not isinstance(kind, str):
            continue
        if kind.endswith(".ErrorInfo") and isinstance(detail.get("reason"), str):
            reason = detail["reason"]
        delay = detail.get("retryDelay")
        if kind.endswith(".RetryInfo") and isinstance(delay, str) and delay.endswith("s"):
            found = _number(delay[:-1])
            retry_s = None if found is None else _bounded(found)
    return reason, retry_s


def classify(status: int, error: SellerError, quirks: Quirks | None = None) -> F:
    """The failure class of a refusal; `status` 0 means the error came inside a 200. What the
    seller's own words mean (`quirks`) goes before what they mean elsewhere.
    """
    code = _word(error.code)
    kind = _word(error.kind)
    if quirks is not None and (quirks.error_codes or quirks.statuses):
        own = {name.lower(): failure for name, failure in quirks.error_codes.items()}
        for word in (code, kind):
            if word in own:
                return own[word]
        if status in quirks.statuses:
            return quirks.statuses[status]
    for word in (code, kind):
        if word in CODES:
            return CODES[word]
    status = status or error.status
    text = error.message[:2000].lower()
    if text and status not in (401, 403):
        for pattern, failure in PHRASES:
            if pattern.search(text):
                return failure
    if status in STATUSES:
        return STATUSES[status]
    for word in (code, kind):
        if word in TYPES:
            return TYPES[word]
    if 400 <= status < 500:
        return F.BAD_REQUEST
    return F.MALFORMED if 0 < status < 400 else F.SERVER_ERROR


def failed(
    status: int,
    error: SellerError,
    *,
    retry_after_s: float | None = None,
    quirks: Quirks | None = None,
) -> Failed:
    """The event that ends an attempt refused with `error`."""
    failure = classify(status, error, quirks)
    words = [str(status or "in-band"), _CODE.sub("", error.code or error.kind)[:48]]
    message = ""
    if failure in (F.BAD_REQUEST, F.CONTEXT_TOO_LONG, F.REFUSED):
        message = plain(error.message)
    return Failed(
        failure=failure,
        reason=" ".join(w for w in words if w),
        message=message,
        http_status=status,
        retry_after_s=error.retry_s if retry_after_s is None else retry_after_s,
    )


def plain(text: str) -> str:
    """A seller's text made safe to show: no control characters, bounded."""
    return _CONTROL.sub(" ", text)[:MAX_MESSAGE_CHARS].strip()


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds after which the seller wants to be asked again, or None if it does not say.

    Parameters
    ----------
    headers : mapping
        Case-insensitive, as aiohttp gives them.
    now_s : float
        Wall clock, seconds since the epoch, for the header's date form (RFC 9110, 10.2.3).

    Examples
    --------
    >>> retry_after_s({"retry-after": "30"}, 0.0)
    30.0
    """
    millis = headers.get("retry-after-ms")
    if millis is not None:
        found = _number(millis)
        if found is not None:
            return _bounded(found / 1000.0)
    value = headers.get("retry-after")
    if value is None:
        return None
    found = _number(value)
    if found is not None:
        return _bounded(found)
    try:
        at = email.utils.parsedate_to_datetime(value[:64])
        return _bounded(at.timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return None


def _word(text: str) -> str:
    return text.rpartition("#")[2].strip().lower()


def _number(text: str) -> float | None:
    try:
        value = float(text[:32])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
