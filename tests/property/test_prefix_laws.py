"""Laws of a conversation's prefixes: what goes on is recognised, what differs is not."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from broker.prefixes import prefixes_of
from broker.wire.neutral import Message, Role, Text, ToolCall, ToolResult

TEXTS = st.text(max_size=40)
ROLES: st.SearchStrategy[Role] = st.sampled_from(["system", "user", "assistant", "tool"])
PARTS = st.one_of(
    st.builds(Text, TEXTS, st.booleans()),
    st.builds(ToolCall, TEXTS, TEXTS, TEXTS),
    st.builds(ToolResult, TEXTS, st.tuples(st.builds(Text, TEXTS))),
)
MESSAGES = st.builds(Message, ROLES, st.lists(PARTS, max_size=3).map(tuple))
TALKS = st.lists(MESSAGES, min_size=1, max_size=8)
ASSISTANT = Message("assistant", (Text("so"),))
USER = Message("user", (Text("go on"),))


@given(TALKS, st.lists(st.just(USER), max_size=3))
def test_what_goes_on_names_the_request_it_goes_on_from(
    talk: list[Message], more: list[Message]
) -> None:
    asked = prefixes_of([*talk, USER], "k")
    later = prefixes_of([*talk, USER, ASSISTANT, USER, *more], "k")
    assert asked.marks[-1] in [later.marks[i] for i in later.turns]
    assert later.shared_share(*asked.packed(128)) in (0.0, 1.0)
    assert later.goes_on_from(asked.packed(128)[0])
    assert list(later.sizes) == sorted(later.sizes)


EMPTY = (Text(""), Text(""))


@given(TALKS, TALKS)
@example([Message("user", EMPTY)], [Message("user", (ToolResult("", EMPTY[:1]),))])
@example([Message("user", (Text("a\x1ft1:b"),))], [Message("user", (Text("a"), Text("b")))])
def test_different_words_have_different_names(a: list[Message], b: list[Message]) -> None:
    def told(talk: list[Message]) -> list[object]:
        return [(m.role, [p.text if isinstance(p, Text) else p for p in m.parts]) for m in talk]

    same = prefixes_of(a, "k").marks == prefixes_of(b, "k").marks
    assert same == (told(a) == told(b))
    assert prefixes_of(a, "k").marks != prefixes_of(a, "j").marks
