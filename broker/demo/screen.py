"""The demo's live terminal: quotes and shares bought, spend against the simple buyers, promises."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from broker.demo.classes import CLASSES
from broker.demo.tally import Bought, Totals, totals

_N_OFFERS = 12


class OfferLine(Struct, frozen=True, kw_only=True):
    """An offer as `GET /v1/market` shows it."""

    offer: str
    ttft_ms: float
    fail_share: float
    health: str
    input_usd_per_mtok: float
    output_usd_per_mtok: float


class Counts(Struct, frozen=True, kw_only=True):
    """How far facts have come."""

    attempts_in_kafka: int = 0
    attempts_in_clickhouse: int = 0
    decisions_in_clickhouse: int = 0


def screen(
    offers: Sequence[OfferLine], requests: Sequence[Bought], counts: Counts, events: Sequence[str]
) -> RenderableType:
    """The whole screen."""
    return Group(
        _spend(totals(requests)),
        _classes(requests),
        _market(offers, requests),
        _facts(counts, events),
    )


def _spend(all_: Totals) -> RenderableType:
    table = Table(expand=True, box=None)
    for column in ("", "spent", "good answers"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("[bold]the broker[/]", f"${all_.usd:.4f}", f"{all_.good_share:.1%}")
    table.add_row(
        "always the best model",
        f"${all_.usd_always_best:.4f}",
        f"{all_.good_share_always_best:.1%}",
    )
    table.add_row(
        "always the cheapest",
        f"${all_.usd_always_cheapest:.4f}",
        f"{all_.good_share_always_cheapest:.1%}",
    )
    title = f"{all_.requests} requests, {all_.failed} failed"
    return Panel(table, title=title, title_align="left")


def _classes(requests: Sequence[Bought]) -> RenderableType:
    table = Table(title="Promises, last 300 requests of a class", title_justify="left", expand=True)
    for column in ("class", "promised", "good", "promised on time", "on time", "$ / 1,000"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for demo_class in CLASSES:
        recent = [b for b in requests if b.sla_class == demo_class.name][-300:]
        sums = totals(recent)
        late = "" if sums.on_time_share is None else f"{sums.on_time_share:.1%}"
        table.add_row(
            demo_class.name,
            f"{demo_class.quality:.0%}",
            f"{sums.good_share:.1%}" if recent else "",
            "" if demo_class.percentile is None else f"{demo_class.percentile:.0%}",
            late,
            f"{1000 * sums.usd / len(recent):.4f}" if recent else "",
        )
    return table


def _market(offers: Sequence[OfferLine], requests: Sequence[Bought]) -> RenderableType:
    recent = [b for b in requests if b.ok][-300:]
    bought = Counter(b.offer for b in recent)
    known = {line.offer: line for line in offers}
    table = Table(title="Market: most bought offers", title_justify="left", expand=True)
    for column in ("offer", "bought", "TTFT", "fails", "$/M in", "$/M out", "circuit"):
        table.add_column(column, justify="left" if column == "offer" else "right")
    shown = [offer for offer, _ in bought.most_common(_N_OFFERS) if offer in known]
    broken = [o.offer for o in offers if o.health != "closed" and o.offer not in shown][:3]
    for offer in [*shown, *broken]:
        line = known[offer]
        colour = "green" if line.health == "closed" else "red"
        table.add_row(
            offer,
            f"{bought[offer] / max(len(recent), 1):.0%}",
            f"{line.ttft_ms:,.0f} ms" if math.isfinite(line.ttft_ms) else "",
            f"{line.fail_share:.1%}",
            f"{line.input_usd_per_mtok:.2f}",
            f"{line.output_usd_per_mtok:.2f}",
            f"[{colour}]{line.health}[/]",
        )
    return table


def _facts(counts: Counts, events: Sequence[str]) -> RenderableType:
    text = Text()
    text.append(
        f"Kafka: {counts.attempts_in_kafka:,} attempts   "
        f"ClickHouse: {counts.attempts_in_clickhouse:,} attempts, "
        f"{counts.decisions_in_clickhouse:,} decisions\n"
    )
    for event in events[-5:]:
        text.append(f"{event}\n", style="bold yellow")
    return Panel(text, title="facts and events", title_align="left")
