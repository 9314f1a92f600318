"""From a request to a reply: which item it is, tool call or text, cut to length, usage."""

from __future__ import annotations

import json
from typing import Any

from bidding.market import Capability, Model
from broker.paper.ask import Ask, Choice, Reply, ToolCall, ToolSpec
from broker.paper.behaviour import Behaviour
from broker.paper.errors import BadAsk
from broker.paper.schema_instance import instance
from broker.paper.tasks import TaskItem, recognise
from broker.paper.tokens import CHARS_PER_TOKEN, TOKENS_PER_IMAGE, count_tokens, prompt_tokens


def input_tokens(ask: Ask) -> int:
    """Tokens of the whole prompt, tools and images included."""
    total = prompt_tokens(turn.text for turn in ask.turns) + TOKENS_PER_IMAGE * ask.n_images
    for tool in ask.tools:
        total += count_tokens(tool.name) + count_tokens(json.dumps(tool.parameters)) + 8
    return total


def refuse_impossible(ask: Ask, model: Model, n_input: int) -> None:
    """Raise `BadAsk` for what `model` cannot do."""
    room = model.context_window
    if n_input + (ask.max_tokens or 0) > room:
        raise BadAsk(
            f"This model's maximum context length is {room} tokens. However, your messages "
            f"resulted in {n_input} tokens and asked for {ask.max_tokens or 0} more.",
            code="context_length_exceeded",
            param="messages",
        )
    needs = [
        (bool(ask.tools), Capability.TOOLS, "tools"),
        (ask.n_images > 0, Capability.VISION, "images"),
        (ask.json_schema is not None, Capability.JSON_SCHEMA, "response_format json_schema"),
        (ask.n > 1, Capability.N_CHOICES, "n > 1"),
    ]
    for wanted, capability, name in needs:
        if wanted and capability not in model.mask:
            raise BadAsk(f"{model.id} does not support {name}.", code="unsupported_parameter")


def compose(
    behaviour: Behaviour,
    ask: Ask,
    model: Model,
    *,
    reply_id: str,
    created: int,
    n_input: int,
    points: float,
) -> Reply:
    """What a seller of `model` replies to `ask`, its quality `points` below the usual."""
    item = next((found for t in reversed(ask.turns) if (found := recognise(t.text))), None)
    limit = min(ask.max_tokens or model.max_output_tokens, model.max_output_tokens)
    choices, n_output, n_reasoning = [], 0, 0
    for nth in range(ask.n):
        tool = _tool_wanted(ask)
        if tool is not None:
            arguments = json.dumps(instance(tool.parameters, _given(behaviour, model, item)))
            call = ToolCall(f"call_{reply_id[-12:]}{nth}", tool.name, arguments)
            choices.append(Choice("", "tool_calls", call))
            n_output += count_tokens(arguments) + count_tokens(tool.name)
            continue
        text, reasoning = _text(behaviour, ask, model, item, points, nth)
        reasoning = min(reasoning, max(0, limit - 1))
        choice = _cut(text, limit - reasoning, ask.stop)
        choices.append(choice)
        n_reasoning += reasoning
        n_output += count_tokens(choice.text) + reasoning
    return Reply(
        id=reply_id,
        model=ask.model,
        created=created,
        choices=choices,
        input_tokens=n_input,
        output_tokens=n_output,
        reasoning_tokens=n_reasoning,
    )


def _text(
    behaviour: Behaviour, ask: Ask, model: Model, item: TaskItem | None, points: float, nth: int
) -> tuple[str, int]:
    last = ask.turns[-1]
    if last.tool_result:
        return f"The tool says: {last.text}", 0
    if ask.json_schema is not None:
        given = _given(behaviour, model, item, points, nth)
        return json.dumps(instance(ask.json_schema, given)), 0
    if item is not None:
        answer = behaviour.answer(model.id, item, points=points, nth=nth, terse=ask.json_mode)
        return answer.text, answer.reasoning_tokens
    plain = behaviour.plain_answer(model.id, last.text, nth)
    return (json.dumps({"answer": plain.text}) if ask.json_mode else plain.text), (
        plain.reasoning_tokens
    )


def _given(
    behaviour: Behaviour, model: Model, item: TaskItem | None, points: float = 0.0, nth: int = 0
) -> dict[str, Any]:
    """Values for the properties of a schema, so that JSON answers an item too."""
    if item is None:
        return {}
    answer = behaviour.answer(model.id, item, points=points, nth=nth, terse=True)
    found: dict[str, Any] = json.loads(answer.text)
    stated = found.get("answer")
    if isinstance(stated, str) and stated.lstrip("-").isdigit():
        found["answer"] = int(stated)
    return found


def _tool_wanted(ask: Ask) -> ToolSpec | None:
    if not ask.tools or ask.tool_choice == "none" or ask.turns[-1].tool_result:
        return None
    if ask.tool_choice == "required":
        return ask.tools[0]
    if ask.tool_choice != "auto":
        named = [tool for tool in ask.tools if tool.name == ask.tool_choice]
        if not named:
            raise BadAsk(f"tool_choice names no tool: {ask.tool_choice!r}", param="tool_choice")
        return named[0]
    said = ask.turns[-1].text.lower()
    return next((tool for tool in ask.tools if tool.name.lower() in said), None)


def _cut(text: str, limit: int, stops: list[str]) -> Choice:
    finish, stopped_by = "stop", None
    for stop in stops:
        at = text.find(stop) if stop else -1
        if at >= 0:
            text, finish, stopped_by = text[:at], "stop_sequence", stop
    if count_tokens(text) > limit:
        return Choice(text[: limit * CHARS_PER_TOKEN], "length")
    return Choice(text, finish, None, stopped_by)
