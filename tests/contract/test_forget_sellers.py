"""Who sells or pushes telemetry is forgotten as well: asks, notices, mutes, what was pushed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from analytics.chain import Chain, ChainStats
from analytics.forget import counts, keys_of
from analytics.restore import restore
from analytics.store import Store
from bidding.market import PriceList
from broker import forget_command
from broker.config import Settings
from broker.embedded.store import ChdbServer
from broker.embedded.tansu import Tansu
from broker.shared_state import StateSettings
from feeds.codec import encode
from feeds.compacted import latest
from feeds.control_records import KeyPolicy, KeyRecord
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.market_records import AskRecord, NoticeRecord, PriceRecord, SourceRecord
from feeds.producer import LogProducer
from feeds.records import DeadRecord
from feeds.topics import ATTEMPTS, DEAD, KEYS, NOTICES, PRICES, SOURCES, TOPICS, Topic
from tests.fakes import facts
from tests.fakes.desk import migrated

PRICE = PriceList(input_nusd_per_mtok=10**8, output_nusd_per_mtok=10**8)
#: Each tenant sells an offer and pushes under a name of its own; `shared` is a name of two.
OFFER = {"acme": "acme/m", "zeta": "zeta/m"}
SOURCE = {"acme": "acme-gw", "zeta": "zeta-gw"}
BOTH = ("acme", "zeta")


def ask(tenant: str, at_us: int = facts.T0_US) -> AskRecord:
    return AskRecord(
        ask_id=f"ask_of_{tenant}",
        offer=OFFER[tenant],
        at_us=at_us,
        prices=PRICE,
        from_us=at_us,
        until_us=at_us + 10**9,
        seller=tenant,
        key_id=f"key_of_{tenant}",
        signature="c2ln",
        signed="{}",
    )


def notice(tenant: str) -> NoticeRecord:
    return NoticeRecord(
        ask_id=f"ask_of_{tenant}",
        offer=OFFER[tenant],
        seller=tenant,
        at_us=facts.T0_US,
        result="won",
        reason="won",
        n=3,
    )


def mute(source: str) -> SourceRecord:
    return SourceRecord(source=source, at_us=facts.T0_US, until_us=facts.T0_US + 1, offer="p0/m0")


def key(tenant: str, source: str, n: int) -> KeyRecord:
    return KeyRecord(
        key_id=f"{tenant}-{n}",
        digest="d",
        tenant=tenant,
        scopes=["telemetry"],
        at_us=facts.T0_US,
        by="ops",
        policy=KeyPolicy(source=source),
    )


def pushed(i: int, pusher: str, tenant: str) -> Any:
    record = facts.attempt(i)
    record.source, record.pusher, record.tenant = "pushed", pusher, tenant
    return record


def dead(tenant: str) -> DeadRecord:
    return DeadRecord(
        at_us=facts.T0_US,
        topic=NOTICES.name,
        partition=0,
        offset=0,
        reason="bad",
        payload=encode(notice(tenant))[:-1],
    )


def written() -> dict[Topic, list[Any]]:
    """What both have left behind, theirs last, so that their rows end each chain."""
    listed = PriceRecord(offer="acme/m", at_us=facts.T0_US, prices=PRICE, source="own")
    return {
        KEYS: [
            *(key(t, SOURCE[t], 1) for t in BOTH),
            *(key(t, "shared", 2) for t in BOTH),
        ],
        PRICES: [listed, *(ask(t) for t in ("zeta", "acme")), ask("acme", facts.T0_US + 5)],
        NOTICES: [notice(t) for t in ("zeta", "acme", "acme")],
        SOURCES: [mute(s) for s in ("shared", "zeta-gw", "acme", "acme-gw")],
        # Over HTTP the key's tenant is noted; straight onto the log nobody's.
        ATTEMPTS: [
            pushed(0, "zeta-gw", "zeta"),
            pushed(1, "shared", ""),
            pushed(2, "acme-gw", ""),
            pushed(3, "shared", "acme"),
        ],
        DEAD: [dead(t) for t in ("zeta", "acme")],
    }


@pytest.fixture
async def store(chdb_server: ChdbServer) -> AsyncIterator[Store]:
    async with migrated(chdb_server) as store:
        for topic, records in written().items():
            await chain(store, topic).append(facts.batch(topic, records, 0, log="L"))
        yield store


@pytest_asyncio.fixture
async def kafka() -> AsyncIterator[KafkaSettings]:
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        await ensure_topics(settings, TOPICS)
        async with LogProducer(settings) as producer:
            for topic in (PRICES, SOURCES):
                await producer.publish(topic, written()[topic])
        yield settings


def chain(store: Store, topic: Topic) -> Chain:
    made = Chain(store, topic, "L", 1, 0, today=facts.today, stats=ChainStats())
    made.next_offset = 0
    return made


async def at_once(_: float) -> None:
    """Nobody else writes here, so nothing need be waited for."""


async def saying(store: Store, *words: str) -> set[str]:
    """Tables of the raw database where any column still holds one of `words`."""
    tables = await store.query(
        "SELECT name FROM system.tables WHERE database = {raw:String} AND total_rows > 0",
        {"raw": store.settings.raw},
    )
    found = set()
    for (table,) in tables.rows:
        text = await store.export(
            "SELECT * FROM {raw:Identifier}.{t:Identifier}", {"t": table}, fmt="JSONEachRow"
        )
        # A record kept whole is text in a column, its quotes escaped.
        found |= {table for w in words if f'"{w}"'.encode() in text.replace(b"\\", b"")}
    return found


async def test_asks_notices_mutes_and_what_was_pushed_are_forgotten(
    store: Store, kafka: KafkaSettings, tmp_path: Path
) -> None:
    before = await counts(store, tenant="acme")
    assert {t: n for t, n in before.items() if n} == {
        "attempts": 2, "dead": 1, "notices": 2, "prices": 2, "sources": 2, "latest": 3,
    }  # fmt: skip
    others = await counts(store, tenant="zeta")
    settings = Settings(
        data_dir=str(tmp_path), store=store.settings, state=StateSettings(), kafka=kafka
    )
    told = await forget_command.run(settings, tenant="acme", sleep=at_once)
    assert told.forgotten
    assert {t.table: t.removed for t in told.tables} == before
    # Its keys stay, revoked or not, and are said to; nothing else names it, its asks or sources.
    assert await saying(store, "acme", "acme-gw", "ask_of_acme", "key_of_acme") <= {
        "keys",
        "latest",
    }
    assert await counts(store, tenant="zeta") == others
    names = await store.query(
        "SELECT key FROM {raw:Identifier}.latest WHERE topic != 'control.keys'"
    )
    assert {k for (k,) in names.rows} == {"acme/m", "ask:zeta/m", "shared", "zeta-gw"}
    # On the log its ask has ended, and its mutes are gone for whoever reads it anew.
    asks = {k: r for k, (r, _) in (await latest(kafka, PRICES)).items() if isinstance(r, AskRecord)}
    assert {k: (r.seller, r.until_us > 0) for k, r in asks.items()} == {
        "ask:acme/m": ("", False), "ask:zeta/m": ("zeta", True),
    }  # fmt: skip
    assert set(await latest(kafka, SOURCES)) == {"shared", "zeta-gw"}
    assert await keys_of(store, "acme") == {}
    again = await forget_command.run(settings, tenant="acme", sleep=at_once)
    assert {t.before for t in again.tables} == {0}


async def test_what_was_forgotten_neither_comes_back_nor_stops_the_recorder(
    store: Store, kafka: KafkaSettings, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=str(tmp_path), store=store.settings, state=StateSettings(), kafka=kafka
    )
    for tenant in BOTH:
        assert (await forget_command.run(settings, tenant=tenant, sleep=at_once)).forgotten
    for topic, records in written().items():
        assert await chain(store, topic).resume() == len(records), topic.name
    async with Tansu() as log:
        empty = KafkaSettings.embedded(log.bootstrap)
        await ensure_topics(empty, TOPICS)
        await restore(store, empty, (PRICES, SOURCES), today=facts.today)
        assert set(await latest(empty, PRICES)) == {"acme/m"}
        assert set(await latest(empty, SOURCES)) == {"shared"}


async def test_without_the_log_nothing_is_removed_of_one_who_sells(
    store: Store, tmp_path: Path
) -> None:
    from feeds.errors import LogUnavailable

    nowhere = KafkaSettings(bootstrap="127.0.0.1:1")
    settings = Settings(
        data_dir=str(tmp_path), store=store.settings, state=StateSettings(), kafka=nowhere
    )
    before = await counts(store, tenant="acme")
    with pytest.raises(LogUnavailable):
        await forget_command.run(settings, tenant="acme", sleep=at_once)
    assert await counts(store, tenant="acme") == before
