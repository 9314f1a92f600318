"""Shut this process in: after `enclose`, files outside a few named places and all TCP are gone.

Linux's Landlock, by system call, irrevocable for this process and its children. It is the last
line behind `guard`: SQL that slipped through could still not read another user's file,
overwrite one, or call a service on the network. It binds only threads started afterwards, so it
must come before the engine is loaded, and listening sockets must already be bound.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444  # the numbers are the same on every architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_RULE_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_O_PATH: Final = 0o10000000

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
#: Rights that exist in each version of the interface; asking for later ones is an error.
_ALL_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_FILE_ONLY: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_NET_BIND_AND_CONNECT: Final = 0b11  # since version 4
_SCOPE_SOCKET_AND_SIGNAL: Final = 0b11  # since version 6

#: What the engine reads about the machine, and Python and the loader about themselves.
_SYSTEM: Final = (
    *("/usr", "/lib", "/lib64", "/lib32", "/etc/localtime", "/etc/timezone", "/etc/ld.so.cache"),
    *("/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/mounts", "/proc/version"),
    *("/proc/filesystems", "/proc/loadavg", "/proc/uptime", "/proc/sys", "/proc/vmstat"),
    *("/proc/pressure", "/proc/diskstats", "/proc/net/dev", "/proc/self"),
    *("/sys/fs/cgroup", "/sys/devices/system", "/sys/kernel/mm", "/sys/block"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
)
_DEVICES: Final = ("/dev/null",)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def enclose(*, readable: Iterable[Path], writable: Iterable[Path]) -> int:
    """Leave this process only the machine's libraries, `readable` and `writable`, and no TCP.

    Returns
    -------
    The version of Landlock in force; 0 if this kernel has none (the caller should say so aloud).

    Raises
    ------
    OSError : the kernel has Landlock but refused the rules
    """
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return 0
    rights = max(all_ for since, all_ in _ALL_FILE_RIGHTS.items() if since <= version)
    ruleset = _Ruleset(
        rights,
        _NET_BIND_AND_CONNECT if version >= 4 else 0,
        _SCOPE_SOCKET_AND_SIGNAL if version >= 6 else 0,
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset_fd = _checked(libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0))
    try:
        for path in {*map(Path, _SYSTEM), *readable}:
            _allow(libc, ruleset_fd, path, _READ)
        for path in map(Path, _DEVICES):
            _allow(libc, ruleset_fd, path, _READ_FILE | _WRITE_FILE)
        for path in writable:
            _allow(libc, ruleset_fd, path, rights)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT_SELF, ruleset_fd, 0))
    finally:
        os.close(ruleset_fd)
    return int(version)


def _allow(libc: ctypes.CDLL, ruleset_fd: int, path: Path, rights: int) -> None:
    try:
        path_fd = os.open(path, _O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE_ONLY
        rule = _PathBeneath(rights, path_fd)
        _checked(
            libc.syscall(_ADD_RULE, ruleset_fd, _RULE_PATH_BENEATH, ctypes.byref(rule), 0),
        )
    finally:
        os.close(path_fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
