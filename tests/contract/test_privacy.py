"""Prompts are kept of nobody, or sealed; a tenant or a session is forgotten, which is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet

from analytics.chain import Chain, ChainStats
from analytics.forget import counts, forget, places
from analytics.reports import run as report
from analytics.store import Store
from bidding.errors import BadRequest
from broker import forget_command
from broker.config import Settings, masked
from broker.embedded.store import ChdbServer
from broker.shared_state import StateSettings
from broker.state_sqlite import SqliteState
from broker.vault import PrivacySettings, Vault, VaultFault
from feeds.clock import ManualClock
from feeds.codec import encode
from feeds.records import DeadRecord, PromptRecord
from feeds.topics import ATTEMPTS, DEAD, DECISIONS, FEEDBACK, PROMPTS, Topic
from tests.fakes import facts
from tests.fakes.desk import migrated
from tests.fakes.gateway_rig import rig
from tests.fakes.rollups import assert_rollups_equal_raw, unequal

KEY, OLD_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SECRET = "the cat sat on the mat, says nobody but me"
CLOCK = ManualClock(facts.T0_US)


async def at_once(_: float) -> None:
    """Nobody else writes here, so nothing need be waited for."""


def decision(i: int) -> Any:
    record = facts.decision(i)
    record.session = f"s_{i % 7}"
    record.tenant = f"t{i % 3}"
    record.sla_class = f"{record.tenant}|sum|q0.9"
    return record


def attempt(i: int) -> Any:
    record = facts.attempt(i)
    record.tenant, record.decision_id = f"t{i % 3}", f"d{i:08x}"
    record.sla_class, record.source, record.pusher = f"{record.tenant}|sum|q0.9", "gateway", ""
    return record


def score(i: int) -> Any:
    record = facts.feedback(i)
    record.tenant = f"t{i % 3}"
    record.sla_class = f"{record.tenant}|sum|q0.9"
    return record


def prompt(i: int) -> PromptRecord:
    vault = Vault(PrivacySettings(prompt_keys=[KEY]), CLOCK)
    sealed = vault.seal(decision(i), SECRET.encode())
    assert sealed is not None
    return sealed


def dead(i: int) -> DeadRecord:
    return DeadRecord(
        at_us=facts.T0_US,
        topic="http:/v1/outcomes",
        partition=0,
        offset=0,
        reason="bad",
        payload=encode(decision(i))[:-1],
    )


MAKERS: dict[Topic, Any] = {
    ATTEMPTS: attempt, DECISIONS: decision, FEEDBACK: score, PROMPTS: prompt, DEAD: dead,
}  # fmt: skip
N = 210


@pytest.fixture
async def store(chdb_server: ChdbServer) -> AsyncIterator[Store]:
    async with migrated(chdb_server) as store:
        for topic, make in MAKERS.items():
            for first in (0, N // 2):
                batch = facts.batch(
                    topic, [make(i) for i in range(first, first + N // 2)], first, log="L"
                )
                await chain(store, topic, first).append(batch)
        yield store


def chain(store: Store, topic: Topic, at: int = 0) -> Chain:
    made = Chain(store, topic, "L", 1, 0, today=facts.today, stats=ChainStats())
    made.next_offset = at
    return made


def settings_for(store: Store, folder: Path) -> Settings:
    return Settings(data_dir=str(folder), store=store.settings, state=StateSettings())


async def everything(store: Store, word: str) -> list[str]:
    """Tables of the raw database where any column still says `word`."""
    tables = await store.query(
        "SELECT name FROM system.tables WHERE database = {raw:String} AND total_rows > 0",
        {"raw": store.settings.raw},
    )
    found = []
    for (table,) in tables.rows:
        text = await store.export(
            "SELECT * FROM {raw:Identifier}.{t:Identifier}", {"t": table}, fmt="JSONEachRow"
        )
        if f'"{word}"'.encode() in text or f'"{word}|'.encode() in text:
            found.append(table)
    return found


async def test_a_tenant_is_forgotten_and_the_others_are_not(store: Store, tmp_path: Path) -> None:
    before = await counts(store, tenant="t1")
    others = await counts(store, tenant="t2")
    # Those who sell or push are in test_forget_sellers.
    assert {t for t, n in before.items() if not n} == {"notices", "prices", "sources", "latest"}
    told = await forget_command.run(settings_for(store, tmp_path), tenant="t1", sleep=at_once)
    assert told.forgotten
    assert {t.table: t.before for t in told.tables} == before
    assert {t.left for t in told.tables} == {0}
    assert await counts(store, tenant="t2") == others
    assert await everything(store, "t1") == []
    assert "decisions" in await everything(store, "t2")
    # Of a partition of the log at most one row stays, emptied.
    for table in ("attempts", "decisions", "feedback", "prompts"):
        answer = await store.query(
            "SELECT count(), countIf(tenant = '') FROM {raw:Identifier}.{t:Identifier}",
            {"t": table},
        )
        n, n_empty = answer.rows[0]
        assert n - n_empty == N * 2 // 3
        assert n_empty <= 1
    # Sums that name nobody still hold what was bought; those of the others are as they were.
    different = await unequal(store)
    assert set(different) <= {"offer_minutes", "offer_hours_of_week", "tenant_hours",
                              "delivery_hours", "score_hours", "offer_hours",
                              "provider_minutes", "offer_delivery_hours",
                              "offer_score_hours"}  # fmt: skip
    sums = await store.query("SELECT sum(n) FROM {raw:Identifier}.offer_minutes")
    assert sums.rows == [(N,)]
    # Forgotten again, there is nothing to do; and a name that begins alike was never meant.
    again = await forget(store, tenant="t1", wait_s=0, sleep=at_once)
    assert {(t.before, t.left) for t in again} == {(0, 0)}


async def test_the_recorder_goes_on_after_what_was_forgotten(store: Store) -> None:
    # The newest rows of all are theirs.
    for tenant in ("t0", "t1", "t2"):
        await forget(store, tenant=tenant, wait_s=0, sleep=at_once)
    for topic, make in MAKERS.items():
        resumed = chain(store, topic)
        assert await resumed.resume() == N, topic.name
        more = facts.batch(topic, [make(i) for i in range(N, N + 30)], N, log="L")
        await resumed.append(more)
        assert await chain(store, topic).resume() == N + 30
    left = await counts(store, tenant="t1")
    assert left["decisions"] == left["attempts"] == 10
    assert sum((await store.query("SELECT count() FROM {raw:Identifier}.decisions")).rows[0]) == 31


async def test_a_session_is_forgotten(store: Store, tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "state.sqlite")
    await state.start()
    mine = msgspec.msgpack.encode(["s_3", 1, "p/m"])
    theirs = msgspec.msgpack.encode(["s_4", 1, "p/m"])
    await state.keep_sessions([("a", mine), ("b", mine), ("c", theirs), ("d", b"\xc1")], 10**15)
    assert await state.forget_sessions(frozenset({"s_3"})) == 2
    assert await state.session("a", 10**15) is None
    assert await state.session("c", 10**15) == theirs
    await state.close()
    rollups = await store.query("SELECT sum(n), sum(cost_nusd) FROM {raw:Identifier}.tenant_hours")
    told = await forget_command.run(settings_for(store, tmp_path), session="s_3", sleep=at_once)
    assert told.forgotten
    by_table = {t.table: t for t in told.tables}
    assert by_table["decisions"].before == by_table["attempts"].before == N // 7
    assert by_table["feedback"].removed == by_table["prompts"].removed == N // 7
    assert await everything(store, "s_3") == []
    assert await counts(store, session="s_4") != await counts(store, session="s_3")
    after = await store.query("SELECT sum(n), sum(cost_nusd) FROM {raw:Identifier}.tenant_hours")
    assert after.rows == rollups.rows  # sums of an hour of a tenant name no session


async def test_what_was_forgotten_is_not_taken_for_lost(store: Store) -> None:
    asked = {"since": "100d", "until": "now"}
    before = {r[0:3]: r for r in (await report(store, "ledger", asked)).rows}
    await forget(store, tenant="t1", wait_s=0, sleep=at_once)
    result = await report(store, "ledger", asked)
    missing = result.columns.index("missing")
    assert [r[missing] for r in result.rows] == [before[r[0:3]][missing] for r in result.rows]
    answer = await store.query(
        "SELECT scope, sum(n) FROM {market:Identifier}.forgettings GROUP BY 1"
    )
    assert answer.rows[0][0] == "tenant"
    assert answer.rows[0][1] > 100


async def test_rows_that_come_meanwhile_are_told(store: Store, tmp_path: Path) -> None:
    async def meanwhile(_: float) -> None:
        await asyncio.sleep(0.01)
        batch = facts.batch(DECISIONS, [decision(i) for i in range(N, N + 3)], N, log="L")
        await chain(store, DECISIONS, N).append(batch)

    told = await forget_command.run(settings_for(store, tmp_path), tenant="t1", sleep=meanwhile)
    assert not told.forgotten
    assert [t.left for t in told.tables if t.table == "decisions"] == [1]
    told = await forget_command.run(settings_for(store, tmp_path), tenant="t1", sleep=at_once)
    assert told.forgotten


def test_one_of_the_two_must_be_named() -> None:
    for given in ({}, {"tenant": "a", "session": "b"}):
        with pytest.raises(BadRequest):
            forget_command.checked(**{"tenant": "", "session": "", **given})
        with pytest.raises(ValueError, match="tenant or a session"):
            places(**given)


async def test_prompts_are_kept_of_nobody_unless_named(tmp_path: Path) -> None:
    privacy = PrivacySettings(keep_prompts_of=["open"], prompt_keys=[KEY])
    async with rig(tmp_path, providers=("groq",), settings={"privacy": privacy}) as r:
        for tenant in ("open", "closed"):
            assert (await r.ask(r.gateway.key(tenant), SECRET)).status == 200
        large = await r.ask(r.gateway.key("open"), "x" * 300_000)
        assert large.status in (200, 400, 422, 503)
        (kept,) = await r.gateway.written(PromptRecord)
        everything_written = b"".join(encode(record) for record in r.gateway.log.records)
    assert kept.tenant == "open"
    assert SECRET.encode() not in everything_written
    opened = Vault(privacy, CLOCK).open(kept.body)
    assert json.loads(opened)["messages"][0]["content"] == SECRET
    assert_nowhere_on_disk(tmp_path)


def assert_nowhere_on_disk(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]


async def test_without_a_word_of_the_operator_there_is_no_vault(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=("groq",)) as r:
        assert r.gateway.state.vault is None
        assert (await r.ask(r.gateway.key(), SECRET)).status == 200
        assert await r.gateway.written(PromptRecord) == []
        assert SECRET.encode() not in b"".join(encode(record) for record in r.gateway.log.records)


async def test_a_kept_prompt_is_opened_until_its_time(store: Store, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(
        settings_for(store, tmp_path),
        privacy=PrivacySettings(keep_prompts_of=["t1"], prompt_keys=[KEY]),
    )
    made = Vault(settings.privacy, ManualClock(2_000_000_000_000_000)).seal(decision(1), b"{}")
    assert made is not None
    made.decision_id = "later"
    await chain(store, PROMPTS, N).append(facts.batch(PROMPTS, [made], N, log="L"))
    assert (await forget_command.prompt_of(settings, "later")).body == b"{}"
    # What has expired is not shown, and is erased where it lies, while its place on the log stays.
    with pytest.raises(BadRequest, match="no prompt is kept"):
        await forget_command.prompt_of(settings, decision(1).decision_id)
    await store.command("OPTIMIZE TABLE {raw:Identifier}.prompts FINAL")
    answer = await store.query("SELECT count(), countIf(body != '') FROM {raw:Identifier}.prompts")
    assert answer.rows == [(N + 1, 1)]


def test_keys_rotate(tmp_path: Path) -> None:
    old = Vault(PrivacySettings(prompt_keys=[OLD_KEY]), CLOCK)
    sealed = old.seal(decision(1), SECRET.encode())
    assert sealed is not None
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n{OLD_KEY}\n")
    both = Vault(PrivacySettings(prompt_keys=[f"file:{file}"]), CLOCK)
    assert both.open(sealed.body) == SECRET.encode()
    newer = both.seal(decision(1), SECRET.encode())
    assert newer is not None
    only_new = Vault(PrivacySettings(prompt_keys=[KEY]), CLOCK)
    assert only_new.open(newer.body) == SECRET.encode()
    for body in (sealed.body, newer.body[:-8] + "AAAAAAA=", "", "é"):
        with pytest.raises(VaultFault):
            only_new.open(body)
    for keys in ([], ["no key"], ["file:/nowhere"]):
        with pytest.raises(VaultFault, match="prompt_keys"):
            Vault(PrivacySettings(keep_prompts_of=["a"], prompt_keys=keys), CLOCK)
    shown = masked(Settings(privacy=PrivacySettings(prompt_keys=[KEY])))
    assert shown["privacy"]["prompt_keys"] == ["***"]


async def test_rollups_stay_exact_without_forgetting(store: Store) -> None:
    await assert_rollups_equal_raw(store)
