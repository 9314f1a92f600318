"""Each price source reads what the source publishes, and refuses what it cannot read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bidding.market import PriceList
from feeds.catalogue import (
    genai_package,
    litellm_prices,
    models_dev,
    openrouter,
    own_toml,
    price_page,
)
from feeds.catalogue.judge import PriceJudge
from feeds.catalogue.listing import PriceSheet
from feeds.errors import BadRecord
from feeds.market_records import PriceRecord
from feeds.topics import PRICES, key_of

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
OPENROUTER = json.dumps(
    {
        "data": [
            {
                "id": "a/b",
                "pricing": {
                    "prompt": "0.00000015",
                    "completion": "0.0000006",
                    "image": "0.002",
                    "input_cache_read": "0.000000075",
                },
            },
            {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
        ]
    }
).encode()
LITELLM = json.dumps(
    {
        "sample_spec": {"mode": "chat"},
        "gemini/pro": {
            "litellm_provider": "gemini",
            "mode": "chat",
            "input_cost_per_token": 1.25e-06,
            "output_cost_per_token": 1e-05,
            "input_cost_per_token_above_200k_tokens": 2.5e-06,
            "output_cost_per_token_above_200k_tokens": 1.5e-05,
            "input_cost_per_token_batches": 6.25e-07,
        },
        "paint": {"litellm_provider": "x", "mode": "image_generation"},
    }
).encode()
MODELS_DEV = json.dumps(
    {
        "p": {
            "models": {
                "m": {
                    "cost": {
                        "input": 3,
                        "output": 15,
                        "cache_read": 0.3,
                        "context_over_200k": {"input": 6, "output": 22.5},
                    }
                },
                "free": {},
            }
        }
    }
).encode()
OWN = b"""
[[price]]
offer = "acme/m@eu"
input_usd_per_mtok = 0.5
output_usd_per_mtok = 0.7
[[price]]
offer = "acme/m@eu"
input_usd_per_mtok = 0.25
output_usd_per_mtok = 0.35
daily = ["16:30", "00:30"]
"""
PAGE = json.dumps(
    {
        "provider": "p",
        "currency": "USD",
        "prices": [
            {"model": "m", "region": None, "input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
        ],
    }
).encode()
Parse = Callable[[bytes], PriceSheet]
SOURCES: list[tuple[Parse, bytes]] = [
    (openrouter.parse, OPENROUTER),
    (litellm_prices.parse, LITELLM),
    (models_dev.parse, MODELS_DEV),
    (own_toml.parse, OWN),
    (price_page.parse, PAGE),
]


def _at(sheet: PriceSheet, second: int = 0) -> PriceList:
    return sheet.listings[0].at(second * 1_000_000)


def test_openrouter_reads_tokens_images_and_cache_and_passes_over_the_router() -> None:
    sheet = openrouter.parse(OPENROUTER)
    assert _at(sheet) == PriceList(
        input_nusd_per_mtok=150_000_000,
        output_nusd_per_mtok=600_000_000,
        cache_read_nusd_per_mtok=75_000_000,
        image_nusd=2_000_000,
    )
    assert sheet.n_skipped == 1


def test_litellm_reads_tiers_and_batch_prices() -> None:
    prices = _at(litellm_prices.parse(LITELLM))
    assert prices.batch_input_nusd_per_mtok == 625_000_000
    assert prices.cost_nusd(200_000, 0) == 250_000_000
    assert prices.cost_nusd(200_001, 0) == 500_002_500


def test_models_dev_reads_the_long_context_tier() -> None:
    prices = _at(models_dev.parse(MODELS_DEV))
    assert prices.for_prompt(300_000).output_nusd_per_mtok == 22_500_000_000
    assert prices.tiers[0].cache_read_nusd_per_mtok == 300_000_000


def test_own_prices_follow_the_hour_across_midnight() -> None:
    sheet = own_toml.parse(OWN)
    cheap, dear = 250_000_000, 500_000_000
    seen = [_at(sheet, s).input_nusd_per_mtok for s in (0, 1799, 1800, 59_399, 59_400)]
    assert seen == [cheap, cheap, dear, dear, cheap]


def test_the_package_has_dates_and_tiers() -> None:
    listings = genai_package.listings().listings
    assert any(len(x.clauses) > 1 for x in listings)
    assert any(c.prices.tiers for x in listings for c in x.clauses)


@pytest.mark.parametrize(("parse", "good"), SOURCES, ids=lambda x: getattr(x, "__module__", ""))
def test_what_cannot_be_read_is_a_bad_record_and_nothing_else(parse: Parse, good: bytes) -> None:
    corpus = [good[:n] for n in range(0, len(good) - 1, 7)]
    corpus += [b"", b"<html></html>", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000]
    corpus += [b"null", b"[]", b"{}", b'{"data": 5}', good.decode().encode("utf-16")]
    corpus += [b'<!DOCTYPE x [<!ENTITY a "aa">]><x>&a;</x>', b" " * (65 * 1024 * 1024)]
    n_refused = 0
    for document in corpus:
        try:
            assert parse(document).listings
        except BadRecord:
            n_refused += 1
    assert n_refused >= 12


def _list(usd: float) -> PriceList:
    nusd = round(usd * 1e9)
    return PriceList(input_nusd_per_mtok=nusd, output_nusd_per_mtok=2 * nusd)


def test_a_wild_change_is_held_until_a_second_source_says_the_same() -> None:
    judge = PriceJudge()
    judge.start("p/m", _list(1.0))
    assert judge.hear("p/m", _list(1.5), "a", 0).verdict == "accepted"
    wild = judge.hear("p/m", _list(1e6), "a", 1)
    assert (wild.verdict, judge.in_force["p/m"]) == ("quarantined", _list(1.5))
    assert judge.hear("p/m", _list(1e6), "a", 2).verdict == "unchanged"
    assert judge.hear("p/m", _list(1e6), "b", 3).verdict == "accepted"
    assert not judge.held()


def test_zero_is_held_taken_back_or_confirmed_by_ops() -> None:
    judge = PriceJudge()
    judge.start("p/m", _list(1.0))
    assert "zero" in judge.hear("p/m", _list(0.0), "a", 0).reason
    judge.hear("p/m", _list(1.0), "a", 1)
    assert not judge.held()
    judge.hear("p/m", _list(0.0), "a", 2)
    assert judge.confirm("p/m", "a").verdict == "accepted"
    assert judge.in_force["p/m"] == _list(0.0)


def test_sources_that_disagree_hold_each_other_and_a_higher_rank_overrules() -> None:
    judge = PriceJudge()
    judge.start("p/m", _list(1.0))
    judge.hear("p/m", _list(1.0), "a", 0)
    assert "a says otherwise" in judge.hear("p/m", _list(1.2), "b", 1).reason
    assert judge.hear("p/m", _list(1.1), "price-page", 2).verdict == "accepted"
    assert judge.hear("p/m", _list(1.2), "b", 3).verdict != "accepted"
    assert judge.in_force["p/m"] == _list(1.1)


def test_a_held_price_never_takes_the_offers_own_key() -> None:
    record = PriceRecord(offer="p/m", at_us=0, prices=_list(1), source="a", quarantined="why")
    assert key_of(PRICES, record) != b"p/m"


@pytest.mark.skipif(not DATA.exists(), reason="needs the data folder ../shared/data")
def test_real_repricings_are_paid_by_the_next_decision_and_held_ones_never() -> None:
    from analytics.replay.price_feeds import broken, figures

    found = figures(DATA)
    assert not broken(found), found
    assert found["repricings_seen"] == 465
    assert found["repricings_quarantined"] > 0
