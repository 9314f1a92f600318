"""An OpenAI client that tells a broker how its calls go: `watch(client, pusher)`, then as before.

    client = watch(OpenAI(base_url="https://api.groq.com/openai/v1"), pusher, provider="groq")

Works for the sync and the async client, whole answers and streams. What the client returns, yields
and raises is what it would have without; of prompts and answers nothing is read but how many tokens
they were said to have. Nothing of `openai` is imported: errors are known by their class names.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from bidding.outcome import FailureClass
from feeds.push.pusher import Pusher, now_us
from feeds.told import TelemetryLine

Client = TypeVar("Client")
_BY_CLASS: Final = {
    "APITimeoutError": FailureClass.TIMEOUT_TOTAL,
    "APIConnectionError": FailureClass.CONNECT,
    "RateLimitError": FailureClass.RATE_LIMITED,
    "AuthenticationError": FailureClass.AUTH,
    "PermissionDeniedError": FailureClass.AUTH,
    "NotFoundError": FailureClass.MODEL_MISSING,
    "BadRequestError": FailureClass.BAD_REQUEST,
    "UnprocessableEntityError": FailureClass.BAD_REQUEST,
    "ContentFilterFinishReasonError": FailureClass.REFUSED,
    "InternalServerError": FailureClass.SERVER_ERROR,
    "APIResponseValidationError": FailureClass.MALFORMED,
}


def watch(client: Client, pusher: Pusher, *, provider: str, task: str = "") -> Client:
    """The same client, whose chat completions are told of as calls at `provider`."""
    told: Any = client
    create = told.chat.completions.create
    told.chat.completions.create = (
        _async(create, pusher, provider, task)
        if inspect.iscoroutinefunction(inspect.unwrap(create))
        else _sync(create, pusher, provider, task)
    )
    return client


class _Call:
    """One call under way."""

    def __init__(self, pusher: Pusher, provider: str, task: str, asked: dict[str, Any]) -> None:
        self._pusher = pusher
        self._provider = provider
        self._task = task
        self._model = str(asked.get("model", ""))
        self._streaming = bool(asked.get("stream"))
        self._began_ns = time.perf_counter_ns()
        self._ttft_ms: float | None = None
        self._usage: Any = None
        self._over = False

    def saw(self, chunk: Any) -> None:
        """A piece of a stream, or the whole answer, came."""
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self._usage = usage
        if self._streaming and self._ttft_ms is None and _is_visible(chunk):
            self._ttft_ms = self._ms()

    def ended(self, error: BaseException | None = None) -> None:
        """Tell of it, once."""
        if self._over:
            return
        self._over = True
        failure = failure_of(error)
        took_ms = self._ms()
        details = getattr(self._usage, "prompt_tokens_details", None)
        status = getattr(error, "status_code", 0)
        self._pusher.tell(
            TelemetryLine(
                provider=self._provider,
                model=self._model,
                at_us=now_us(),
                error=failure,
                ttft_ms=self._ttft_ms,
                latency_ms=took_ms if failure is FailureClass.OK else None,
                waited_ms=took_ms if failure is FailureClass.TIMEOUT_TOTAL else None,
                input_tokens=_tokens(self._usage, "prompt_tokens"),
                output_tokens=_tokens(self._usage, "completion_tokens"),
                cached_tokens=_tokens(details, "cached_tokens"),
                streaming=self._streaming,
                http_status=status if isinstance(status, int) else 0,
                task=self._task,
            )
        )

    @contextmanager
    def failing(self) -> Iterator[None]:
        """What is raised within ends the call, and goes on; an app that stops reading hangs up."""
        try:
            yield
        except BaseException as error:
            self.ended(error)
            raise

    def answered(self, answer: Any, stream: Callable[[Any, _Call], Any]) -> Any:
        """What the app is handed: a whole answer as it is, one to come as a `stream`."""
        if self._streaming:
            return stream(answer, self)
        self.saw(answer)
        self.ended()
        return answer

    def _ms(self) -> float:
        return (time.perf_counter_ns() - self._began_ns) / 1e6


class _Watched:
    """A stream that is watched; all else of it is its own."""

    def __init__(self, stream: Any, call: _Call) -> None:
        self._stream = stream
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Stream(_Watched):
    def __init__(self, stream: Any, call: _Call) -> None:
        super().__init__(stream, call)
        self._chunks = self._watched()

    def _watched(self) -> Iterator[Any]:
        with self._call.failing():
            for chunk in self._stream:
                self._call.saw(chunk)
                yield chunk
        self._call.ended()

    def __iter__(self) -> Iterator[Any]:
        return self._chunks

    def __next__(self) -> Any:
        return next(self._chunks)

    def __enter__(self) -> _Stream:
        self._stream.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._call.ended(GeneratorExit())  # unless it was read to its end
        self._stream.__exit__(*exc)


class _AsyncStream(_Watched):
    def __init__(self, stream: Any, call: _Call) -> None:
        super().__init__(stream, call)
        self._chunks = self._watched()

    async def _watched(self) -> AsyncIterator[Any]:
        with self._call.failing():
            async for chunk in self._stream:
                self._call.saw(chunk)
                yield chunk
        self._call.ended()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._chunks

    async def __anext__(self) -> Any:
        return await anext(self._chunks)

    async def __aenter__(self) -> _AsyncStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._call.ended(GeneratorExit())
        await self._stream.__aexit__(*exc)


def failure_of(error: BaseException | None) -> FailureClass:
    """What an error of the client means; the nearest class that is known decides."""
    if error is None:
        return FailureClass.OK
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit):
        return FailureClass.CANCELLED
    if getattr(error, "status_code", 0) in (503, 529):
        return FailureClass.OVERLOADED
    known = (_BY_CLASS.get(kind.__name__) for kind in type(error).__mro__)
    return next((f for f in known if f is not None), FailureClass.SERVER_ERROR)


def _sync(create: Callable[..., Any], pusher: Pusher, provider: str, task: str) -> Any:
    @functools.wraps(create)
    def watched(*args: Any, **asked: Any) -> Any:
        call = _Call(pusher, provider, task, asked)
        with call.failing():
            answer = create(*args, **asked)
        return call.answered(answer, _Stream)

    return watched


def _async(create: Callable[..., Any], pusher: Pusher, provider: str, task: str) -> Any:
    @functools.wraps(create)
    async def watched(*args: Any, **asked: Any) -> Any:
        call = _Call(pusher, provider, task, asked)
        with call.failing():
            answer = await create(*args, **asked)
        return call.answered(answer, _AsyncStream)

    return watched


def _is_visible(chunk: Any) -> bool:
    """Whether a chunk shows the app something."""
    for choice in getattr(chunk, "choices", None) or ():
        delta = getattr(choice, "delta", None)
        if getattr(delta, "content", None) or getattr(delta, "tool_calls", None):
            return True
    return False


def _tokens(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value >= 0 else 0
