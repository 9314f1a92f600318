"""What full information on some prompts makes one believe of others, kept on disk once worked out.

Fitting takes a second or two and a replay fits many halves of the same data, so beliefs are
stored under a digest of everything they depend on: the tables, the prices and the code of the
estimators. A cache is never wrong, only unused.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import bidding.estimators
import bidding.features
from analytics.replay.files import Floats
from analytics.replay.quality_problem import Problem, learnt, predicted_cost, promised

_CODE: Final = ("quality*.py", "standing_law.py", "answer_length.py")


class Beliefs(NamedTuple):
    """Of asked prompts: P(good) and predicted cost, (n_prompts, n_models)."""

    p_good: Floats
    cost: Floats


class BeliefCache:
    """Beliefs by what they follow from; `folder` None keeps nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._code = _code_digest() if folder is not None else b""

    def believe(self, known: Problem, asked: Problem) -> Beliefs:
        """What learning `known` says of `asked`."""
        if self._folder is None:
            return _worked_out(known, asked)
        path = self._folder / f"{self._digest(known, asked)}.npz"
        if path.is_file():
            try:
                with np.load(path) as kept:
                    return Beliefs(kept["p_good"], kept["cost"])
            except (OSError, ValueError, KeyError):
                path.unlink(missing_ok=True)
        found = _worked_out(known, asked)
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as part:
            np.savez_compressed(part, p_good=found.p_good, cost=found.cost)
        Path(part.name).replace(path)
        return found

    def _digest(self, known: Problem, asked: Problem) -> str:
        digest = hashlib.blake2b(self._code, digest_size=16)
        for problem in (known, asked):
            questions = problem.questions
            digest.update("\n".join([*questions.task, *questions.models]).encode())
            for array in (problem.features, questions.in_tokens):
                digest.update(np.ascontiguousarray(array).tobytes())
        for array in (known.questions.outcome, known.questions.out_tokens, known.cost, asked.cost):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def default_cache() -> Path:
    """`$XDG_CACHE_HOME` or `~/.cache`, else the system's temporary folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home else Path.home() / ".cache"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        base = Path(tempfile.gettempdir())
    if not os.access(base, os.W_OK):
        base = Path(tempfile.gettempdir())
    return base / "model-market-broker" / "replay"


def _worked_out(known: Problem, asked: Problem) -> Beliefs:
    return Beliefs(promised(learnt(known), asked), predicted_cost(known, asked))


def _code_digest() -> bytes:
    folder = Path(bidding.estimators.__file__ or "").parent
    files = sorted(path for pattern in _CODE for path in folder.glob(pattern))
    files += [Path(bidding.features.__file__), Path(__file__)]
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        digest.update(path.read_bytes())
    return digest.digest()
