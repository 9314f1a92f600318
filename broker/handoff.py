"""When another offer serves a session's step than the step before: why, and what it lost. Pure."""

from __future__ import annotations

import msgspec

from bidding.decision import Switch
from bidding.outcome import FailureClass
from bidding.units import usd_from_nusd
from broker.wire.neutral import Message, NeutralRequest, Thinking
from feeds.flight import switch_in
from feeds.records import AttemptRecord, DecisionRecord, HandoffRecord


def why_moved(
    record: DecisionRecord, switch: Switch | None, offer: str | None, attempts: list[AttemptRecord]
) -> str:
    """Why `offer` serves this step and not the session's incumbent; empty where nothing changed.

    `gain`: another offer was better by more than moving costs. `no_bid:REASON`: the incumbent
    could not bid. `failover:FAILURE`: it was chosen and its call failed.
    """
    if not record.incumbent or not offer or offer == record.incumbent:
        return ""
    if switch is not None and switch.moved:
        return "gain" if switch.no_bid is None else f"no_bid:{switch.no_bid}"
    ends = [a.failure for a in attempts if a.offer == record.incumbent]
    ends = [end for end in ends if end is not FailureClass.OK]
    return f"failover:{ends[-1]}" if ends else "failover:not_asked"


def handoff_of(record: DecisionRecord) -> HandoffRecord | None:
    """The hand-off in a settled decision; None where there was none."""
    target = record.delivered_offer or (record.winner if record.only else None)
    if not record.handoff or record.incumbent is None or target is None:
        return None
    switch = switch_in(record)
    moved = switch is not None and switch.moved
    return HandoffRecord(
        record.decision_id,
        record.session_step,
        record.incumbent,
        target,
        record.handoff,
        cost_nusd=switch.cost_nusd if switch is not None and moved else 0.0,
        gain_nusd=switch.gain_nusd if switch is not None and moved else None,
        n_dropped=record.handoff_dropped,
    )


def readable(request: NeutralRequest) -> NeutralRequest:
    """The request without reasoning that only its author's family of models can read."""
    messages = []
    for message in request.messages:
        kept = tuple([p for p in message.parts if not _is_sealed(p)])
        if len(kept) == len(message.parts):
            messages.append(message)
        elif kept:
            messages.append(Message(message.role, kept, message.name))
    return msgspec.structs.replace(request, messages=tuple(messages))


def _is_sealed(part: object) -> bool:
    return isinstance(part, Thinking) and not (part.signature is None and part.redacted is None)


def in_words(record: DecisionRecord) -> list[str]:
    """What became of the session in this step, as sentences."""
    if not record.incumbent:
        return []
    switch = switch_in(record)
    target = record.delivered_offer or record.winner
    if record.handoff.startswith("failover"):
        how = record.handoff.partition(":")[2]
        return [f"The session was handed over from {record.incumbent} to {target}: {how}."]
    if switch is None:
        return []
    if record.handoff.startswith("no_bid"):
        return [
            f"The session was handed over from {record.incumbent} to {target}: "
            f"{record.incumbent} could not bid ({switch.no_bid})."
        ]
    if record.handoff:
        parts = (
            f"warm cache ${usd_from_nusd(switch.lost_cache_nusd):.6f}, "
            f"another voice ${usd_from_nusd(switch.consistency_nusd):.6f}, "
            f"translation ${usd_from_nusd(switch.translation_nusd):.6f}"
        )
        return [
            f"The session was handed over from {record.incumbent} to {target}: better by "
            f"${usd_from_nusd(switch.gain_nusd or 0.0):.6f}, which is more than moving costs, "
            f"${usd_from_nusd(switch.cost_nusd):.6f} ({parts})."
        ]
    if switch.rival is not None:
        return [
            f"The session stayed with {record.incumbent}: {switch.rival} was better by "
            f"${usd_from_nusd(switch.rival_gain_nusd):.6f}, but moving there would have cost "
            f"${usd_from_nusd(switch.rival_cost_nusd):.6f}."
        ]
    if not switch.moved:
        return [f"The session stayed with {record.incumbent}, the best offer anyway."]
    return []
