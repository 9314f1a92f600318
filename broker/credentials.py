"""Keys of providers: as configured, or out of a file that somebody keeps fresh.

`provider_keys` may say `file:PATH` in place of a key: OAuth tokens (Vertex) and session tokens
(AWS) live for an hour, so whatever renews them (a sidecar, `gcloud auth print-access-token` in
a timer, a mounted secret) writes the file, and the next call takes what stands there. A file
that cannot be read leaves the last key in force: a call with an old key fails clearly, one
with none fails as a riddle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

FILE: Final = "file:"
LOOK_EVERY_NS: Final = 1_000_000_000


class _KeyFile:
    """A key in a file, looked at once a second at most."""

    def __init__(self, path: Path, monotonic_ns: Callable[[], int]) -> None:
        self._path = path
        self._monotonic_ns = monotonic_ns
        self._look_at_ns = 0
        self._seen: tuple[int, int] | None = None
        self._key: str | None = None

    @property
    def key(self) -> str | None:
        now_ns = self._monotonic_ns()
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_EVERY_NS
            self._look()
        return self._key

    def _look(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != self._seen:
                self._key = self._path.read_text(encoding="utf-8").strip() or self._key
                self._seen = stamp
        except (OSError, UnicodeDecodeError) as error:
            logger.warning("key file %s cannot be read: %s", self._path, type(error).__name__)


class Credentials:
    """The keys by provider.

    Parameters
    ----------
    keys : a key, or `file:PATH`, by provider id.
    monotonic_ns : the clock that spaces looks at files.
    """

    def __init__(self, keys: Mapping[str, str], monotonic_ns: Callable[[], int]) -> None:
        self._fixed = {p: key for p, key in keys.items() if not key.startswith(FILE)}
        self._files = {
            p: _KeyFile(Path(key.removeprefix(FILE)), monotonic_ns)
            for p, key in keys.items()
            if key.startswith(FILE)
        }

    def changes(self, provider: str) -> bool:
        """Whether the key of a provider may be another one next time."""
        return provider in self._files

    def key(self, provider: str) -> str | None:
        """The key in force now; None where none is configured."""
        file = self._files.get(provider)
        return self._fixed.get(provider) if file is None else file.key
