"""Sessions: which offer served a conversation last, and what of its prompt is warm there.

A session is one the app names (`sla.session`, the header `x-broker-session`), or a conversation
recognised by its beginning: what follows on the messages of an earlier request of the same key is
its next step. Each step is kept under the name of its own prefix, which never changes what it
means, so a worker that remembers it need ask nobody; only what another worker may have served is
asked of the shared state. An app's `prompt_cache_key` and `user` tell conversations apart, and
find one again whose history was cut; since apps use both for many conversations at once, a
conversation that has just begun is never bound by them.

Nothing here holds a prompt: names are hashes. All of it is best effort: without the shared state
a session begins anew, and no request waits for it longer than `_PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from aiohttp import web
from msgspec import Struct

from bidding.errors import BadRequest
from bidding.market import Catalogue
from bidding.request import BidRequest
from broker.handoff import handoff_of, why_moved
from broker.prefixes import Prefixes, prefixes_of, tools_mark
from broker.providers.quirks import PromptCache, quirks_of
from broker.shared_state import SharedState, StateUnavailable
from broker.wire.neutral import Message, NeutralRequest, Tool
from feeds.clock import Clock
from feeds.flight import switch_in
from feeds.records import AttemptRecord, DecisionRecord, HandoffRecord

logger = logging.getLogger(__name__)

HEADER: Final = "x-broker-session"
_PATIENCE_S: Final = 0.05
_PAUSE_US: Final = 1_000_000
_MOST_MARKS: Final = 128
_MOST_HANDOFFS: Final = 8
_MOST_STEPS: Final = 50_000
_LOOK_BACK: Final = 2
_LONGEST_NAME: Final = 256
_LEAST_HITS: Final = 0.05


class OfferFacts(Struct, frozen=True):
    """What a session needs to know of an offer; `cache` None: it keeps nothing of prompts."""

    family: str
    cache: PromptCache | None


def offer_facts(catalogue: Catalogue) -> dict[str, OfferFacts]:
    """The facts of all offers, by id."""
    providers = {p.id: p for p in catalogue.providers}
    families = {m.id: m.family for m in catalogue.models}
    return {
        offer.id: OfferFacts(
            families[offer.model],
            None
            if offer.prices.cache_read_nusd_per_mtok is None
            else quirks_of(providers[offer.provider]).prompt_cache,
        )
        for offer in catalogue.offers
    }


class Kept(Struct, array_like=True):
    """A served step, as it is kept.

    Attributes
    ----------
    warm_tokens : of the prompt, what the offer is believed to hold until `warm_until_us`
    hit_share : what the offer's cache in fact gave of what was believed warm, lately
    marks, sizes : of its prefixes, see `Prefixes.packed`
    """

    session: str
    step: int
    offer: str
    at_us: int
    warm_tokens: int
    warm_until_us: int
    hit_share: float
    tools: bytes
    marks: bytes
    sizes: bytes
    handoffs: list[HandoffRecord]


class Step(Struct, kw_only=True):
    """A request's place in its session: the `number`-th, kept under `keys` once served.

    `before` is the step before it, of whose prompt `cached_tokens` are believed warm still.
    """

    session: str
    number: int
    keys: tuple[str, ...]
    prefixes: Prefixes
    tools: bytes
    before: Kept | None
    cached_tokens: int
    family: str | None

    def ask(self, asked: BidRequest) -> BidRequest:
        """What the auction is asked, with the session's incumbent."""
        if self.before is None:
            return asked
        return msgspec.structs.replace(
            asked,
            incumbent=self.before.offer,
            incumbent_cached_tokens=min(self.cached_tokens, asked.input_tokens),
            incumbent_blocks=self.prefixes.n_reasoning,
        )


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Kept)


