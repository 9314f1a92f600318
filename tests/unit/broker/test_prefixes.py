"""A conversation goes on from what it went on from, whatever apps do to the messages between."""

from __future__ import annotations

from broker.handoff import readable
from broker.prefixes import prefixes_of, tools_mark
from broker.wire.neutral import (
    Message,
    NeutralRequest,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)

SYSTEM = Message("system", (Text("Be brief."),))
ASKED = Message("user", (Text("What is 6 * 7?"),))
CALLED = Message("assistant", (Thinking("hm", signature="sig"), ToolCall("c1", "calc", "{}")))
RESULT = Message("tool", (ToolResult("c1", (Text("42"),)),))


def test_each_step_begins_with_what_an_earlier_one_was() -> None:
    first = prefixes_of([SYSTEM, ASKED], "k")
    second = prefixes_of([SYSTEM, ASKED, CALLED, RESULT], "k")
    assert (first.turns, first.goes_on) == ((), False)
    assert [second.marks[i] for i in second.turns] == [first.marks[-1]]
    assert second.shared_share(*first.packed(99)) == 1.0
    assert second.goes_on_from(first.packed(99)[0])
    assert not first.goes_on_from(second.packed(99)[0])
    third = prefixes_of([SYSTEM, ASKED, CALLED, RESULT, Message("assistant", ()), ASKED], "k")
    assert [third.marks[i] for i in third.turns] == [first.marks[-1], second.marks[-1]]


def test_cache_marks_and_reasoning_may_change_and_words_may_not() -> None:
    plain = prefixes_of([SYSTEM, ASKED, CALLED], "k")
    marked = Message("system", (Text("Be brief.", cache=True),))
    thoughtless = Message("assistant", CALLED.parts[1:])
    other = prefixes_of([marked, ASKED, thoughtless], "k")
    assert other.marks == plain.marks
    assert (plain.marked, other.marked, plain.n_reasoning, other.n_reasoning) == (0, 9, 1, 0)
    for changed in ([ASKED, SYSTEM], [SYSTEM, Message("assistant", ASKED.parts)]):
        assert prefixes_of(changed, "k").marks[-1] != plain.marks[1]
    assert prefixes_of([SYSTEM, ASKED], "another key").marks != plain.marks[:2]


def test_the_share_ends_where_the_words_part() -> None:
    first = prefixes_of([SYSTEM, ASKED], "k")
    other = prefixes_of([SYSTEM, Message("user", (Text("And 7 * 8?"),))], "k")
    assert other.shared_share(*first.packed(99)) == 9 / 23
    assert other.shared_share(*first.packed(1)) == 1.0
    assert other.shared_share(b"", b"") == 0.0
    long = "x" * 50_000
    a = prefixes_of([Message("user", (Text(long + "a"),))], "k")
    b = prefixes_of([Message("user", (Text(long + "b"),))], "k")
    assert a.marks != b.marks


def test_tools_have_a_mark_and_sealed_reasoning_is_taken_out() -> None:
    assert tools_mark(()) == b""
    assert tools_mark((Tool(name="a"),)) != tools_mark((Tool(name="b"),))
    sealed = Message("assistant", (Thinking("hm", signature="sig"),))
    request = NeutralRequest(model="m", messages=(ASKED, sealed, CALLED, RESULT))
    kept = readable(request).messages
    assert [len(m.parts) for m in kept] == [1, 1, 1]
    assert kept[1].parts == CALLED.parts[1:]
