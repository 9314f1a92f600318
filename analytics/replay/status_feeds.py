"""Real incidents overlaid on traffic: what hearing status pages saves, and what false alarms cost.

Incidents are those that openai, anthropic and character.ai told of themselves
(`status/incidents.jsonl.gz`), word by word through the real watch and mapping. Each history is
given to one of the sellers the market buys most from; requests arrive as in `azure_llm_2023`,
thinned. What the data does not hold is assumed, and drawn anew per seed: how many attempts fail
while an incident lasts (by its impact, within wide bounds), and how much later than the errors the
page tells (`LAG_S`; the data has no measured errors). Errors end where the page first says that a
fix is watched, else where it ends the incident.

Two questions, each with the pages heard against not heard on the same fates: how many attempts
fail at the sellers in trouble, and what is spent when the pages tell the same but nothing is wrong.

Incidents are parted by time: `status_belief` is picked on the earlier half (`pick`), and what is
reported is scored on the later one, or on another folder's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from analytics.replay.datasets import DataFolder
from analytics.replay.errors import DatasetMissing
from analytics.replay.files import Floats, find_file, read_jsonl
from analytics.replay.measures import interval
from analytics.replay.status_market import Arm, catalogue_of
from bidding.market import Catalogue, Offer
from bidding.params import Params
from feeds.status.incident import Incident, Severity, StatusSheet, Update, stage_of
from feeds.status.pages import StatusPage, known_pages
from feeds.status.watch import StatusWatch

LAG_S: Final = 300.0
"""Mean of the page's lag behind the errors; exponential."""
RATE_PER_S: Final = 0.2
LEAST_CUT: Final = 0.30
MOST_EXTRA: Final = 0.01
POLL_S: Final = 60.0
BEFORE_S: Final = 600.0
AFTER_S: Final = 600.0
LONGEST_S: Final = 3 * 3600.0
REST_S: Final = 6 * 3600.0
BELIEFS: Final = (0.15, 0.25, 0.35, 0.5)
"""Values of `reliability.status_belief` that `pick` chooses among."""
Half = Literal["earlier", "later", "all"]
BOUGHT_MOST: Final = ("groq", "perplexity", "anyscale")
_IMPACT: Final[tuple[Severity, ...]] = ("none", "minor", "major", "critical", "maintenance")
_FAILING: Final = {"minor": (0.02, 0.3), "major": (0.1, 0.8), "critical": (0.4, 1.0)}
_OURS: Final = {"openai": ("API",), "anthropic": ("api.anthropic.com",), "character": ()}
_START_S: Final = 1_700_000_000.0


