"""LiteLLM's SDK or proxy telling a broker how its calls went.

    litellm.callbacks = [BrokerCallback(Pusher("https://broker.example", key))]

In the proxy's `config.yaml`: `litellm_settings: {callbacks: my_module.callback}`. LiteLLM calls it
for every call that ends, streamed or not; prompts and answers are not looked at.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from bidding.outcome import FailureClass
from feeds.failure_words import failure_of
from feeds.push.pusher import Pusher, now_us
from feeds.told import TelemetryLine


class BrokerCallback(CustomLogger):
    """Pushes what LiteLLM logs."""

    def __init__(self, pusher: Pusher) -> None:
        super().__init__()
        self._pusher = pusher

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._tell(kwargs, response_obj, start_time, end_time, FailureClass.OK)

    def log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        error = kwargs.get("exception")
        status = getattr(error, "status_code", 0)
        failure = failure_of(type(error).__name__, status if isinstance(status, int) else 0)
        self._tell(kwargs, response_obj, start_time, end_time, failure)

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.log_success_event(kwargs, response_obj, start_time, end_time)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.log_failure_event(kwargs, response_obj, start_time, end_time)

    def _tell(self, kwargs: Any, answer: Any, start: Any, end: Any, failure: FailureClass) -> None:
        took_ms = _ms(start, end)
        usage = getattr(answer, "usage", None)
        details = getattr(usage, "prompt_tokens_details", None)
        params = kwargs.get("litellm_params") or {}
        provider = params.get("custom_llm_provider") or kwargs.get("custom_llm_provider") or ""
        self._pusher.tell(
            TelemetryLine(
                provider=str(provider),
                model=str(kwargs.get("model") or ""),
                at_us=now_us(),
                error=failure,
                ttft_ms=_ms(start, kwargs.get("completion_start_time"))
                if kwargs.get("stream")
                else None,
                latency_ms=took_ms if failure is FailureClass.OK else None,
                waited_ms=took_ms if failure is FailureClass.TIMEOUT_TOTAL else None,
                input_tokens=_tokens(usage, "prompt_tokens"),
                output_tokens=_tokens(usage, "completion_tokens"),
                cached_tokens=_tokens(details, "cached_tokens"),
                streaming=bool(kwargs.get("stream")),
            )
        )


def _ms(start: Any, end: Any) -> float | None:
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        return None
    return max((end - start).total_seconds() * 1e3, 0.0)


def _tokens(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value >= 0 else 0
