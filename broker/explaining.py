"""`broker explain`: one decision's autopsy on the terminal, or many decisions made again."""

from __future__ import annotations

import time
from typing import Any

from msgspec import Struct, to_builtins

from analytics.explain import decision_line, decisions, sample
from analytics.remake import Verdict, remake, remake_all
from analytics.store import Store
from broker.autopsy import autopsy
from broker.config import Settings
from broker.errors import NotFound
from broker.recent import Flight
from broker.second_opinion import cached_opinion, second_opinion


class Tally(Struct, kw_only=True):
    """How many decisions were asked for, found, and came out the same to the last bit."""

    decisions: int
    found: int
    identical: int
    seconds: float
    missing: list[str]
    different: list[dict[str, Any]]

    @property
    def whole(self) -> bool:
        return self.decisions == self.found == self.identical


async def explain(settings: Settings, decision_id: str, *, replay: bool) -> dict[str, Any]:
    """The autopsy of a stored decision.

    Raises
    ------
    NotFound
    NotStored
        With `replay`: what it was made of is not in the store.
    StoreUnavailable, StoreRejected
    """
    async with await Store.open(settings.store) as store:
        line = await decision_line(store, decision_id)
        if line is None:
            raise NotFound(f"no decision {decision_id!r}")
        told = autopsy(Flight(line.decision, line.attempts, line.feedback))
        if replay:
            made = line.decision
            told["replay"] = (
                cached_opinion(made)
                if made.cached_from
                else second_opinion(await remake(store, made))
            )
        return told


def in_words(told: dict[str, Any]) -> str:
    """An autopsy for the terminal."""
    asked, decided = told["asked"], told["decided"]
    lines = [
        f"{told['decision_id']}  class {asked['sla_class']}, {asked['input_tokens']} tokens in,"
        f" params {decided['params_version']}, view {decided['view']}",
        *told["why"],
    ]
    lines += [
        f"  {event['at_ms']:>8.1f} ms  {event['event']:<12} {event['offer']}"
        f" {event.get('failure', '')}".rstrip()
        for event in told["timeline"]
    ]
    for score in told["feedback"]:
        lines.append(f"{score['source']} scored the answer {score['quality']:.2f}.")
    lines += told.get("replay", {}).get("why", [])
    return "\n".join(lines)


async def explain_sample(settings: Settings, n: int) -> Tally:
    """Make `n` stored decisions again.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    async with await Store.open(settings.store) as store:
        return await explain_all(store, await sample(store, n))


async def explain_all(store: Store, ids: list[str]) -> Tally:
    """Make the decisions of these ids again."""
    begun_s = time.monotonic()
    found = await decisions(store, ids)
    verdicts = await remake_all(store, found)
    known = {record.decision_id for record in found}
    return tally(ids, verdicts, known, time.monotonic() - begun_s)


def tally(ids: list[str], verdicts: list[Verdict], known: set[str], seconds: float) -> Tally:
    """Count; the first few failures are named."""
    remade = [v for v in verdicts if not v.missing]
    missing = [f"{i}: not stored" for i in ids if i not in known]
    missing += [f"{v.decision_id}: {v.missing}" for v in verdicts if v.missing]
    different = [to_builtins(v) for v in remade if not v.identical]
    return Tally(
        decisions=len(ids),
        found=len(remade),
        identical=sum(v.identical for v in remade),
        seconds=seconds,
        missing=missing[:20],
        different=different[:20],
    )
