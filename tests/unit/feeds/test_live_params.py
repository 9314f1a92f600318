"""What is in force and what is tried, by the records of the params' topic."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bidding.params import Params
from bidding.request import Sla
from bidding.trial import Trial, class_and_arm, lot
from feeds.control_records import ParamsRecord
from feeds.live_params import GLOBAL_SCOPE, ParamsInForce


def record(scope: str, version: int, revision: int, event: str, **more: Any) -> ParamsRecord:
    params = Params().patched({"choice": {"optimism_sd": version / 10}}, version=version)
    told = {"at_us": 5, "by": "ops", "why": "test", "params": msgspec.json.encode(params).decode()}
    return msgspec.convert(
        {"scope": scope, "version": version, "revision": revision, "event": event, **told, **more},
        ParamsRecord,
    )


def test_a_trial_runs_from_its_record_until_its_end() -> None:
    now = ParamsInForce()
    assert now.take(record(GLOBAL_SCOPE, 1, 1, "set"))
    assert now.take(record("canary", 2, 2, "canary", share=0.1, tenant="t"))
    assert now.take(record("shadow", 3, 3, "shadow", share=1.0))
    assert now.canary is not None
    assert (now.canary.arm, now.canary.share, now.canary.tenant) == ("v2", 0.1, "t")
    assert now.canary.params.choice.optimism_sd == 0.2
    assert now.shadow is not None
    assert now.shadow.arm == "s3"
    assert now.params.version == 1
    # What was read before, read again, changes nothing.
    assert not now.take(record("canary", 2, 2, "canary", share=0.1, tenant="t"))
    assert now.take(record("canary", 2, 4, "end"))
    assert not now.take(record("canary", 2, 2, "canary", share=0.1, tenant="t"))
    assert now.canary is None
    assert now.take(record(GLOBAL_SCOPE, 2, 5, "promote"))
    assert now.params.version == 2


def test_params_that_cannot_be_read_start_no_trial() -> None:
    now = ParamsInForce()
    assert not now.take(record("canary", 2, 2, "canary", share=0.1, params='{"choice": 1}'))
    assert now.canary is None
    assert not now.take(record("somewhere", 2, 3, "canary", share=0.1))


def trial(**more: Any) -> Trial:
    told = {"kind": "canary", "params": Params().patched({}, version=7), "share": 0.1, **more}
    return Trial(**told)


def test_who_is_in_a_trial_is_drawn_once_and_for_all() -> None:
    canary = trial()
    inside = {k for k in map(str, range(20_000)) if canary.takes(k, "t", 1)}
    assert len(inside) / 20_000 == pytest.approx(0.1, abs=0.01)
    assert inside == {k for k in map(str, range(20_000)) if canary.takes(k, "u", 2)}
    # A larger share keeps who was inside; another trial draws anew.
    wider = trial(share=0.2)
    assert all(wider.takes(k, "t", 1) for k in inside)
    other = trial(params=Params().patched({}, version=8))
    both = sum(other.takes(k, "t", 1) for k in inside) / len(inside)
    assert both == pytest.approx(0.1, abs=0.03)
    assert 0.0 <= lot("x") < 1.0


def test_a_trial_of_a_tenant_takes_nobody_else_and_ends_by_itself() -> None:
    canary = trial(share=0.9, tenant="acme", until_us=100)
    assert not any(canary.takes(str(k), "other", 1) for k in range(100))
    assert any(canary.takes(str(k), "acme", 99) for k in range(100))
    assert not any(canary.takes(str(k), "acme", 100) for k in range(100))


def test_the_class_behind_an_arm() -> None:
    plain = Sla(quality=0.9).class_key("a~b", "math")
    assert class_and_arm(plain) == (plain, "")
    assert class_and_arm(f"{plain}~v12") == (plain, "v12")
    assert class_and_arm(f"{plain}~s3") == (plain, "s3")
