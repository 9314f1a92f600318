"""How many attempts beyond one a request there may be: a share of the requests of a sliding window.

Nothing is saved up for an outage: what was not used a window ago is gone, and however quiet or busy
it was before, of any window's attempts no more than the share (and a few that a quiet gateway
may make) are extra. Time is an argument.

References
----------
Finagle, retry budgets (a token bucket with a time to live); gRPC A6, retry throttling.
"""

from __future__ import annotations

import math
from collections import deque

_N_BUCKETS = 20


class Budget:
    """At most `share` · requests + `floor` attempts in any `window_s` that ends with one of them.

    Parameters
    ----------
    floor : float
        Attempts a window that need no requests, for a gateway with next to no traffic.
    window_s : float
        Requests count for as long, to within a twentieth less; attempts exactly as long.

    Examples
    --------
    >>> budget = Budget(share=0.1, floor=1.0, window_s=10.0)
    >>> budget.allows(0.0), budget.spend(0.0), budget.allows(9.9), budget.allows(10.0)
    (True, None, False, True)
    """

    __slots__ = ("_bucket_s", "_floor", "_n_requests", "_requests", "_share", "_spent", "_window_s")

    def __init__(self, share: float, floor: float, window_s: float) -> None:
        self._share = share
        self._floor = floor
        self._window_s = window_s
        self._bucket_s = window_s / _N_BUCKETS
        self._requests: deque[list[int]] = deque()
        self._n_requests = 0
        self._spent: deque[float] = deque()

    def earn(self, now_s: float) -> None:
        """A request has come."""
        bucket = math.floor(now_s / self._bucket_s)
        if self._requests and self._requests[-1][0] >= bucket:
            self._requests[-1][1] += 1
        else:
            self._requests.append([bucket, 1])
        self._n_requests += 1

    def allows(self, now_s: float) -> bool:
        """Whether one more attempt may be made now."""
        self._forget(now_s)
        return len(self._spent) + 1.0 <= self._share * self._n_requests + self._floor + 1e-9

    def spend(self, now_s: float) -> None:
        """One more attempt goes out; ask `allows` in the same breath."""
        self._spent.append(now_s)

    def _forget(self, now_s: float) -> None:
        oldest_s = now_s - self._window_s
        while self._spent and self._spent[0] <= oldest_s:
            self._spent.popleft()
        while self._requests and self._requests[0][0] * self._bucket_s <= oldest_s:
            self._n_requests -= self._requests.popleft()[1]
