"""`broker replay`: real markets through the real engine, policies side by side.

`replay` is the whole of it: settings in, report out. What is streamed is the half of the
prompts that nothing was tuned on (or all of `--test-data`).
"""

from __future__ import annotations

from analytics.embedding import load_prompt_features
from analytics.errors import EmbeddingUnavailable
from analytics.replay.datasets import DataFolder, QualitySet, learning_half
from analytics.replay.online import Features, Progress, online
from analytics.replay.report import ReplayReport
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
    _, streamed = worlds(settings)
    reports = online(streamed, prompt_features(streamed.questions), settings, progress)
    broker = next((r.figures for r in reports if r.policy == "broker"), {})
    binding = broker.get("reserve_binding_share")
    quality = streamed.outcome.mean(axis=0)
    return ReplayReport(
        market=settings.market,
        set="+".join(settings.sets),
        mode=settings.mode,
        target=settings.target,
        ttft_s=settings.ttft_s,
        feedback=settings.feedback,
        shock=settings.shock,
        seeds=settings.seeds,
        requests=settings.requests,
        n_prompts=len(streamed.questions.items),
        n_offers=len(streamed.offer_ids),
        best_fixed_quality=float(quality.max()),
        params_version=settings.params.version,
        reserve_binding=binding is not None and binding.mean > 0.05,
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