class Sessions:
    """All sessions of a gateway's keys, as this worker knows them.

    Parameters
    ----------
    facts : what is known of each offer, by id
    """

    def __init__(self, shared: SharedState, facts: Mapping[str, OfferFacts], clock: Clock) -> None:
        self._shared = shared
        self._facts = facts
        self._clock = clock
        self._steps: OrderedDict[str, Kept] = OrderedDict()
        self._unsaved: dict[str, bytes] = {}
        self._saving: asyncio.Task[None] | None = None
        self._pause_until_us = 0

    async def step_of_request(
        self, request: NeutralRequest, key_id: str, header: str | None
    ) -> Step | None:
        """A request's place in its session; None for what has none, such as embeddings."""
        if request.embedding is not None:
            return None
        named = header if request.sla is None else request.sla.session or header
        return await self.step_of(
            request.messages,
            key_id=key_id,
            name=named,
            hints=(request.prompt_cache_key, request.user),
            tools=request.tools,
        )

    async def step_of(
        self,
        messages: Sequence[Message],
        *,
        key_id: str,
        name: str | None,
        hints: tuple[str | None, ...] = (),
        tools: tuple[Tool, ...] = (),
    ) -> Step:
        """The place of `messages` in the session called `name`, or in the one they go on.

        Parameters
        ----------
        key_id : whose sessions; no key sees another's
        hints : names an app uses for many conversations, the narrowest first
        """
        seed = "\x1f".join((key_id, *(hint or "" for hint in hints)))
        prefixes = prefixes_of(messages, seed)
        if name is not None:
            keys = [_key("n", key_id, name)]
            before = await self._newest(keys[0], prefixes)
        else:
            keys = [_hex(prefixes.marks[-1])] if prefixes.marks else []
            keys += [_key("h", key_id, hint) for hint in hints if hint]
            before = None
            if prefixes.goes_on:
                before = await self._before(prefixes, keys[1:])
        now_us = self._clock.now_us()
        mark = tools_mark(tools)
        session = f"s_{keys[0]}" if name is not None else f"s_{secrets.token_hex(10)}"
        return Step(
            session=session if before is None else before.session,
            number=1 if before is None else before.step + 1,
            keys=tuple(keys),
            prefixes=prefixes,
            tools=mark,
            before=before,
            cached_tokens=0 if before is None else self._warm(before, prefixes, mark, now_us),
            family=None if before is None else self._family(before.offer),
        )

    def served(
        self, step: Step, record: DecisionRecord, attempts: Sequence[AttemptRecord] = ()
    ) -> None:
        """Write what a settled decision means for its session into `record`, and keep it.

        A request that nobody served leaves the session where it was.
        """
        note_step(step, record)
        offer = record.delivered_offer or (record.winner if record.only else None)
        record.handoff = why_moved(record, switch_in(record), offer, list(attempts))
        if offer is None:
            return
        moved_family = step.family is not None and self._family(offer) != step.family
        if record.handoff and moved_family:
            record.handoff_dropped = step.prefixes.n_reasoning
        handoff = handoff_of(record)
        handoffs = [*record.earlier_handoffs, *([] if handoff is None else [handoff])]
        now_us = self._clock.now_us()
        marks, sizes = step.prefixes.packed(_MOST_MARKS)
        warm_tokens, until_us, hit_share = self._warmed(step, offer, record, attempts, now_us)
        kept = Kept(
            session=step.session,
            step=step.number,
            offer=offer,
            at_us=now_us,
            warm_tokens=warm_tokens,
            warm_until_us=until_us,
            hit_share=hit_share,
            tools=step.tools,
            marks=marks,
            sizes=sizes,
            handoffs=handoffs[-_MOST_HANDOFFS:],
        )
        packed = _encode(kept)
        for key in step.keys:
            self._remember(key, kept)
            self._unsaved[key] = packed
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save())

    @staticmethod
    def family_before(step: Step | None) -> str | None:
        """The family of models that wrote the history, as far as known."""
        return None if step is None else step.family

    async def close(self) -> None:
        """Until what was served is kept."""
        while self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)

    async def _newest(self, key: str, prefixes: Prefixes) -> Kept | None:
        """A named session's last step. What this worker remembers is the last one if the
        request goes on from it; else another worker may have served a later one.
        """
        mine = self._steps.get(key)
        if mine is not None and prefixes.goes_on_from(mine.marks):
            return mine
        found = await self._asked(key)
        if mine is None or (found is not None and found.at_us > mine.at_us):
            return found
        return mine

    async def _before(self, prefixes: Prefixes, hints: Sequence[str]) -> Kept | None:
        """The latest request that this one goes on from; where there is none, its hints' last."""
        keys = [_hex(prefixes.marks[i]) for i in reversed(prefixes.turns[-_LOOK_BACK:])]
        for key in (*keys, *hints):
            found = self._steps.get(key) or await self._asked(key)
            if found is not None:
                return found
        return None

    async def _asked(self, key: str) -> Kept | None:
        now_us = self._clock.now_us()
        if now_us < self._pause_until_us:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                packed = await self._shared.session(key, now_us)
            if packed is None:
                return None
            kept = _decoder.decode(packed)
        except (StateUnavailable, TimeoutError) as error:
            self._pause_until_us = now_us + _PAUSE_US
            logger.warning("sessions of other workers cannot be asked for: %s", error or "timeout")
            return None
        except msgspec.DecodeError:
            return None
        self._remember(key, kept)
        return kept

    def _remember(self, key: str, kept: Kept) -> None:
        self._steps[key] = kept
        self._steps.move_to_end(key)
        if len(self._steps) > _MOST_STEPS:
            self._steps.popitem(last=False)

    async def _save(self) -> None:
        """Keep what was served, all that gathered at once, until nothing is left."""
        try:
            while self._unsaved:
                unsaved, self._unsaved = self._unsaved, {}
                try:
                    await self._shared.keep_sessions(list(unsaved.items()), self._clock.now_us())
                except StateUnavailable as error:
                    logger.warning("%d steps of sessions were not kept: %s", len(unsaved), error)
        finally:
            self._saving = None

    def _family(self, offer: str) -> str | None:
        facts = self._facts.get(offer)
        return None if facts is None else facts.family

    def _warm(self, before: Kept, prefixes: Prefixes, tools: bytes, now_us: int) -> int:
        """Tokens of this prompt that the incumbent is believed to hold."""
        facts = self._facts.get(before.offer)
        if facts is None or facts.cache is None or now_us >= before.warm_until_us:
            return 0
        if tools != before.tools:
            return 0
        share = prefixes.shared_share(before.marks, before.sizes)
        n = _blocks(round(before.warm_tokens * share), facts.cache)
        return round(n * before.hit_share)

    def _warmed(
        self,
        step: Step,
        offer: str,
        record: DecisionRecord,
        attempts: Sequence[AttemptRecord],
        now_us: int,
    ) -> tuple[int, int, float]:
        """What the offer holds of the prompt now, until when, and how far to believe it."""
        facts = self._facts.get(offer)
        if facts is None or facts.cache is None:
            return 0, 0, 1.0
        n_tokens, hit_share = record.input_tokens, 1.0
        before = step.before
        told = [a for a in attempts if a.offer == offer and not a.usage_estimated]
        if before is not None and before.offer == offer:
            hit_share = before.hit_share
            believed = step.cached_tokens / hit_share
            if told and believed > 0:
                hit_share += 0.5 * (min(told[-1].cached_tokens / believed, 1.0) - hit_share)
                hit_share = max(hit_share, _LEAST_HITS)
        if facts.cache.marked:
            size = step.prefixes.sizes[-1] if step.prefixes.sizes else 0
            n_tokens = round(n_tokens * step.prefixes.marked / size) if size else 0
        warm = _blocks(n_tokens, facts.cache)
        return warm, now_us + round(facts.cache.ttl_s * 1e6), hit_share


