"""Makes `analytics/prompt_projection.npz`: the fixed numbers behind the prompt features.

Run once, by hand: `python -m analytics.replay.fit_projection --data ../shared/data`. Fitted on
the learning halves of prompts under the MIT licence only (GSM8K, MATH, MMLU), each set weighing
the same; no outcome is looked at. The file holds means, directions and cluster centres, no text.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from scipy.cluster.vq import kmeans2

from analytics.embedding import Embedder, excerpt
from analytics.replay.datasets import DataFolder, learning_half
from bidding.features import (
    GROUP_NORM,
    N_CLUSTERS,
    N_TEXT,
    Floats,
    Projection,
    base_features,
    memberships,
    raw_counts,
)

SETS: Final = ("gsm", "math-l5", "routellm_mmlu")
_CLUSTER_PROMPTS: Final = 1500
_SEED: Final = 0


def fit_projection(groups: Sequence[tuple[Floats, Floats]]) -> Projection:
    """The projection of prompt groups, each weighing the same.

    Parameters
    ----------
    groups : sequence of (counts, embeddings)
        Shapes (n, N_COUNTS) and (n, N_EMBEDDING).
    """
    counts = np.vstack([group[0] for group in groups])
    embeddings = np.vstack([group[1] for group in groups])
    weight = np.concatenate([np.full(len(g[0]), 1.0 / len(g[0])) for g in groups]) / len(groups)
    count_mean = weight @ counts
    count_sd = np.maximum(np.sqrt(weight @ np.square(counts - count_mean)), 0.1)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    text_mean = weight @ unit
    away = unit - text_mean
    values, vectors = np.linalg.eigh((away * weight[:, None]).T @ away)
    top = vectors[:, ::-1][:, :N_TEXT].T
    top = top * np.sign(top[np.arange(N_TEXT), np.abs(top).argmax(axis=1)])[:, None]
    directions = top * (GROUP_NORM / math.sqrt(values[::-1][:N_TEXT].sum()))
    empty = np.zeros((N_CLUSTERS, counts.shape[1] + N_TEXT))
    start = Projection(
        count_mean, count_sd, text_mean, directions, empty, np.zeros(N_CLUSTERS), 1.0
    )
    base = [base_features(start, *group) for group in groups]
    pool = np.vstack([rows[:_CLUSTER_PROMPTS] for rows in base])
    centres, _ = kmeans2(pool, N_CLUSTERS, iter=50, minit="++", seed=_SEED)
    member = memberships(centres, pool)
    mean = member.mean(axis=0)
    spread = math.sqrt(float(np.square(member - mean).sum(axis=1).mean()))
    return start._replace(centres=centres, member_mean=mean, member_scale=GROUP_NORM / spread)


def main() -> None:
    """Fit on the prompts under `--data` and write `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("analytics/prompt_projection.npz"))
    arguments = parser.parse_args()
    folder, embedder = DataFolder(arguments.data), Embedder()
    groups = []
    for name in SETS:
        found = folder.quality([name])
        prompts = [
            p for p, half in zip(found.prompts, learning_half(found.items), strict=True) if half
        ]
        counts = np.array([raw_counts(excerpt(p), len(p)) for p in prompts])
        groups.append((counts, np.array([embedder.embed(excerpt(p)) for p in prompts])))
    fitted = fit_projection(groups)
    arrays = {name: np.asarray(value, np.float32) for name, value in fitted._asdict().items()}
    np.savez_compressed(arguments.out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
