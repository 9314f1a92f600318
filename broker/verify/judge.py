"""Whether an answer passes what the app asked of it: check by check, the cheapest first."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from bidding.errors import BadRequest
from bidding.request import Verify
from broker.verify.checker import Checker, CheckStopped
from broker.verify.child import Task
from broker.verify.webhook import NoWord, Webhooks
from broker.wire.neutral import Answer, Choice, NeutralRequest

PASSED: Final = "passed"
UNKNOWN: Final = "unknown"
GOOD_ENOUGH: Final = 0.5
"""A webhook's score from which an answer passes."""
CHECK_WEIGHTS: Final = {
    "webhook": 1.0,
    "json_schema": 0.3,
    "tools": 0.3,
    "regex": 0.3,
    "not_refused": 0.1,
}
"""What a verdict weighs as a quality score, against one by who knows: well-formed is not yet right.
Passing and failing weigh the same, or the share that passes would be learnt too low.
"""
_DECLINES: Final = re.compile(
    r"\s*(i['’]?m (very |really |so )?sorry,? (but )?(i|as)\b|i (cannot|can['’]?t|am unable to|"
    r"am not able to|won['’]?t) (help|assist|comply|provide|answer|do|fulfil)|as an ai\b|"
    r"sorry,? (but )?i (can|am))",
    re.IGNORECASE,
)
_OPENING: Final = 200
_encode = msgspec.json.Encoder().encode


class Ruling(Struct, frozen=True):
    """`check`: the one that failed, `passed`, or `unknown`; `score` 0 to 1."""

    check: str
    score: float = 0.0


class Judge:
    """Rules on answers."""

    def __init__(self, checker: Checker, webhooks: Webhooks) -> None:
        self._checker = checker
        self._webhooks = webhooks

    async def look_at(self, verify: Verify, request: NeutralRequest) -> None:
        """Whether the checks can be made at all, before anything is bought.

        Raises
        ------
        BadRequest
            With the path to what cannot.
        """
        at = "sla.verify"
        if request.embedding is not None:
            raise BadRequest("vectors cannot be checked", path=at, remedy="remove it")
        if not checks_of(verify):
            known = ", ".join(CHECK_WEIGHTS)
            raise BadRequest("no check is asked for", path=at, remedy=f"give one of {known}")
        if verify.tools:
            if not request.tools:
                raise BadRequest(
                    "there are no tools", path=f"{at}.tools", remedy="send tools, or remove it"
                )
            for tool in request.tools:
                if tool.parameters is not None and bytes(tool.parameters):
                    schema = bytes(tool.parameters).decode()
                    await self._checker.look_at(Task(schema=schema), f"{at}.tools")
        if verify.json_schema is not False:
            await self._checker.look_at(
                Task(schema=schema_of(verify, request)), f"{at}.json_schema"
            )
        if verify.regex is not None:
            await self._checker.look_at(Task(regex=verify.regex), f"{at}.regex")
        if verify.webhook is not None:
            self._webhooks.look_at(verify.webhook)

    async def rule(
        self, verify: Verify, request: NeutralRequest, answer: Answer, told: dict[str, Any]
    ) -> Ruling:
        """Check one answer; `told` goes to the webhook beside it."""
        try:
            for choice in answer.choices:
                failed = await self._failed(verify, request, choice)
                if failed:
                    return Ruling(failed)
            if verify.webhook is None:
                return Ruling(PASSED, 1.0)
            choices = [_shown(choice) for choice in answer.choices]
            body = told | {"answer": {"choices": choices}}
            score = await self._webhooks.ask(verify.webhook, body)
        except (CheckStopped, NoWord):
            return Ruling(UNKNOWN)
        return Ruling(PASSED if score >= GOOD_ENOUGH else "webhook", score)

    async def _failed(self, verify: Verify, request: NeutralRequest, choice: Choice) -> str:
        """The check that a choice fails; empty where it passes."""
        if verify.not_refused and is_refusal(choice):
            return "not_refused"
        if verify.tools and not await self._calls_fit(request, choice):
            return "tools"
        # A call of a tool is no answer yet: what an answer must look like does not concern it.
        if choice.tool_calls and not choice.text:
            return ""
        if verify.regex is not None:
            found = await self._checker.find(Task(text=choice.text, regex=verify.regex))
            if not found.ok:
                return "regex"
        if verify.json_schema is not False:
            task = Task(text=choice.text, schema=schema_of(verify, request))
            if not (await self._checker.find(task)).ok:
                return "json_schema"
        return ""

    async def _calls_fit(self, request: NeutralRequest, choice: Choice) -> bool:
        tools = {tool.name: tool for tool in request.tools}
        for call in choice.tool_calls:
            tool = tools.get(call.name)
            if tool is None:
                return False
            schema = "{}" if tool.parameters is None else bytes(tool.parameters).decode() or "{}"
            found = await self._checker.find(Task(text=call.arguments or "{}", schema=schema))
            if not found.ok:
                return False
        return True


def checks_of(verify: Verify) -> list[str]:
    """The checks asked for, by name."""
    return [name for name in CHECK_WEIGHTS if getattr(verify, name) not in (None, False)]


def check_weight(verify: Verify) -> float:
    """What a verdict weighs as a quality score."""
    if verify.weight is not None:
        return verify.weight
    return max((CHECK_WEIGHTS[name] for name in checks_of(verify)), default=0.0)


def schema_of(verify: Verify, request: NeutralRequest) -> str:
    """The schema an answer must fit, as JSON. Raises `BadRequest` where there is none."""
    if isinstance(verify.json_schema, dict):
        return _encode(verify.json_schema).decode()
    form = request.response_format
    if form is None or form.schema is None:
        raise BadRequest(
            "the request has no schema of its own",
            path="sla.verify.json_schema",
            remedy="give the schema, or send response_format with one",
        )
    return bytes(form.schema).decode()


def is_refusal(choice: Choice) -> bool:
    """Whether the model declined: said so in its own field, was filtered, or opens as refusals do.

    Examples
    --------
    >>> is_refusal(Choice(text="I'm sorry, but I can't help with that."))
    True
    >>> is_refusal(Choice(text="Sorry to hear that! Try a restart."))
    False
    """
    if choice.refusal or choice.finish == "content_filter":
        return True
    return _DECLINES.match(choice.text[:_OPENING]) is not None


def _shown(choice: Choice) -> dict[str, Any]:
    calls = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in choice.tool_calls]
    return {
        "text": choice.text,
        "refusal": choice.refusal,
        "tool_calls": calls,
        "finish": choice.finish,
    }
