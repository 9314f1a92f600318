"""What an error's type, as others write it, and an HTTP status mean."""

from __future__ import annotations

import re
from typing import Final

from bidding.outcome import FailureClass

_BY_STATUS: Final = {
    400: FailureClass.BAD_REQUEST,
    401: FailureClass.AUTH,
    402: FailureClass.QUOTA,
    403: FailureClass.AUTH,
    404: FailureClass.MODEL_MISSING,
    408: FailureClass.TIMEOUT_TOTAL,
    413: FailureClass.CONTEXT_TOO_LONG,
    429: FailureClass.RATE_LIMITED,
    503: FailureClass.OVERLOADED,
    529: FailureClass.OVERLOADED,
}
_BY_WORD: Final = (
    ("ratelimit", FailureClass.RATE_LIMITED),
    ("toomanyrequests", FailureClass.RATE_LIMITED),
    ("throttl", FailureClass.RATE_LIMITED),
    ("timeout", FailureClass.TIMEOUT_TOTAL),
    ("timedout", FailureClass.TIMEOUT_TOTAL),
    ("cancel", FailureClass.CANCELLED),
    ("connect", FailureClass.CONNECT),
    ("authentication", FailureClass.AUTH),
    ("permission", FailureClass.AUTH),
    ("notfound", FailureClass.MODEL_MISSING),
    ("contextlength", FailureClass.CONTEXT_TOO_LONG),
    ("contextwindow", FailureClass.CONTEXT_TOO_LONG),
    ("contentfilter", FailureClass.REFUSED),
    ("contentpolicy", FailureClass.REFUSED),
    ("badrequest", FailureClass.BAD_REQUEST),
    ("invalidrequest", FailureClass.BAD_REQUEST),
    ("unprocessable", FailureClass.BAD_REQUEST),
    ("overload", FailureClass.OVERLOADED),
    ("unavailable", FailureClass.OVERLOADED),
    ("quota", FailureClass.QUOTA),
)


def failure_of(error_type: str, http_status: int) -> FailureClass:
    """What an error's type and status mean.

    Examples
    --------
    >>> failure_of("openai.RateLimitError", 0), failure_of("500", 0), failure_of("", 0)
    (<FailureClass.RATE_LIMITED: 'rate_limited'>, <FailureClass.SERVER_ERROR: 'server_error'>, \
<FailureClass.OK: 'ok'>)
    """
    status = http_status or (int(error_type) if re.fullmatch(r"[1-5][0-9]{2}", error_type) else 0)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if not error_type and status < 400:
        return FailureClass.OK
    word = error_type.lower().replace("_", "").replace(" ", "")
    found = next((failure for part, failure in _BY_WORD if part in word), None)
    return found or FailureClass.SERVER_ERROR
