"""What is published of a task: how well each model does it, how long its answers are, what
quality costs there. A gateway reads this and nothing else about quality.
"""

from __future__ import annotations

from msgspec import Struct

from bidding.estimators.quality_skill import TaskSkill
from bidding.found_tasks import FoundTask
from bidding.pacing import ClassPrices


class Skill(Struct, frozen=True, kw_only=True):
    """Beliefs about one task.

    `quality` is the quality model's part. Answer lengths are log-normal: `out_log_tokens` and
    `out_log_sd` are mean and sd of the natural log of tokens, parallel to `models`.
    `found` are the kinds of work among requests whose app names none: only `general` has any.
    """

    task: str
    at_us: int
    quality: TaskSkill
    models: list[str]
    out_log_tokens: list[float]
    out_log_sd: list[float]
    classes: list[ClassPrices] = []
    found: list[FoundTask] = []
