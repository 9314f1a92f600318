"""Tells a broker of calls, from any app: a queue, a thread, and `POST /v1/telemetry`.

Standard library but for msgspec, as it lives in other people's processes. `tell` costs
microseconds and never raises; what the broker does not take now is sent again (and so may be told
twice when an answer was lost), the oldest is dropped at the bound, and an app that ends waits a
moment for the rest.
"""

from __future__ import annotations

import atexit
import gzip
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from typing import Final

import msgspec

from feeds.told import TelemetryLine

_MAX_BATCH: Final = 2_000
_MAX_WAIT_S: Final = 30.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Pusher:
    """Pushes what it is told. Thread-safe.

    Parameters
    ----------
    url : the broker's, such as `https://broker.example`
    key : an API key with the scope `telemetry`
    flush_s : how long a line waits for others
    max_lines : bound of the queue
    timeout_s : of one request

    Attributes
    ----------
    n_sent, n_refused, n_dropped : lines taken by the broker, refused by it, and given up here
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        flush_s: float = 1.0,
        max_lines: int = 20_000,
        timeout_s: float = 10.0,
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise ValueError(f"{url!r} is no http address")
        self._url = url.rstrip("/") + "/v1/telemetry"
        self._key = key
        self._flush_s = flush_s
        self._max_lines = max_lines
        self._timeout_s = timeout_s
        self._lines: deque[bytes] = deque()
        self._encoder = msgspec.json.Encoder()
        self._lock = threading.Lock()
        self._came = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closing = threading.Event()
        self.n_sent = 0
        self.n_refused = 0
        self.n_dropped = 0
        self._thread = threading.Thread(target=self._run, name="broker-push", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def tell(self, line: TelemetryLine) -> None:
        """Tell of a call."""
        encoded = self._encoder.encode(line)
        with self._lock:
            if len(self._lines) >= self._max_lines:
                self._lines.popleft()
                self.n_dropped += 1
            self._lines.append(encoded)
            self._idle.clear()
        self._came.set()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was told is sent; False if that took too long."""
        return self._idle.wait(timeout_s)

    def close(self, timeout_s: float = 3.0) -> None:
        """Send what can be sent within the timeout, and end."""
        self._closing.set()
        self._came.set()
        self._thread.join(timeout_s)
        atexit.unregister(self.close)

    def _run(self) -> None:
        n_failures = 0
        while True:
            self._came.wait()
            self._came.clear()
            if not self._closing.is_set():
                self._closing.wait(self._flush_s)
            while batch := self._batch():
                if self._send(batch):
                    n_failures = 0
                    continue
                with self._lock:
                    self._lines.extendleft(reversed(batch))
                    while len(self._lines) > self._max_lines:
                        self._lines.popleft()
                        self.n_dropped += 1
                if self._closing.is_set():
                    return
                self._closing.wait(min(self._flush_s * 2**n_failures, _MAX_WAIT_S))
                n_failures += 1
            if self._closing.is_set():
                return

    def _batch(self) -> list[bytes]:
        with self._lock:
            batch = [self._lines.popleft() for _ in range(min(len(self._lines), _MAX_BATCH))]
            if not batch:
                self._idle.set()
            return batch

    def _send(self, batch: list[bytes]) -> bool:
        """Post a batch; whether it is done with, taken or refused for good."""
        request = urllib.request.Request(  # noqa: S310 - __init__ takes http(s) alone
            self._url,
            data=gzip.compress(b"\n".join(batch), 1),
            headers={
                "Authorization": f"Bearer {self._key}",
                "Content-Type": "application/x-ndjson",
                "Content-Encoding": "gzip",
            },
            method="POST",
        )
        try:
            # The same address as above, so the same reason to be let be.
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310
                told = msgspec.json.decode(response.read(), type=dict[str, object])
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _AGAIN:
                return False
            self.n_refused += len(batch)
            return True
        except (OSError, msgspec.DecodeError, ValueError):
            return False
        n_refused = told.get("refused", 0)
        self.n_refused += n_refused if isinstance(n_refused, int) else 0
        self.n_sent += len(batch) - (n_refused if isinstance(n_refused, int) else 0)
        return True


def now_us() -> int:
    """Wall clock, µs since the epoch."""
    return time.time_ns() // 1_000
