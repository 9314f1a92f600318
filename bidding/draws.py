"""Randomness of a decision: a pure function of its seed.

Normals come from a pool drawn once; a seed picks where to read. Uniforms come from SplitMix64.

References
----------
Steele, Lea, Flood (2014), Fast splittable pseudorandom number generators, OOPSLA.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bidding.columns import Floats

_MASK: Final = (1 << 64) - 1
_POOL_SIZE: Final = 1 << 16
_POOL: Final[Floats] = np.random.Generator(np.random.PCG64(20260424)).standard_normal(_POOL_SIZE)
_POOL.flags.writeable = False


def uniform(seed: int, n: int) -> float:
    """The `n`-th uniform in [0, 1) of a seed.

    Examples
    --------
    >>> 0.0 <= uniform(7, 0) < 1.0 and uniform(7, 0) == uniform(7, 0)
    True
    """
    z = (seed + (n + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) * (1.0 / (1 << 53))


def normals(seed: int, size: int) -> Floats:
    """`size` standard normals of a seed: a read-only slice of the pool."""
    if size > _POOL_SIZE:
        return np.resize(_POOL, size)
    start = int(uniform(seed, 0xD1CE) * (_POOL_SIZE - size))
    return _POOL[start : start + size]
