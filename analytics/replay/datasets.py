"""A data folder as typed columns: any quality set found in it, traces, prices, offers.

A *quality set* is a table of prompts × models with outcomes in [0, 1]. Sets are discovered,
not listed: every folder with `items.jsonl[.gz]` and `outcomes.csv[.gz]` is a source; a
`dataset` column splits it into sets named by its values, otherwise the folder's name is the
set's. So data never seen runs without a change here. What is absent is absent from
`DataFolder.sources`, and asking for it raises `DatasetMissing` with what there is.

Prompts are split by a hash of their id, so that the same prompt falls on the same side for all
models, in any order of the files, and in any superset of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analytics.replay.errors import DatasetMalformed, DatasetMissing
from analytics.replay.files import Floats, Table, find_file, read_jsonl
from analytics.replay.traces import (
    Arrivals,
    CatalogueRow,
    Incident,
    LatencySamples,
    OfferRow,
    PriceEvents,
    read_arrivals,
    read_catalogue,
    read_incidents,
    read_llmperf,
    read_offers,
    read_price_events,
    read_thefastest,
)

OUTCOME_COLUMNS = ("correct", "win_prob", "outcome", "score")
KIND_COLUMNS = ("domain", "source", "category")


class QualitySet(NamedTuple):
    """Outcomes of models on prompts.

    Attributes
    ----------
    name : str
    task : list of str, (n_items,)
        The set each prompt came from; constant unless sets were joined.
    items, prompts, kinds : list of str, (n_items,)
        Prompt id, its text ("" where the source gives none), and the source's own label.
    in_tokens : float64, (n_items,)
        Tokens of the whole prompt; NaN where unknown.
    models : list of str, (n_models,)
    outcome : float64, (n_items, n_models)
        In [0, 1]; NaN where the model was not run on the prompt.
    out_tokens : float64, (n_items, n_models)
        Tokens of the answer the model gave; NaN where unknown.
    """

    name: str
    task: list[str]
    items: list[str]
    prompts: list[str]
    kinds: list[str]
    in_tokens: Floats
    models: list[str]
    outcome: Floats
    out_tokens: Floats

    def take(self, rows: NDArray[Any]) -> QualitySet:
        """These prompts, by index or by mask, all models."""
        index = np.arange(len(self.items))[rows].tolist()
        return self._replace(
            task=[self.task[i] for i in index],
            items=[self.items[i] for i in index],
            prompts=[self.prompts[i] for i in index],
            kinds=[self.kinds[i] for i in index],
            in_tokens=self.in_tokens[index],
            outcome=self.outcome[index],
            out_tokens=self.out_tokens[index],
        )

    def only_models(self, models: Sequence[str]) -> QualitySet:
        """These models in this order; one the set lacks becomes a column of NaN."""
        place = {model: i for i, model in enumerate(self.models)}
        wide = np.full((2, len(self.items), len(models)), np.nan)
        for column, model in enumerate(models):
            if model in place:
                wide[0, :, column] = self.outcome[:, place[model]]
                wide[1, :, column] = self.out_tokens[:, place[model]]
        return self._replace(models=list(models), outcome=wide[0], out_tokens=wide[1])


class DataFolder:
    """What can be read under `root`; where a source is absent, `fallback` is asked.

    Parameters
    ----------
    root : Path
        A folder of the layout of `data/README.md`.
    fallback : DataFolder, optional
        For `--test-data`, which may lack such as `market/`.
    """

    def __init__(self, root: Path, fallback: DataFolder | None = None) -> None:
        if not root.is_dir():
            raise DatasetMissing(f"no data folder at {root}")
        self.root = root
        self.fallback = fallback
        self._quality: dict[str, list[QualitySet]] = {}

    @property
    def sources(self) -> list[str]:
        """Names of the folders that hold quality sets here (the fallback's not included)."""
        return sorted(
            folder.name
            for folder in self.root.iterdir()
            if folder.is_dir()
            and find_file(folder, "items.jsonl")
            and find_file(folder, "outcomes.csv")
        )

    def quality_sets(self) -> dict[str, QualitySet]:
        """Every quality set here, by name, in order of name (the fallback's not included)."""
        sets: dict[str, QualitySet] = {}
        for source in self.sources:
            for found in self._quality_of(source):
                sets[found.name] = found
        return dict(sorted(sets.items()))

    def quality(self, names: Iterable[str]) -> QualitySet:
        """The named sets joined into one: prompts below each other, models united.

        Raises
        ------
        DatasetMissing
            When a name is not a set found here; lists those that are.
        """
        sets = self.quality_sets()
        wanted = list(names)
        missing = [name for name in wanted if name not in sets]
        if missing or not wanted:
            raise DatasetMissing(f"no quality set {missing} under {self.root}; found {list(sets)}")
        return join([sets[name] for name in wanted])

    def offers(self, market: str) -> list[OfferRow]:
        """Offers of `market`. Raises `DatasetMissing` naming the markets there are."""
        path = self._path("market", "offers.csv")
        rows = read_offers(path)
        found = [row for row in rows if row.market == market]
        if not found:
            raise DatasetMissing(f"no market {market!r}; found {sorted({r.market for r in rows})}")
        return found

    def markets(self) -> list[str]:
        """Names of the markets there are."""
        return sorted({row.market for row in read_offers(self._path("market", "offers.csv"))})

    def thefastest(self) -> LatencySamples:
        return read_thefastest(self._path("thefastest", "samples.csv"))

    def llmperf(self) -> LatencySamples:
        return read_llmperf(self._path("llmperf", "requests.csv"))

    def arrivals(self, name: str) -> Arrivals:
        """Arrivals of `conv` or `code` (Azure) or `synthetic` (Mooncake)."""
        folder = "mooncake" if name == "synthetic" else "azure_llm_2023"
        return read_arrivals(self._path(folder, f"{name}.csv"))

    def price_events(self) -> PriceEvents:
        return read_price_events(self._path("prices", "models_dev_events.csv"))

    def price_catalogue(self, name: str) -> list[CatalogueRow]:
        """A catalogue by file name without ending, such as `litellm_2024-12`."""
        return read_catalogue(self._path("prices", f"{name}.csv"))

    def incidents(self) -> list[Incident]:
        return read_incidents(self._path("status", "incidents.jsonl"))

    def _path(self, folder: str, name: str) -> Path:
        path = find_file(self.root / folder, name)
        if path is not None:
            return path
        if self.fallback is not None:
            return self.fallback._path(folder, name)
        raise DatasetMissing(f"no {folder}/{name}[.gz] under {self.root}")

    def _quality_of(self, source: str) -> list[QualitySet]:
        if source not in self._quality:
            self._quality[source] = read_quality(self.root / source)
        return self._quality[source]


def read_quality(folder: Path) -> list[QualitySet]:
    """The quality sets of one source folder, in order of name.

    Outcomes of prompts that `items` does not list are kept with an empty prompt; an outcome
    outside [0, 1] is `DatasetMalformed`. A prompt or model met twice: the last one counts.
    """
    items_path = find_file(folder, "items.jsonl")
    outcomes_path = find_file(folder, "outcomes.csv")
    if items_path is None or outcomes_path is None:
        raise DatasetMissing(f"{folder} holds no items.jsonl and outcomes.csv")
    described = {
        (str(record.get("dataset", folder.name)), str(record["item"])): record
        for record in read_jsonl(items_path)
    }
    table = Table(outcomes_path)
    column = next((name for name in OUTCOME_COLUMNS if name in table.header), "correct")
    outcome = table.numbers(column)
    if np.any((outcome < 0) | (outcome > 1)):
        raise DatasetMalformed(f"{outcomes_path}: {column} outside 0..1")
    n_rows = table.n_rows
    names = table.text("dataset") if "dataset" in table.header else [folder.name] * n_rows
    sized = "out_tokens" in table.header
    out_tokens = table.numbers("out_tokens") if sized else np.full(n_rows, np.nan)
    models, items = table.text("model"), table.text("item")
    by_set: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        by_set.setdefault(name, []).append(row)
    return [
        _pivot(name, rows, items, models, outcome, out_tokens, described)
        for name, rows in sorted(by_set.items())
    ]


def _pivot(
    name: str,
    rows: list[int],
    items: list[str],
    models: list[str],
    outcome: Floats,
    out_tokens: Floats,
    described: dict[tuple[str, str], dict[str, Any]],
) -> QualitySet:
    item_names = sorted({items[row] for row in rows})
    model_names = sorted({models[row] for row in rows})
    item_at = {item: i for i, item in enumerate(item_names)}
    model_at = {model: i for i, model in enumerate(model_names)}
    wide = np.full((2, len(item_names), len(model_names)), np.nan)
    for row in rows:
        place = item_at[items[row]], model_at[models[row]]
        wide[0][place] = outcome[row]
        wide[1][place] = out_tokens[row]
    records = [described.get((name, item), {}) for item in item_names]
    kind = next((k for k in KIND_COLUMNS if any(k in record for record in records)), "")
    return QualitySet(
        name=name,
        task=[name] * len(item_names),
        items=item_names,
        prompts=[str(record.get("prompt", "")) for record in records],
        kinds=[str(record.get(kind, name)) for record in records],
        in_tokens=np.array([record.get("in_tokens", np.nan) for record in records], np.float64),
        models=model_names,
        outcome=wide[0],
        out_tokens=wide[1],
    )


def join(sets: Sequence[QualitySet]) -> QualitySet:
    """Sets below each other over the union of their models; NaN where a model has no outcome."""
    if len(sets) == 1:
        return sets[0]
    models = sorted({model for one in sets for model in one.models})
    wide = [one.only_models(models) for one in sets]
    return QualitySet(
        name="+".join(one.name for one in sets),
        task=[task for one in sets for task in one.task],
        items=[item for one in sets for item in one.items],
        prompts=[prompt for one in sets for prompt in one.prompts],
        kinds=[kind for one in sets for kind in one.kinds],
        in_tokens=np.concatenate([one.in_tokens for one in sets]),
        models=models,
        outcome=np.concatenate([one.outcome for one in wide]),
        out_tokens=np.concatenate([one.out_tokens for one in wide]),
    )


def learning_half(
    items: Sequence[str], salt: str = "half", share: float = 0.5
) -> NDArray[np.bool_]:
    """Which prompts may be learnt from: a hash of the id below `share`.

    Another `salt` is another split, as used for splits within the learning half.
    """
    cut = int(share * 2**32)
    return np.array(
        [
            int.from_bytes(hashlib.blake2b(f"{salt}/{item}".encode(), digest_size=4).digest()) < cut
            for item in items
        ],
        dtype=np.bool_,
    )
