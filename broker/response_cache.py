"""Exact response cache: an answer bought before, for the very same request by the same key.

Off unless a key's policy turns it on (`cache_age_s`), and then only for requests that are meant
to have one answer: temperature 0, `top_k` 1, embeddings; with `cache_any` for all. What the app
asks of the market is part of the name (quality, compliance, task, check), what does not change
the answer is not (streaming, user, metadata, deadlines). Answers live in this worker's memory
alone, bounded by bytes, never on disk and never in the log; one that was cut off, filtered or
scored bad is not served again.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from bidding.errors import BadRequest
from bidding.request import Sla
from broker.auth import Caller
from broker.wire.neutral import Answer, NeutralRequest
from feeds.clock import Clock

HEADER: Final = "x-broker-cache"
OFFER: Final = "cache"
"""The offer that a hit was bought from."""
BAD: Final = 0.5
"""An answer scored below this is not served again."""
Word = Literal["off", "skipped", "bypass", "refresh", "miss", "hit"]
_WHOLE: Final = frozenset({"stop", "length", "tool_calls"})
_NO_PART: Final = frozenset(
    {"stream", "include_usage", "user", "metadata", "prompt_cache_key", "sla", "tools"}
    | {"response_format"}
)
_OF_SLA: Final = ("quality", "strict", "value_usd", "task", "compliance", "verify")


class CacheSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a worker keeps: in all, and of one answer."""

    max_bytes: Annotated[int, Meta(ge=0)] = 67_108_864
    max_answer_bytes: Annotated[int, Meta(ge=0)] = 1_048_576


class Cached(Struct, frozen=True, kw_only=True):
    """An answer as it is kept; `packed` is it as JSON."""

    packed: bytes
    at_us: int
    decision_id: str
    model: str
    p_good: float

    def answer(self) -> Answer:
        """A copy of its own for every app."""
        return _answers.decode(self.packed)


class Lookup(Struct, frozen=True, kw_only=True):
    """What the cache does for one request. `key` is empty where it does nothing."""

    word: Word
    key: str = ""
    hit: Cached | None = None


_answers = msgspec.json.Decoder(Answer)
_encode = msgspec.json.Encoder(order="sorted").encode
NO_LOOKUP: Final = Lookup(word="off")


class ResponseCache:
    """One worker's answers, the least recently used forgotten first."""

    def __init__(self, settings: CacheSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._kept: OrderedDict[str, Cached] = OrderedDict()
        self._key_of: dict[str, str] = {}
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def look_up(self, request: NeutralRequest, caller: Caller, header: str | None) -> Lookup:
        """What is kept for `request`, if its key and its header let it be looked for.

        Raises
        ------
        BadRequest
            The header says something unknown.
        """
        if header not in (None, "", "bypass", "refresh"):
            raise BadRequest(
                f"{HEADER}: {header!r} is not known", path=HEADER, remedy="say bypass or refresh"
            )
        policy = caller.policy
        if policy.cache_age_s is None:
            return NO_LOOKUP
        if header == "bypass":
            return Lookup(word="bypass")
        if not (policy.cache_any or is_deterministic(request)):
            return Lookup(word="skipped")
        key = key_of(request, caller)
        if header == "refresh":
            return Lookup(word="refresh", key=key)
        found = self._kept.get(key)
        oldest_us = self._clock.now_us() - round(policy.cache_age_s * 1e6)
        if found is None or found.at_us < oldest_us:
            return Lookup(word="miss", key=key)
        self._kept.move_to_end(key)
        return Lookup(word="hit", key=key, hit=found)

    def keep(
        self, lookup: Lookup, answer: Answer | None, *, decision_id: str, model: str, p_good: float
    ) -> None:
        """Keep a delivered answer, unless it is none to be served again."""
        if not lookup.key or answer is None or not _is_whole(answer):
            return
        packed = _encode(answer)
        if len(packed) > min(self._settings.max_answer_bytes, self._settings.max_bytes):
            return
        self._drop(lookup.key)
        self._kept[lookup.key] = Cached(
            packed=packed,
            at_us=self._clock.now_us(),
            decision_id=decision_id,
            model=model,
            p_good=p_good,
        )
        self._key_of[decision_id] = lookup.key
        self.n_bytes += len(packed)
        while self.n_bytes > self._settings.max_bytes:
            self._drop(next(iter(self._kept)))

    def forget(self, decision_id: str) -> None:
        """The answer of this decision was scored bad: serve it no more."""
        key = self._key_of.get(decision_id)
        if key is not None:
            self._drop(key)

    def _drop(self, key: str) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self.n_bytes -= len(gone.packed)
            self._key_of.pop(gone.decision_id, None)


def is_deterministic(request: NeutralRequest) -> bool:
    """Whether a request is meant to have one answer."""
    return request.embedding is not None or request.temperature == 0.0 or request.top_k == 1


def key_of(request: NeutralRequest, caller: Caller) -> str:
    """The name of everything that may change the answer, and of whose it is."""
    names = [n for n in NeutralRequest.__struct_fields__ if n not in _NO_PART]
    asked = request.sla or Sla()
    form = request.response_format
    parts: list[Any] = [
        (caller.tenant, caller.key_id, caller.policy.models),
        [getattr(asked, name) for name in _OF_SLA if hasattr(asked, name)],
        [getattr(request, name) for name in names],
        [[type(part).__name__ for part in m.parts] for m in request.messages],
        [(t.name, t.description, _plain(t.parameters), t.strict) for t in request.tools],
        None if form is None else (form.kind, form.name, _plain(form.schema), form.strict),
    ]
    return sha256(_encode(parts)).hexdigest()


def _plain(schema: Raw | None) -> Any:
    """A schema apart from how it is written."""
    if schema is None or not bytes(schema):
        return None
    return msgspec.json.decode(schema)


def _is_whole(answer: Answer) -> bool:
    return bool(answer.choices or answer.vectors) and all(
        choice.finish in _WHOLE and not choice.refusal for choice in answer.choices
    )
