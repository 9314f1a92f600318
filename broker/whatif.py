"""`broker whatif`, and the preview that operators see before they change the params.

The report is `analytics.whatif`'s. Where the log cannot speak for what would be bought, the paper
market is asked: what its sellers of the same name deliver to tasks it knows. That is no word on
anybody's real market and is told apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from analytics.reports import moment
from analytics.store import Store, StoreSettings
from analytics.whatif import Drives, Imagined
from analytics.whatif_read import MOST_DECISIONS, driven, params_in_force, recorded
from analytics.whatif_report import Outlook, Promise, WhatIf, report
from bidding.params import Params
from bidding.params_change import flat, with_changes
from bidding.request import decode_sla
from broker.params_file import numbers_in
from broker.rehearsal.market import PaperTruth

_PAPER_ITEMS: Final = 200


class PaperWord(Struct, frozen=True, kw_only=True):
    """What the paper market says of purchases that the log cannot speak for.

    `share` is the part of them that the paper market sells and whose tasks it knows.
    """

    share: float
    good: float
    on_time: float


class Preview(Struct, frozen=True, kw_only=True):
    """A report on a change of params, and over what it was made."""

    since: str
    from_version: int
    n_each: int
    whatif: WhatIf
    paper: PaperWord | None


async def preview(
    settings: StoreSettings,
    changes: Mapping[str, float],
    *,
    since: str = "24h",
    most: int = MOST_DECISIONS,
    now: Params | None = None,
) -> Preview:
    """What a change of params would do, by recorded traffic.

    Raises
    ------
    BadParams, UnknownParam
    BadParameter
        `since` is no time.
    StoreUnavailable, StoreRejected
    """
    begun = moment("since", since, datetime.now(UTC))
    async with await Store.open(settings) as store:
        before = await params_in_force(store) if now is None else now
        after = with_changes(before, changes, version=before.version + 1)
        found = await recorded(store, begun, most)
        drives = await driven(store, found, before, after)
        made = report(drives, n_missing=len(found.records) - drives.n_taken)
    return Preview(
        since=begun.isoformat(timespec="seconds"),
        from_version=before.version,
        n_each=found.n_each,
        whatif=made,
        paper=on_paper(drives),
    )


async def from_file(
    settings: StoreSettings, path: Path, *, since: str = "24h", most: int = MOST_DECISIONS
) -> Preview:
    """The same for the numbers in a file.

    Raises
    ------
    As `preview`.
    """
    async with await Store.open(settings) as store:
        now = await params_in_force(store)
    changes = changes_in(path, now)
    return await preview(settings, changes, since=since, most=most, now=now)


def changes_in(path: Path, now: Params) -> dict[str, float]:
    """The numbers a file states that differ from those in force: TOML or JSON, groups or paths.

    Raises
    ------
    BadParams
        It cannot be read, or holds something else than numbers.
    """
    known = flat(now)
    return {p: v for p, v in numbers_in(path).items() if known.get(p) != v}


def on_paper(drives: Drives) -> PaperWord | None:
    """The paper market's word on what the log cannot speak for; None where it has none."""
    truth = PaperTruth(0)
    items = {t: truth.items(t, _PAPER_ITEMS) for t in truth.catalogue.tasks}
    sums: dict[str, float] = defaultdict(float)
    known: dict[tuple[str, str, str], tuple[float, float]] = {}
    for one in drives.imagined:
        for offer, chance in _alone(one):
            sums["all"] += chance
            task = one.record.task
            if task not in items or offer not in truth.model_of:
                continue
            key = (task, offer, one.record.sla)
            if key not in known:
                good = [truth.expected_good_of(item, offer) for item in items[task]]
                sla = decode_sla(one.record.sla.encode())
                known[key] = (sum(good) / len(good), truth.expected_on_time(sla, offer))
            sums["sold"] += chance
            sums["good"] += chance * known[key][0]
            sums["on_time"] += chance * known[key][1]
    if not sums["sold"]:
        return None
    return PaperWord(
        share=sums["sold"] / sums["all"],
        good=sums["good"] / sums["sold"],
        on_time=sums["on_time"] / sums["sold"],
    )


def _alone(one: Imagined) -> list[tuple[str, float]]:
    chances = one.alone.tolist()
    return [(o, c) for o, c in zip(one.then.offers, chances, strict=True) if c > 0.0]


def in_words(told: Preview) -> str:
    """A preview for the terminal."""
    found = told.whatif
    lines = [
        f"{found.n_decisions} decisions since {told.since}, each standing for {told.n_each};"
        f" {found.n_missing} could not be made again.",
        *(f"  {c.path}: {c.old:g} -> {c.new:g}" for c in found.changed),
        f"Another offer would be the best bid of {found.changed_share:.1%} of requests.",
    ]
    for name, outlook, scale, unit in (
        ("cost", found.cost_usd, 1000.0, "$ per 1,000"),
        ("good", found.good, 100.0, "%"),
        ("on time", found.on_time, 100.0, "%"),
    ):
        if outlook is not None:
            lines.append(_line(name, outlook, scale, unit))
    lines += [_promise(p) for p in found.promises if p.verdict != "kept"]
    if not any(p.verdict in ("broken", "at_risk") for p in found.promises):
        lines.append("No promise would be broken by it.")
    for shift in _most_moved(found):
        lines.append(
            f"  {shift.offer}: {shift.share_now:.1%} -> {shift.share_then:.1%} of requests,"
            f" {shift.usd_now:.4f} -> {shift.usd_then:.4f} $"
        )
    if found.not_covered:
        lines.append(
            f"Not seen this way, they act in the estimators: {', '.join(found.not_covered)}."
        )
    if told.paper is not None:
        lines.append(
            f"Where the log cannot speak, the paper market (sells {told.paper.share:.0%} of that)"
            f" delivers {told.paper.good:.1%} good, {told.paper.on_time:.1%} on time."
        )
    return "\n".join(lines)


def _most_moved(found: WhatIf) -> Sequence[Any]:
    return [s for s in found.offers if abs(s.share_then - s.share_now) >= 0.005][:8]


def _line(name: str, outlook: Outlook, scale: float, unit: str) -> str:
    then = outlook.then
    dr = then.doubly_robust
    told = (
        f"{name}: {outlook.now * scale:.2f} -> {dr.value * scale:.2f}"
        f" [{dr.low * scale:.2f}, {dr.high * scale:.2f}] {unit}"
        f" (effective sample {then.ess:.0f}, supported {then.supported_share:.0%})"
    )
    return told if then.claimed else f"{told}; not claimed: {then.refused}"


def _promise(promise: Promise) -> str:
    word = {"broken": "BROKEN", "at_risk": "at risk", "missed_already": "missed already"}
    return (
        f"{word[promise.verdict]}: {promise.what} {promise.promised:g} of {promise.sla_class}:"
        f" {promise.now:.3f} -> {promise.then.value:.3f}"
        f" [{promise.then.low:.3f}, {promise.then.high:.3f}] over {promise.n}"
    )
