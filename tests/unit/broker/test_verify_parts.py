"""The parts of verify: stoppable checks, what counts as declining, who is asked next."""

from __future__ import annotations

import json

import pytest

from bidding.errors import BadRequest
from bidding.request import CHECKED, Sla, Verify
from broker.asking import as_decided
from broker.verify.checker import Checker, CheckStopped
from broker.verify.child import Task, find
from broker.verify.judge import check_weight, checks_of, is_refusal
from broker.verify.webhook import VerifySettings, Webhooks
from broker.wire.neutral import Choice

OBJECT = '{"type": "object", "required": ["a"]}'


def _doubling(n: int) -> str:
    """A schema of `n` lines that asks for 2 ** n steps."""
    deep = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(n)}
    return json.dumps({"$ref": "#/$defs/d0", "$defs": deep | {f"d{n}": {"type": "object"}}})


def test_texts_are_checked_as_asked() -> None:
    assert find(Task(text='{"a": 1}', schema=OBJECT)).ok
    assert find(Task(text='{"b": 1}', schema=OBJECT)).why == "/: required"
    assert find(Task(text="so: {}", schema=OBJECT)).why == "not JSON"
    assert find(Task(text="[" * 100_000, schema=OBJECT)).why == "not JSON"
    assert find(Task(text="it is 42.", regex=r"\b42\b")).ok
    assert find(Task(text="it is 41.", regex=r"\b42\b")).why == "does not match"
    for unusable in (Task(regex="("), Task(regex=r"(a)\1"), Task(schema='{"type": 7}')):
        assert find(unusable).bad_check


async def test_a_check_without_end_is_stopped_barred_and_in_nobodys_way() -> None:
    checker = Checker(limit_s=1.0)
    try:
        endless = Task(text="{}", schema=_doubling(60))
        with pytest.raises(CheckStopped, match="longer than"):
            await checker.find(endless)
        with pytest.raises(CheckStopped, match="before"):
            await checker.find(endless)
        assert (await checker.find(Task(text='{"a": 1}', schema=OBJECT))).ok
        with pytest.raises(BadRequest):
            await checker.look_at(Task(schema=_doubling(3).replace("object", "nope")), "sla")
    finally:
        await checker.close()


def test_declining_is_told_from_apologising() -> None:
    for text in (
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "As an AI language model, I…",
        "Sorry, I am not able to do that.",
    ):
        assert is_refusal(Choice(text=text)), text
    for text in ("Sorry to hear it! Restart it.", "I can help: 42.", "Answer: I cannot help."):
        assert not is_refusal(Choice(text=text)), text
    assert is_refusal(Choice(refusal="No."))
    assert is_refusal(Choice(text="x", finish="content_filter"))


def test_verdicts_weigh_what_their_checks_know() -> None:
    both = Verify(json_schema=True, webhook="https://x.example/")
    assert (checks_of(both), check_weight(both)) == (["webhook", "json_schema"], 1.0)
    assert check_weight(Verify(not_refused=True)) == 0.1
    assert check_weight(Verify(regex="x", weight=0.9)) == 0.9


def test_what_is_decided_knows_only_that_there_are_checks() -> None:
    sla = Sla(quality=0.9, verify=Verify(regex="x"), session="s")
    assert as_decided(sla) == Sla(quality=0.9, verify=CHECKED)
    assert as_decided(sla).class_key("acme", "math") == "acme|math|q0.9|v"
    hash(as_decided(sla))


def test_webhooks_are_asked_at_listed_origins_only() -> None:
    hooks = Webhooks(VerifySettings(webhooks=("https://ok.example", "http://10.0.0.1:80")))
    hooks.look_at("https://ok.example/any/path?x=1")
    for address in (
        "https://ok.example:444/",
        "http://ok.example/",
        "https://ok.example.evil.example/",
        "https://ok.example@evil.example/",
        "https://user:pw@ok.example/",
        "http://10.0.0.1/",  # listed, but not public and not listed as such
        "http://[::1]/",
        "file:///etc/passwd",
        "nonsense",
    ):
        with pytest.raises(BadRequest):
            hooks.look_at(address)
