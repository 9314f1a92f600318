"""What can go wrong in the paper market itself (faults it *plays* are in `faults.py`).

PaperError
├── BadControl      a control request that makes no sense; the caller changes it
└── BadAsk          a request a real seller would refuse; carries status, type and code
"""

from __future__ import annotations


class PaperError(Exception):
    """Root of the paper market's errors."""


class BadControl(PaperError):
    """A control request names an unknown seller or an impossible fault."""


class BadAsk(PaperError):
    """A buyer's request that is refused, as the real seller would refuse it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