class Told:
    """One incident as the data has it: seconds from its first word."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.provider = str(row["provider"])
        self.started_s = _seconds(row["started_at"])
        self.title = str(row["name"])
        self.severity = _IMPACT[int(row["impact_level"])]
        self.components = tuple(str(c) for c in row["components"])
        words = sorted((_seconds(u["at"]), str(u["status"])) for u in row["updates"])
        first_s = words[0][0]
        self.words = [(at_s - first_s, stage_of(stage)) for at_s, stage in words]
        over = [at_s for at_s, stage in self.words if stage in ("monitoring", "resolved")]
        self.errors_end_s = min(over[0] if over else self.words[-1][0], LONGEST_S)
        ours = _OURS.get(self.provider, ())
        named = not self.components or not ours or any(c in ours for c in self.components)
        self.is_ours = named and self.severity in _FAILING

    def at(self, since_s: float, number: int, start_s: float) -> Incident | None:
        """What the page says `since_s` after its first word; None before it."""
        told = self.words[: bisect_right([at_s for at_s, _ in self.words], since_s)]
        if not told:
            return None
        updates = tuple(
            Update(at_us=_us(start_s + at_s), stage=stage) for at_s, stage in reversed(told)
        )
        return Incident(
            id=str(number),
            title=self.title,
            severity=self.severity,
            stage=told[-1][1],
            since_us=_us(start_s),
            told_us=_us(start_s),
            updated_us=updates[0].at_us,
            components=self.components,
            updates=updates,
        )


def incidents(data: Path, half: Half = "all") -> list[Told]:
    """The incidents with a word said, or the half that began earlier or later, oldest first.

    Raises
    ------
    DatasetMissing
        The folder tells of no incidents.
    """
    path = find_file(data / "status", "incidents.jsonl")
    if path is None:
        raise DatasetMissing(f"no status/incidents.jsonl.gz under {data}")
    found = sorted((Told(r) for r in read_jsonl(path) if r["updates"]), key=lambda t: t.started_s)
    middle = len(found) // 2
    return {"all": found, "earlier": found[:middle], "later": found[middle:]}[half]


def arrivals(
    folder: DataFolder, rng: np.random.Generator, rate_per_s: float
) -> np.ndarray[Any, Any]:
    """Half an hour of real arrivals, thinned to a rate: seconds, ascending."""
    trace = folder.arrivals("conv")
    offset_s = np.asarray(trace.offset_s, dtype=np.float64)
    keep = rng.random(len(offset_s)) < rate_per_s * (offset_s[-1] - offset_s[0]) / len(offset_s)
    found: Floats = offset_s[keep] - offset_s[0]
    return found


def episodes(
    folder: DataFolder,
    told: Sequence[Told],
    *,
    seed: int,
    n: int,
    lag_s: float,
    alarms_are_false: bool,
    belief: float | None = None,
) -> dict[str, float]:
    """`n` incidents drawn by `seed`, one after another, in both arms; the counts of each.

    `belief` stands in for `reliability.status_belief`.
    """
    rng = np.random.default_rng([seed, n])
    catalogue = catalogue_of(folder)
    params = Params()
    if belief is not None:
        params = params.patched({"reliability": {"status_belief": belief}}, version=1)
    arms = [Arm(catalogue, params, hears=hears, seed=seed) for hears in (True, False)]
    models = [m.id for m in catalogue.models]
    seller_of = sellers_of(told)
    watches = {p: StatusWatch(_page(p, s), _offers(catalogue, s)) for p, s in seller_of.items()}
    start_s = _START_S
    drawn = rng.choice(len(told), size=min(n, len(told)), replace=False).tolist()
    for number, k in enumerate(drawn):
        incident = told[k]
        seller = seller_of[incident.provider]
        lag = float(rng.exponential(lag_s)) if lag_s else 0.0
        low, high = _FAILING.get(incident.severity, (0.0, 0.0))
        share = float(rng.uniform(low, high))
        begin_s = start_s + BEFORE_S
        tells_s = begin_s + lag
        errors_end_s = begin_s + lag + incident.errors_end_s
        fails = incident.is_ours and not alarms_are_false and incident.errors_end_s > 0
        last_s = tells_s + min(incident.words[-1][0], LONGEST_S)
        polled_s = start_s
        for at_s in _requests(folder, rng, start_s, last_s + AFTER_S):
            while polled_s <= at_s:
                said = incident.at(polled_s - tells_s, number, tells_s)
                sheet = StatusSheet(incidents=[said] if said else [], is_current=False)
                for record in watches[incident.provider].take(sheet, _us(polled_s)):
                    for arm in arms:
                        arm.hear(record)
                polled_s += POLL_S
            trouble = {seller: share} if fails and begin_s <= at_s < errors_end_s else {}
            model, fate = models[int(rng.integers(len(models)))], float(rng.random())
            for arm in arms:
                arm.ask(model, at_s, fate, trouble)
        # What a capped incident has left unsaid is over by the next one.
        ended = incident.at(1e12, number, tells_s)
        assert ended is not None
        over = StatusSheet(incidents=[replace(ended, stage="resolved")], is_current=False)
        for record in watches[incident.provider].take(over, _us(last_s + AFTER_S)):
            for arm in arms:
                arm.hear(record)
        start_s = last_s + REST_S
    heard, deaf = arms
    return {
        "heard_failed": heard.n_failed,
        "deaf_failed": deaf.n_failed,
        "heard_nusd": heard.spent_nusd,
        "deaf_nusd": deaf.spent_nusd,
        "heard_unserved": heard.n_unserved,
        "deaf_unserved": deaf.n_unserved,
        "requests": deaf.n_requests,
    }


class Asked(Struct, frozen=True, kw_only=True):
    """What to replay: `n` incidents a seed, of the `half` of `data`, or all of `test_data`."""

    data: Path
    test_data: Path | None = None
    half: Half = "later"
    n: int = 12
    lag_s: float = LAG_S
    belief: float | None = None


def one_seed(asked: Asked, seed: int) -> dict[str, float]:
    """What one seed's incidents came to, true and false; see `figures`."""
    base = DataFolder(asked.data)
    if asked.test_data is None:
        folder, told = base, incidents(asked.data, asked.half)
    else:
        folder, told = DataFolder(asked.test_data, base), incidents(asked.test_data)
    found: dict[str, float] = {}
    for name, false in (("true", False), ("false", True)):
        counts = episodes(
            folder,
            told,
            seed=seed,
            n=asked.n,
            lag_s=asked.lag_s,
            alarms_are_false=false,
            belief=asked.belief,
        )
        found |= {f"{name}_{key}": value for key, value in counts.items()}
    return found


