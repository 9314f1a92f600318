"""Prompt features: counts, a compact projection of a text embedding, and what kind of text it is.

Owns what the numbers mean and how they are scaled; turning text into an embedding takes a
model's weights and lives in `analytics/embedding.py`. Three groups: counts of characters and
words; the embedding's leading directions; soft membership in a fixed set of text clusters, which
gives a linear model the bends it lacks (on MMLU's two models it closes a tenth more of the gap).
Each group is scaled to a mean square of 4 over ordinary prompts, so that one prior width fits all.

Counts are of characters, never of meaning, so they work in any language; they carry about half
of what is to be known of difficulty within a task (docs/decisions/0011-quality-model.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COUNT_NAMES: Final = (
    "characters",
    "words",
    "characters_per_word",
    "digits",
    "numbers",
    "operators",
    "question_marks",
    "tex_marks",
    "code_marks",
    "lines",
    "capitals",
    "commas",
    "full_stops",
    "beyond_ascii",
)
N_COUNTS: Final = len(COUNT_NAMES)
N_TEXT: Final = 32
N_CLUSTERS: Final = 16
N_FEATURES: Final = N_COUNTS + N_TEXT + N_CLUSTERS
N_EMBEDDING: Final = 256
GROUP_NORM: Final = 2.0
TEMPERATURE: Final = 2.0

_DIGITS: Final = b"0123456789"
_CAPITALS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPERATORS: Final = b"+-*/=<>^%"
_CODE: Final = b"`{}_;()[]"
_BEYOND_ASCII: Final = bytes(range(128, 256))
_ONLY_DIGITS: Final = bytes(c if c in _DIGITS else 32 for c in range(256))
_CLIP: Final = 4.0
_NO_TEXT: Final = 1e-9


class Projection(NamedTuple):
    """Fixed numbers that turn counts and an embedding into features.

    Attributes
    ----------
    count_mean, count_sd : (N_COUNTS,)
    text_mean : (N_EMBEDDING,) of unit embeddings
    directions : (N_TEXT, N_EMBEDDING), scaled so that the group's mean square is GROUP_NORM²
    centres : (N_CLUSTERS, N_COUNTS + N_TEXT)
    member_mean : (N_CLUSTERS,) mean soft membership
    member_scale : scale of the group
    """

    count_mean: Floats
    count_sd: Floats
    text_mean: Floats
    directions: Floats
    centres: Floats
    member_mean: Floats
    member_scale: float

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> Projection:
        """From arrays by field name, as stored."""
        fields = {name: np.asarray(arrays[name], dtype=np.float64) for name in cls._fields[:-1]}
        return cls(**fields, member_scale=float(arrays["member_scale"]))


def raw_counts(text: str, n_chars: int | None = None) -> list[float]:
    """The counts of `text` as logarithms of one plus the count, shape (N_COUNTS,).

    Parameters
    ----------
    n_chars : int, optional
        Length of the whole prompt when `text` is an excerpt of it.

    Examples
    --------
    >>> counts = dict(zip(COUNT_NAMES, raw_counts("2 + 2 = ?")))
    >>> counts["question_marks"] == math.log1p(1), counts["operators"] == math.log1p(2)
    (True, True)
    """
    raw = text.encode("utf-8", "replace")
    size = len(raw)
    n_words = len(text.split())
    drop = raw.translate
    numbers = (
        len(text) if n_chars is None else n_chars,
        n_words,
        len(text) / max(n_words, 1),
        size - len(drop(None, _DIGITS)),
        len(drop(_ONLY_DIGITS).split()),
        size - len(drop(None, _OPERATORS)),
        raw.count(b"?"),
        raw.count(b"\\") + raw.count(b"$"),
        size - len(drop(None, _CODE)),
        raw.count(b"\n"),
        size - len(drop(None, _CAPITALS)),
        raw.count(b","),
        raw.count(b"."),
        size - len(drop(None, _BEYOND_ASCII)),
    )
    return [math.log1p(number) for number in numbers]


def base_features(projection: Projection, counts: Floats, embedding: Floats) -> Floats:
    """Counts and text, without memberships: shape (..., N_COUNTS + N_TEXT).

    Parameters
    ----------
    counts : ndarray, (..., N_COUNTS)
    embedding : ndarray, (..., N_EMBEDDING)
        Mean of token vectors, any length; zeros where there is no text.
    """
    z = (counts - projection.count_mean) / projection.count_sd
    z = np.minimum(np.maximum(z, -_CLIP), _CLIP) * (GROUP_NORM / math.sqrt(N_COUNTS))
    norm = np.sqrt(np.square(embedding).sum(axis=-1, keepdims=True))
    unit = embedding / np.maximum(norm, _NO_TEXT)
    text = (unit - projection.text_mean) @ projection.directions.T
    return np.concatenate([z, text * (norm > _NO_TEXT)], axis=-1)


def memberships(centres: Floats, base: Floats) -> Floats:
    """Soft membership of prompts in clusters; each row sums to one: (..., n_centres)."""
    near = (base @ centres.T - 0.5 * np.square(centres).sum(axis=1)) * (2.0 / TEMPERATURE)
    weight = np.exp(near - near.max(axis=-1, keepdims=True))
    share: Floats = weight / weight.sum(axis=-1, keepdims=True)
    return share


def compact(projection: Projection, counts: Sequence[float] | Floats, embedding: Floats) -> Floats:
    """The features of one prompt or of many, shape (..., N_FEATURES), every one finite."""
    base = base_features(projection, np.asarray(counts, dtype=np.float64), embedding)
    member = memberships(projection.centres, base)
    kind = (member - projection.member_mean) * projection.member_scale
    return np.concatenate([base, kind], axis=-1)