def session_named(http: web.Request) -> str | None:
    """The session that a request's header names. Raises `BadRequest` on one too long."""
    name = http.headers.get(HEADER) or None
    if name is not None and len(name) > _LONGEST_NAME:
        raise BadRequest(
            f"{HEADER} is over {_LONGEST_NAME} characters", path=HEADER, remedy="name it shorter"
        )
    return name


def note_step(step: Step, record: DecisionRecord) -> None:
    """Write a request's place in its session into its record."""
    record.session = step.session
    record.session_step = step.number
    if step.before is not None:
        record.earlier_handoffs = step.before.handoffs


def headers_of(
    step: Step, record: DecisionRecord, offer: str, attempts: list[AttemptRecord]
) -> dict[str, str]:
    """What an answer's headers say of its session."""
    headers = {HEADER: f"{step.session}; step={step.number}"}
    if record.incumbent:
        why = record.handoff or why_moved(record, switch_in(record), offer, attempts)
        moved = f"from={record.incumbent}; why={why}"
        headers["x-broker-handoff"] = moved if why else "stayed"
    return headers


def _blocks(n_tokens: int, cache: PromptCache) -> int:
    whole = n_tokens // cache.block_tokens * cache.block_tokens
    return whole if whole >= cache.least_tokens else 0


def _key(kind: str, key_id: str, name: str) -> str:
    return sha256("\x1f".join((kind, key_id, name)).encode("utf-8", "replace")).hexdigest()[:20]


def _hex(mark: bytes) -> str:
    return mark[:12].hex()
