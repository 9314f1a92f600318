"""The data folder: sets are found, not listed; splits are by prompt; what is absent says so."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from analytics.replay.datasets import DataFolder, learning_half, read_quality
from analytics.replay.errors import DatasetMalformed, DatasetMissing

SHARED = Path(__file__).parents[5] / "shared" / "data"


def _write_source(folder: Path, outcomes: str, items: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True)
    with gzip.open(folder / "outcomes.csv.gz", "wt") as file:
        file.write(outcomes)
    (folder / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items))


def test_a_set_never_seen_is_found_and_split_by_its_dataset_column(tmp_path: Path) -> None:
    _write_source(
        tmp_path / "strange",
        "dataset,item,model,correct,out_tokens\nb,1,m,1,5\nb,2,n,0,\na,1,m,0,7\n",
        [{"dataset": "b", "item": "1", "prompt": "hi", "in_tokens": 3}],
    )
    folder = DataFolder(tmp_path)
    sets = folder.quality_sets()
    assert list(sets) == ["a", "b"]
    joined = folder.quality(["b", "a"])
    assert joined.task == ["b", "b", "a"]
    assert joined.models == ["m", "n"]
    np.testing.assert_array_equal(joined.outcome, [[1, np.nan], [np.nan, 0], [0, np.nan]])
    assert joined.prompts == ["hi", "", ""]
    assert joined.in_tokens[0] == 3


def test_soft_outcomes_and_no_token_counts(tmp_path: Path) -> None:
    _write_source(tmp_path / "soft", "item,model,win_prob\n1,m,0.25\n", [])
    (soft,) = read_quality(tmp_path / "soft")
    assert soft.name == "soft"
    assert soft.outcome[0, 0] == 0.25
    assert np.isnan(soft.out_tokens).all()


def test_an_outcome_out_of_range_names_the_file(tmp_path: Path) -> None:
    _write_source(tmp_path / "bad", "item,model,correct\n1,m,7\n", [])
    with pytest.raises(DatasetMalformed, match=r"outcomes\.csv"):
        read_quality(tmp_path / "bad")


def test_what_is_absent_is_named_and_the_fallback_is_asked(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    _write_source(tmp_path / "data" / "one", "item,model,correct\n1,m,1\n", [])
    (tmp_path / "data" / "market").mkdir()
    (tmp_path / "data" / "market" / "offers.csv").write_text(
        "market,offer,provider,latency_model,quality_model,"
        "input_usd_per_mtok,output_usd_per_mtok\nspot,p/m,p,m,m,,2\n"
    )
    base = DataFolder(tmp_path / "data")
    test = DataFolder(tmp_path / "test", fallback=base)
    (offer,) = test.offers("spot")
    assert offer.input_usd_per_mtok is None
    assert offer.output_usd_per_mtok == 2.0
    assert test.quality_sets() == {}
    with pytest.raises(DatasetMissing, match="gsm"):
        test.quality(["gsm"])
    with pytest.raises(DatasetMissing, match="spot"):
        base.offers("other")
    with pytest.raises(DatasetMissing, match="thefastest"):
        test.thefastest()


def test_the_split_is_by_prompt_and_stable_under_order() -> None:
    items = [f"item-{i}" for i in range(2000)]
    half = learning_half(items)
    assert 0.45 < half.mean() < 0.55
    np.testing.assert_array_equal(learning_half(items[::-1]), half[::-1])
    assert (learning_half(items, salt="inner") != half).any()


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_the_shared_data_reads_whole() -> None:
    folder = DataFolder(SHARED)
    sets = folder.quality_sets()
    assert {"gsm", "math-l5", "alpaca_eval_v1", "routellm_mmlu"} <= set(sets)
    for found in sets.values():
        assert np.nanmin(found.outcome) >= 0
        assert all(found.prompts)
    assert len(folder.offers("zeroeval_wide")) == 45
    assert np.all(np.diff(folder.thefastest().at_s) >= 0)
    assert sum(code != "" for code in folder.llmperf().error_code) == 158
    assert np.all(np.diff(folder.arrivals("conv").offset_s) >= 0)
    assert len(folder.incidents()) == 313
    assert len(folder.price_events().event) == 3733
    assert folder.price_catalogue("litellm_2024-12")
