"""`broker replay`: real markets through the real engine, policies side by side.

`replay` is the whole of it: settings in, report out. What is streamed is the half of the
prompts that nothing was tuned on (or all of `--test-data`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from analytics.embedding import load_prompt_features
from analytics.errors import EmbeddingUnavailable
from analytics.replay.datasets import DataFolder, QualitySet, learning_half
from analytics.replay.errors import UnknownPolicy
from analytics.replay.offline import offline
from analytics.replay.online import Features, Progress, online
from analytics.replay.quality_splits import delivered
from analytics.replay.report import PolicyReport, ReplayReport
from analytics.replay.settings import ReplaySettings
from analytics.replay.world import World, make_world


def quiet(message: str, done: float | None) -> None:
    """A progress that shows nothing."""


def replay(settings: ReplaySettings, progress: Progress = quiet) -> ReplayReport:
    """Run what `settings` asks for.

    Raises
    ------
    ReplayError
        When the data lack what is asked for, or a policy is unknown.
    """
    progress("reading data", None)
    if settings.mode == "offline":
        return _offline(settings, progress)
    _, streamed = worlds(settings)
    reports = online(streamed, prompt_features(streamed.questions), settings, progress)
    broker = next((r.figures for r in reports if r.policy == "broker"), {})
    binding = broker.get("reserve_binding_share")
    quality = streamed.outcome.mean(axis=0)
    return _reported(
        settings,
        market=streamed.market,
        reports=reports,
        n_prompts=len(streamed.questions.items),
        n_offers=len(streamed.offer_ids),
        best=float(quality.max()),
        binding=binding is not None and binding.mean > 0.05,
    )


def _offline(settings: ReplaySettings, progress: Progress) -> ReplayReport:
    found = offline(settings, progress)
    problem = found.problem
    report = _reported(
        settings,
        market=problem.market,
        reports=_only(found.policies, settings.policies),
        n_prompts=len(problem.questions.items),
        n_offers=len(problem.offers),
        best=float(delivered(problem).mean(axis=0).max()),
        binding=False,
    )
    return msgspec.structs.replace(
        report,
        seeds=found.n_splits,
        n_splits=found.n_splits,
        unseen=found.unseen,
        statistic="mean over splits, 95 % bootstrap interval over prompts",
    )


def _only(reports: list[PolicyReport], names: Sequence[str]) -> list[PolicyReport]:
    unknown = [name for name in names if all(one.policy != name for one in reports)]
    if unknown:
        raise UnknownPolicy(f"no policy {unknown}; there are {[one.policy for one in reports]}")
    return [one for one in reports if not names or one.policy in names]


def _reported(
    settings: ReplaySettings,
    *,
    market: str,
    reports: list[PolicyReport],
    n_prompts: int,
    n_offers: int,
    best: float,
    binding: bool,
) -> ReplayReport:
    return ReplayReport(
        market=market,
        set="+".join(settings.sets),
        mode=settings.mode,
        target=settings.target,
        ttft_s=settings.ttft_s,
        feedback=settings.feedback,
        shock=settings.shock,
        seeds=settings.seeds,
        requests=settings.requests,
        n_prompts=n_prompts,
        n_offers=n_offers,
        best_fixed_quality=best,
        params_version=settings.params.version,
        reserve_binding=binding,
        policies=reports,
    )


def worlds(settings: ReplaySettings) -> tuple[World, World]:
    """The market over the prompts to learn from, and over those to be scored on."""
    data = DataFolder(settings.data)
    needs_latency = settings.ttft_s is not None
    if settings.test_data is not None:
        test = DataFolder(settings.test_data, fallback=data)
        known = data.quality_sets()
        sets = [name for name in settings.sets if name in known]
        scored = test.quality(settings.sets)
        learnt = data.quality(sets) if sets else scored.take(learning_half(scored.items))
        return (
            make_world(data, settings.market, learnt, needs_latency=needs_latency),
            make_world(test, settings.market, scored, needs_latency=needs_latency),
        )
    questions = data.quality(settings.sets)
    half = learning_half(questions.items)
    if settings.half == "learning":
        half = ~half
    return (
        make_world(data, settings.market, questions.take(half), needs_latency=needs_latency),
        make_world(data, settings.market, questions.take(~half), needs_latency=needs_latency),
    )


def prompt_features(questions: QualitySet) -> Features | None:
    """Features of every prompt; None where the texts or the embedding are not to be had."""
    if not any(questions.prompts):
        return None
    try:
        source = load_prompt_features()
    except EmbeddingUnavailable:
        return None
    return [tuple(source.features(prompt).tolist()) for prompt in questions.prompts]
