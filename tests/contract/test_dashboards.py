"""Grafana's panels and Prometheus' alerts: every query runs, every name is on the list."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import promql_parser
import pytest
import pytest_asyncio
import yaml

from analytics.chain import Chain, ChainStats
from analytics.store import Store
from bidding.outcome import FailureClass
from broker.embedded.store import ChdbServer
from broker.metrics import listed
from feeds.topics import ATTEMPTS, DECISIONS, FEEDBACK, QUOTES, SKILLS
from tests.fakes import facts
from tests.fakes.desk import migrated_as, settings_of

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))
ALERTS = yaml.safe_load((ROOT / "infra" / "prometheus" / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
#: What Prometheus itself makes.
THEIR_OWN = frozenset({"up"})


def boards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in DASHBOARDS]


def targets(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Every target of a kind of data source, with a name for it."""
    return [
        (f"{board['uid']}/{panel['title']}/{target['refId']}", target)
        for board in boards()
        for panel in board["panels"]
        for target in panel["targets"]
        if target["datasource"]["type"] == kind
    ]


SQL = targets("grafana-clickhouse-datasource")
PROMQL = [(name, t["expr"]) for name, t in targets("prometheus")] + [
    (rule["alert"], rule["expr"]) for rule in RULES
]


def expanded(sql: str) -> str:
    """The plugin's macros as it expands them, for a day around the test's data."""
    since, until = facts.T0_US // 10**6 - 43_200, facts.T0_US // 10**6 + 43_200
    sql = re.sub(
        r"\$__timeFilter\((\w+)\)",
        rf"\1 >= toDateTime({since}) AND \1 <= toDateTime({until})",
        sql,
    )
    sql = re.sub(
        r"\$__timeInterval\((\w+)\)",
        r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)",
        sql,
    )
    sql = sql.replace("$__interval_s", "60")
    assert "$__" not in sql, sql
    return sql


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def analyst(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    """A reader of `market` with some of everything in it."""
    made: dict[Any, list[Any]] = {
        ATTEMPTS: [facts.attempt(i) for i in range(200)],
        DECISIONS: [facts.decision(i) for i in range(200)],
        FEEDBACK: [facts.feedback(i) for i in range(100)],
        QUOTES: [facts.quote(i) for i in range(20)],
        SKILLS: [facts.skill("sum", at_us=facts.T0_US)],
    }
    async with (
        ChdbServer(tmp_path_factory.mktemp("grafana")) as server,
        migrated_as(server, "market") as writer,
    ):
        for topic, records in made.items():
            chain = Chain(writer, topic, "L", 1, 0, today=facts.today, stats=ChainStats())
            await chain.append(facts.batch(topic, records, 0))
        settings = msgspec.structs.replace(
            settings_of(server, "market"),
            username=server.analyst.user,
            password=server.analyst.password,
        )
        async with await Store.open(settings) as reader:
            yield reader


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "target"), SQL, ids=[name for name, _ in SQL])
async def test_every_clickhouse_query_runs_as_the_analyst(
    analyst: Store, name: str, target: dict[str, Any]
) -> None:
    answer = await analyst.query(expanded(target["rawSql"]))
    if target["queryType"] == "timeseries":
        assert answer.columns[0] == "time"
        assert answer.types[0].startswith("DateTime")
    if not re.search("incidents|params_history", target["rawSql"]):
        assert answer.rows, "no rows from data it should find"


