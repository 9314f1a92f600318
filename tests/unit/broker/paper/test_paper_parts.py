"""Small parts of a seller: cache, ledger, status page, prices, schema instances, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.paper.ask import misreport, pieces
from broker.paper.draws import normal, uniform
from broker.paper.errors import BadControl
from broker.paper.faults import Fault, FaultBoard, FaultPatch, FaultSpec
from broker.paper.ledger import Call, Ledger
from broker.paper.market_data import load
from broker.paper.prices import live_prices, price_page
from broker.paper.prompt_cache import PromptCache
from broker.paper.schema_instance import instance
from broker.paper.status import IncidentPatch, IncidentSpec, StatusPage
from broker.paper.tokens import count_tokens


def test_draws_are_uniform_and_normal() -> None:
    draws = [uniform("x", i) for i in range(4000)]
    assert 0 < min(draws) < max(draws) < 1
    assert sum(draws) / 4000 == pytest.approx(0.5, abs=0.03)
    squares = [normal("x", i) ** 2 for i in range(4000)]
    assert sum(squares) / 4000 == pytest.approx(1.0, abs=0.1)


def test_a_prefix_seen_lately_is_cached_in_whole_blocks_from_1024_tokens() -> None:
    cache = PromptCache(keep_s=300)
    prompt = "".join(chr(97 + i % 26) for i in range(8192))
    assert cache.look_up("m", prompt, 0.0) == 0
    assert cache.look_up("m", prompt, 1.0) == 2048
    assert cache.look_up("m", prompt[:6000] + "Z" * 2000, 2.0) == 1408
    assert cache.look_up("m", prompt[:4000], 2.0) == 0
    assert cache.look_up("other", prompt, 2.0) == 0
    assert cache.look_up("m", prompt, 1000.0) == 0


def test_the_cache_forgets_the_oldest() -> None:
    cache = PromptCache(most=16)
    for name in "abc":
        cache.look_up("m", name * 4096, 0.0)
    assert cache.look_up("m", "a" * 4096, 1.0) == 0


def test_ledger_sums_by_offer_and_lists_calls_after_a_number() -> None:
    ledger = Ledger()
    for n in range(5):
        call = Call(n=n, request_id=f"r{n}", offer="p/m", at=0.0)
        ledger.open(call)
        call.ended = "served" if n else "aborted"
        call.output_tokens = 10
        ledger.close(call)
    assert ledger.totals.calls == 5
    assert ledger.totals.n_open == 0
    assert ledger.by_offer["p/m"].aborted == 1
    assert ledger.by_offer["p/m"].output_tokens == 50
    assert [call.n for call in ledger.calls(after=2)] == [3, 4]
    assert [call.n for call in ledger.calls(limit=2)] == [0, 1]


def test_a_status_page_shows_incidents_until_resolved() -> None:
    page = StatusPage("groq", "Groq", ["llama"])
    assert page.summary()["status"]["indicator"] == "none"
    first = page.open(IncidentSpec(name="Slow", impact="minor", components=["llama"]), 5.0)
    page.open(IncidentSpec(name="Down", impact="critical"), 6.0)
    summary = page.summary()
    assert summary["status"]["indicator"] == "critical"
    assert {c["status"] for c in summary["components"]} == {"major_outage"}
    page.update(f"{first[:-1]}2", IncidentPatch(status="resolved"), 7.0)
    components = {c["name"]: c["status"] for c in page.summary()["components"]}
    assert components == {"API": "operational", "llama": "degraded_performance"}
    assert [i["id"] for i in page.summary()["incidents"]] == [first]
    with pytest.raises(BadControl, match="no incident"):
        page.update("nope", IncidentPatch(status="resolved"), 8.0)
    with pytest.raises(BadControl, match="no such components"):
        page.open(IncidentSpec(name="x", components=["gpt"]), 8.0)


def test_repricing_shows_on_the_price_page() -> None:
    offers = [o for o in load().catalogue.offers if o.provider == "anthropic"]
    board = FaultBoard()
    spec = FaultSpec(kind=Fault.REPRICE, input_factor=2.0, output_factor=0.5)
    board.apply(FaultPatch(add=[spec]), [offers[0].id])
    dearer = live_prices(offers[0], board)
    assert dearer.input_nusd_per_mtok == 2 * offers[0].prices.input_nusd_per_mtok
    assert dearer.output_nusd_per_mtok * 2 == offers[0].prices.output_nusd_per_mtok
    assert live_prices(offers[1], board) == offers[1].prices
    page = price_page("anthropic", offers, board, 0.0)
    assert page["prices"][0]["input_usd_per_mtok"] == dearer.input_nusd_per_mtok / 1e9
    assert {row["offer"] for row in page["prices"]} == {o.id for o in offers}


def test_an_offers_faults_come_before_its_providers() -> None:
    board = FaultBoard()
    board.apply(FaultPatch(add=[FaultSpec(kind=Fault.SLOW, factor=2.0)]))
    board.apply(FaultPatch(add=[FaultSpec(kind=Fault.SLOW, factor=9.0)]), ["p/a"])
    assert board.of("p/a")[Fault.SLOW].factor == 9.0
    assert board.of("p/b")[Fault.SLOW].factor == 2.0
    board.apply(FaultPatch(clear=[Fault.SLOW]), ["p/a"])
    assert board.of("p/a")[Fault.SLOW].factor == 2.0
    assert set(board.all()) == {"*"}
    board.apply(FaultPatch(faults=[]))
    assert board.all() == {}


def test_a_model_alone_cannot_die() -> None:
    with pytest.raises(BadControl, match="whole provider"):
        FaultBoard().apply(FaultPatch(add=[FaultSpec(kind=Fault.DIE)]), ["p/a"])


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("zero", {"a": 0, "b": {"c": 0}}),
        ("negative", {"a": -8, "b": {"c": -1}}),
        ("tenfold", {"a": 70, "b": {"c": 0}}),
        ("strings", {"a": "7", "b": {"c": "0"}}),
        ("missing", None),
        (None, {"a": 7, "b": {"c": 0}}),
    ],
)
def test_usage_lies(lie: Any, told: Any) -> None:
    assert misreport({"a": 7, "b": {"c": 0}}, lie) == told


def test_text_is_cut_into_pieces_of_whole_tokens() -> None:
    text = "abcdefghij" * 10
    cut = pieces(text, 7)
    assert "".join(cut) == text
    assert len(cut) <= 7
    assert sum(count_tokens(piece) for piece in cut) == count_tokens(text)
    assert pieces("", 5) == [""]


def test_schema_instances_have_the_given_values_and_the_right_types() -> None:
    schema = {
        "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}}}},
        "properties": {
            "answer": {"type": "string"},
            "n": {"type": "integer", "minimum": 3},
            "flag": {"type": "boolean"},
            "kind": {"enum": ["x", "y"]},
            "fixed": {"const": 5},
            "place": {"$ref": "#/$defs/Place"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "number"}]},
            "none": {"type": "null"},
        },
    }
    made = instance(schema, {"answer": 42})
    assert made["answer"] == "42"
    assert made["n"] >= 3
    assert isinstance(made["flag"], bool)
    assert made["kind"] in ("x", "y")
    assert made["fixed"] == 5
    assert set(made["place"]) == {"city"}
    assert len(made["tags"]) == 1
    assert isinstance(made["maybe"], int)
    assert made["none"] is None


def test_the_guide_names_every_fault_and_its_settings() -> None:
    guide = (Path(__file__).parents[4] / "docs" / "paper-market.md").read_text()
    assert [fault for fault in Fault if f"`{fault}`" not in guide] == []
    settings = set(FaultSpec.__struct_fields__) - {"kind"}
    assert [name for name in settings if f"`{name}`" not in guide] == []
