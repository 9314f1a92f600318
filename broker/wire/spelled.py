"""A whole answer as the events that spell it out: what `collect` undoes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from broker.wire.neutral import (
    Answer,
    Choice,
    Event,
    Finish,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)


def events_of(answer: Answer) -> list[Event]:
    """The events of `answer`, its usage last; an app that streams cannot tell it from a stream
    that came in few pieces.
    """
    events: list[Event] = [Started(answer.id, answer.model)]
    for i, choice in enumerate(answer.choices):
        events += _of_choice(i, choice)
    events += answer.vectors
    if answer.usage is not None:
        events.append(answer.usage)
    return events


def _of_choice(i: int, choice: Choice) -> Iterator[Event]:
    for block in choice.thinking:
        if block.text:
            yield ThinkingDelta(block.text, choice=i)
        if block.signature is not None or block.redacted is not None:
            yield ThinkingDelta("", block.signature, block.redacted, choice=i)
    if choice.refusal:
        yield RefusalDelta(choice.refusal, i)
    first = choice.logprobs[0] if choice.logprobs else None
    if choice.text or first is not None:
        yield TextDelta(choice.text, i, first)
    for logprobs in choice.logprobs[1:]:
        yield TextDelta("", i, logprobs)
    for n, call in enumerate(choice.tool_calls):
        yield ToolCallDelta(n, call.id, call.name, call.arguments, choice=i)
    yield Finish(choice.finish, i, choice.stop_sequence)