def names_in(expr: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Metric names with their label matchers in a parsed expression."""
    if isinstance(expr, promql_parser.VectorSelector):
        matchers = {m.name: m.value for m in expr.matchers.matchers}
        yield expr.name, matchers
        return
    for part in ("lhs", "rhs", "expr", "vector_selector", "vs", "args", "param"):
        below = getattr(expr, part, None)
        for one in below if isinstance(below, list) else [below]:
            if one is not None and type(one).__module__ == type(expr).__module__:
                yield from names_in(one)


def known_names() -> dict[str, tuple[str, set[str]]]:
    """Series names with their kind and labels, histograms' parts among them."""
    known: dict[str, tuple[str, set[str]]] = {name: ("gauge", {"job"}) for name in THEIR_OWN}
    for name, kind, labels, _, _ in listed():
        held = {label for label in labels.split(", ") if label} | {"job", "instance"}
        if kind == "histogram":
            known[f"{name}_bucket"] = ("counter", held | {"le"})
            known[f"{name}_sum"] = known[f"{name}_count"] = ("counter", held)
        else:
            known[name] = (kind, held)
    return known


@pytest.mark.parametrize(("name", "expr"), PROMQL, ids=[name for name, _ in PROMQL])
def test_every_promql_parses_and_names_what_there_is(name: str, expr: str) -> None:
    found = list(names_in(promql_parser.parse(expr)))
    assert found
    known = known_names()
    for metric, matchers in found:
        assert metric in known, f"{metric} is not in docs/metrics.md"
        assert set(matchers) <= known[metric][1], f"{metric} has no label {matchers}"
        failures = re.findall(r"[a-z_]+", matchers.get("failure", ""))
        assert set(failures) <= {str(f) for f in FailureClass}
    for function, metric in re.findall(r"\b(rate|increase|delta)\((\w+)", expr):
        is_counter = known[metric][0] == "counter"
        assert is_counter == (function != "delta"), f"{function}({metric})"
    for labels in re.findall(r"\bby \(([^)]*)\)", expr):
        held = set().union(*(known[metric][1] for metric, _ in found))
        assert {label.strip() for label in labels.split(",")} <= held


def test_the_check_of_promql_would_find_a_wrong_name() -> None:
    for expr in ("sum(rate(broker_no_such_total[5m]))", 'broker_view_number{offer="x"}'):
        with pytest.raises(AssertionError):
            test_every_promql_parses_and_names_what_there_is("wrong", expr)


def test_most_metrics_are_on_a_dashboard() -> None:
    shown = {
        metric
        for _, target in targets("prometheus")
        for metric, _ in names_in(promql_parser.parse(target["expr"]))
    }
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    listed_names = {name for name, *_ in listed()}
    assert len(listed_names & shown) >= 0.75 * len(listed_names), listed_names - shown


def test_dashboards_and_rules_are_whole() -> None:
    assert len(DASHBOARDS) >= 2
    sources = yaml.safe_load(
        (ROOT / "infra/grafana/provisioning/datasources/broker.yaml").read_text()
    )
    assert sources["apiVersion"] == 1
    type_of = {source["uid"]: source["type"] for source in sources["datasources"]}
    assert len({board["uid"] for board in boards()}) == len(DASHBOARDS)
    for board in boards():
        # What Grafana provisions: an id of its own choice, a stable uid, and a schema it can read.
        assert "id" not in board
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", board["uid"])
        assert board["title"]
        assert board["schemaVersion"] >= 36  # since then data sources are told by type and uid
        assert set(board["time"]) == {"from", "to"}
        for part in ("templating", "annotations"):
            assert isinstance(board[part]["list"], list)
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        for panel in board["panels"]:
            assert panel["type"] in ("timeseries", "table", "stat")
            assert panel["title"]
            for source in (panel["datasource"], *(t["datasource"] for t in panel["targets"])):
                assert source == {"type": type_of[source["uid"]], "uid": source["uid"]}
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs) >= 1
            assert set(panel["gridPos"]) == {"x", "y", "w", "h"}
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    providers = yaml.safe_load(
        (ROOT / "infra/grafana/provisioning/dashboards/broker.yaml").read_text()
    )
    assert providers["apiVersion"] == 1
    for provider in providers["providers"]:
        assert provider["type"] == "file"
        assert Path(provider["options"]["path"]).is_absolute()
    for rule in RULES:
        assert {"summary", "look"} <= set(rule["annotations"])
        assert rule["labels"]["severity"] in ("page", "ticket")
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 10


def test_a_recorder_tells_what_it_has_done(chdb_server: ChdbServer) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    from analytics.recorder import RecorderStats
    from broker.metrics import RecorderMetrics
    from feeds.clock import ManualClock
    from feeds.lane import PipelineStats

    stats = RecorderStats(pipelines={"facts": PipelineStats(n_dead=3)})
    stats.chains.n_rows, stats.chains.newest_at_us = 17, 5_000_000
    registry = CollectorRegistry()
    registry.register(RecorderMetrics(stats, ManualClock(7_000_000)))
    text = generate_latest(registry).decode()
    assert "broker_recorder_rows_total 17.0" in text
    assert 'broker_recorder_dead_total{pipeline="facts"} 3.0' in text
    assert "broker_recorder_newest_age_seconds 2.0" in text
