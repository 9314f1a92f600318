"""The demo's SLA classes: who asks for what, and how often."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct


class DemoClass(Struct, frozen=True, kw_only=True):
    """One kind of customer. `weight` is its share of traffic, `regions` where it may buy."""

    name: str
    weight: float
    sla: dict[str, Any]
    quality: float
    stream: bool = False
    percentile: float | None = None
    regions: tuple[str, ...] = ()


CLASSES: Final[tuple[DemoClass, ...]] = (
    DemoClass(name="batch", weight=0.2, sla={"quality": 0.8}, quality=0.8),
    DemoClass(
        name="chat",
        weight=0.3,
        sla={"quality": 0.9, "ttft_ms": 1000, "percentile": 0.95, "resume": True},
        quality=0.9,
        stream=True,
        percentile=0.95,
    ),
    DemoClass(name="quality", weight=0.35, sla={"quality": 0.95}, quality=0.95),
    DemoClass(
        name="eu",
        weight=0.15,
        sla={"quality": 0.9, "compliance": {"regions": ["eu"], "no_training": True}},
        quality=0.9,
        regions=("eu",),
    ),
)
