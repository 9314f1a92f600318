"""Replace this process by another program that cannot outlive its parent.

Run as ``python -I -S launcher.py PARENT_PID PROGRAM ARG...``: asks the kernel to send SIGKILL
when the parent is gone (the request survives `execv`), then becomes PROGRAM. A separate file
with only the standard library, because code run between fork and exec in a threaded parent
(`preexec_fn`) may deadlock, and because this starts in some 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int, *, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `by` when the parent ends; exit now if it already has.

    Notes
    -----
    Linux ties this to the *thread* that forked: start children from a thread that lives on, which
    asyncio does (it forks in the loop's thread). Elsewhere than on Linux this only checks once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(f"parent {parent_pid} is gone")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the program our parent named