def figures(seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    """`failed_during_incidents_cut_share` and `false_alarm_extra_spend_share` over what `one_seed`
    found, each with its 95 % interval (`…_low`, `…_high`); the cut of all seeds' failures taken
    together (`…_pooled`); what true incidents cost more; requests made.
    """
    heard = [one["true_heard_failed"] for one in seeds]
    deaf = [one["true_deaf_failed"] for one in seeds]
    found = {
        "status_requests": sum(one["true_requests"] + one["false_requests"] for one in seeds),
        "status_seeds": float(len(seeds)),
        "failed_during_incidents_cut_share_pooled": 1.0 - sum(heard) / max(sum(deaf), 1.0),
    }
    cut = [1.0 - h / max(d, 1.0) for h, d in zip(heard, deaf, strict=True)]
    extra = [one["false_heard_nusd"] / one["false_deaf_nusd"] - 1.0 for one in seeds]
    true_extra = [one["true_heard_nusd"] / one["true_deaf_nusd"] - 1.0 for one in seeds]
    for name, values in (
        ("failed_during_incidents_cut_share", cut),
        ("false_alarm_extra_spend_share", extra),
        ("true_alarm_extra_spend_share", true_extra),
    ):
        over = interval(values)
        found |= {name: over.mean, f"{name}_low": over.low, f"{name}_high": over.high}
    return found


def pick(tried: dict[float, dict[str, float]]) -> float:
    """Of figures by belief, the belief that cuts most among those whose cost of false alarms is
    below its bound for sure (the upper end of the interval: other incidents will cost more);
    where none is, the one that costs least.
    """
    cost = {b: f["false_alarm_extra_spend_share_high"] for b, f in tried.items()}
    able = [b for b in tried if cost[b] <= MOST_EXTRA]
    if not able:
        return min(cost, key=cost.__getitem__)
    return max(able, key=lambda b: tried[b]["failed_during_incidents_cut_share"])


def sellers_of(told: Sequence[Told]) -> dict[str, str]:
    """Who in the market is given each provider's history: the most told of, the most bought."""
    n_told = Counter(t.provider for t in told)
    names = sorted(n_told, key=lambda name: (-n_told[name], name))
    return {name: BOUGHT_MOST[i % len(BOUGHT_MOST)] for i, name in enumerate(names)}


def broken(found: dict[str, float]) -> list[str]:
    """Every bound that does not hold, in words."""
    faults = []
    cut = found["failed_during_incidents_cut_share"]
    if cut < LEAST_CUT:
        faults.append(f"failed_during_incidents_cut_share is {cut:.3f}, must be {LEAST_CUT:g}")
    extra = found["false_alarm_extra_spend_share"]
    if extra > MOST_EXTRA:
        faults.append(f"false_alarm_extra_spend_share is {extra:.4f}, at most {MOST_EXTRA:g}")
    return faults


def _requests(
    folder: DataFolder, rng: np.random.Generator, start_s: float, end_s: float
) -> list[float]:
    """Times of requests from `start_s` to `end_s`: the half hour of arrivals, again and again."""
    found: list[float] = []
    at_s = start_s
    while at_s < end_s:
        offsets = arrivals(folder, rng, RATE_PER_S)
        found += [at_s + x for x in offsets.tolist() if at_s + x < end_s]
        at_s += 1800.0
    return found


def _page(provider: str, seller: str) -> StatusPage:
    known = {p.id: p for p in known_pages()}
    page = known.get(provider, StatusPage(id=provider, format="feed", url="https://x"))
    return replace(page, provider=seller)


def _offers(catalogue: Catalogue, seller: str) -> list[Offer]:
    return [o for o in catalogue.offers if o.provider == seller]


def _seconds(text: object) -> float:
    return datetime.fromisoformat(str(text)).timestamp()


def _us(at_s: float) -> int:
    return round(at_s * 1e6)
