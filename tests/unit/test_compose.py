"""The compose file and its image, without a Docker: what they say is held against the schema of
the specification, our command line, our configuration, and the files of this repository.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import typer
import yaml
from typer.core import TyperGroup

from analytics.store import StoreSettings
from broker.cli import app
from broker.config import PREFIX, AdminSettings, GatewaySettings, load
from broker.services import read_catalogue

INFRA = Path(__file__).parents[2] / "infra"
SCHEMA = INFRA.parent / "tests/golden/compose/compose-spec.json"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "model-market-broker"]
#: Typer keeps a click of its own and shows of its errors only some.
USAGE_ERROR = typer.BadParameter.__bases__[0]
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)\}")


def given(text: str, **values: str) -> str:
    """A value as compose reads it; variables without a default are `x`."""
    return _VARIABLE.sub(lambda m: values.get(m[1], m[2] if m[2] is not None else "x"), text)


def environment(name: str) -> dict[str, str]:
    return {k: given(v) for k, v in SERVICES[name].get("environment", {}).items()}


def mounts(name: str) -> list[tuple[str, str]]:
    """Source and target of each volume."""
    found = [given(v).split(":")[:2] for v in SERVICES[name].get("volumes", [])]
    return [(source, target) for source, target in found]


def published(name: str) -> list[int]:
    """The container's ends of its ports."""
    return [int(given(port).rpartition(":")[2]) for port in SERVICES[name].get("ports", [])]


def accepted(words: list[str]) -> bool:
    """Whether our command line takes these words; nothing is run."""
    command: Any = typer.main.get_command(app)
    try:
        while isinstance(command, TyperGroup):
            with command.make_context("broker", [], resilient_parsing=True) as context:
                command, words = command.get_command(context, words[0]), words[1:]
        if command is None:
            return False
        command.make_context(command.name, words).close()
    except USAGE_ERROR:
        return False
    return True


def test_it_is_what_the_specification_allows() -> None:
    schema = msgspec.json.decode(SCHEMA.read_bytes())
    faults = jsonschema_rs.validator_for(schema).iter_errors(COMPOSE)
    assert [f"{list(fault.instance_path)}: {fault.message}" for fault in faults] == []
    wrong = {"services": {"a": {"image": "b", "prots": []}}}
    assert not jsonschema_rs.validator_for(schema).is_valid(wrong)


def test_the_whole_shape_is_there() -> None:
    assert set(OURS) == {"gateway", "estimator", "recorder", "admin"}
    assert set(SERVICES) - set(OURS) == {"kafka", "clickhouse", "redis", "prometheus", "grafana"}


@pytest.mark.parametrize("name", OURS)
def test_the_command_line_takes_each_command(name: str) -> None:
    assert accepted(list(SERVICES[name]["command"]))
    assert not accepted([*SERVICES[name]["command"], "--wrkers", "1"])
    assert not accepted(["srve"])


@pytest.mark.parametrize("name", OURS)
def test_the_configuration_reads_every_variable(name: str) -> None:
    told = environment(name)
    ours = {k: v for k, v in told.items() if k.startswith(PREFIX)}
    assert ours == told
    settings = msgspec.to_builtins(load(None, ours))  # an unknown one is refused
    for variable, value in ours.items():
        at: Any = settings
        for part in variable.removeprefix(PREFIX).lower().split("__"):
            at = at[part]
        assert str(at) == value, variable


@pytest.mark.parametrize("name", SERVICES)
def test_every_mounted_file_is_there(name: str) -> None:
    for source, target in mounts(name):
        assert target.startswith("/")
        if source.startswith("."):
            assert (INFRA / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]
    assert len({target for _, target in mounts(name)}) == len(mounts(name))


def test_whoever_is_waited_for_is_there_and_tells_its_health() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            needs_health = how["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[other] or not needs_health


def test_ports_agree_with_the_configuration_and_with_each_other() -> None:
    gateway, admin, store = GatewaySettings(), AdminSettings(), StoreSettings()
    assert published("gateway") == [gateway.port]
    assert published("admin") == [admin.port]
    assert published("clickhouse") == [store.port]
    for name, port in (("gateway", gateway.port), ("admin", admin.port)):
        assert f"127.0.0.1:{port}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]
    for name in OURS:
        told = load(None, environment(name))
        assert (told.store.host, told.store.port) == ("clickhouse", store.port)
        assert told.kafka.bootstrap == "kafka:9092"
        assert told.state.url.startswith("redis://redis:6379")
    assert environment("kafka")["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://kafka:9092"
    recorder = load(None, environment("recorder")).metrics
    scraped = yaml.safe_load((INFRA / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    targets = [t for job in scraped for c in job.get("static_configs", []) for t in c["targets"]]
    named = [
        f"{name}:{c['port']}"
        for job in scraped
        for c in job.get("dns_sd_configs", [])
        for name in c["names"]
    ]
    assert sorted([*targets, *named]) == [
        f"gateway:{gateway.port}",
        f"recorder:{recorder.recorder_port}",
    ]
    assert environment("grafana")["CLICKHOUSE_HTTP_PORT"] == str(store.port)
    assert environment("grafana")["PROMETHEUS_URL"] == "http://prometheus:9090"
    # Only the gateway is for others; everything else that is published is for this host.
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert name == "gateway" or port.startswith("127.0.0.1:")


def test_prometheus_and_grafana_find_what_is_mounted() -> None:
    inside = {target for _, target in mounts("prometheus")}
    assert SERVICES["prometheus"]["command"][0].partition("=")[2] in inside
    rules = yaml.safe_load((INFRA / "prometheus/prometheus.yaml").read_text())["rule_files"]
    assert {f"/etc/prometheus/{rule}" for rule in rules} <= inside
    sources = (INFRA / "grafana/provisioning/datasources/broker.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", sources)) <= set(environment("grafana"))
    provider = yaml.safe_load((INFRA / "grafana/provisioning/dashboards/broker.yaml").read_text())
    boards = provider["providers"][0]["options"]["path"]
    assert (boards, "/etc/grafana/provisioning") == tuple(
        sorted((t for s, t in mounts("grafana") if s.startswith(".")), reverse=True)
    )


def test_the_example_catalogue_can_be_bought_from() -> None:
    settings = load(None, {f"{PREFIX}CATALOGUE": str(INFRA / "compose/catalogue.json")})
    assert len(read_catalogue(settings).offers) >= 2


def test_clickhouses_accounts_get_the_passwords_of_the_environment(tmp_path: Path) -> None:
    client = tmp_path / "clickhouse-client"
    client.write_text('#!/bin/bash\necho "$*"\ncat\n')
    client.chmod(0o755)
    script = INFRA / "clickhouse/make_users.sh"

    def run(broker: str) -> subprocess.CompletedProcess[str]:
        told = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "USERS_SQL": str(INFRA / "clickhouse/users.sql"),
            "CLICKHOUSE_USER": "admin",
            "CLICKHOUSE_PASSWORD": "a",
            "CLICKHOUSE_BROKER_PASSWORD": broker,
            "CLICKHOUSE_ANALYST_PASSWORD": "p&2",
        }
        return subprocess.run(
            ["bash", script], env=told, capture_output=True, text=True, check=False
        )

    made = run('p/1"$x')
    assert made.returncode == 0, made.stderr
    assert "CREATE USER IF NOT EXISTS broker IDENTIFIED BY 'p/1\"$x';" in made.stdout
    assert "analyst IDENTIFIED BY 'p&2'" in made.stdout
    assert "change-me" not in made.stdout
    assert run("it's").returncode == 1
    needed = set(re.findall(r"\$\{?(CLICKHOUSE_\w+)", script.read_text()))
    assert needed <= set(environment("clickhouse"))
    assert {"/broker/users.sql", f"/docker-entrypoint-initdb.d/{script.name}"} <= {
        target for _, target in mounts("clickhouse")
    }


def test_the_image_is_made_of_what_is_here() -> None:
    text = (INFRA / "Dockerfile").read_text().replace("\\\n", "")
    copied = [
        line.split()[1:-1]
        for line in text.splitlines()
        if line.startswith("COPY ") and "--from" not in line
    ]
    ignored = (INFRA.parent / ".dockerignore").read_text().split()
    for source in (word for words in copied for word in words):
        assert (INFRA.parent / source).exists(), source
        assert source not in ignored
    project = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())
    extras = set(re.findall(r"--extra (\S+)", text))
    assert extras <= set(project["project"]["optional-dependencies"])
    # What the services of the compose file need: Redis's client, and the parser of feeds.
    assert {"redis", "otel", "verify", "features"} <= extras
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= {word for words in copied for word in words}
    assert '\nENTRYPOINT ["broker"]' in text
    assert "broker" in project["project"]["scripts"]
    assert "\nUSER broker" in text
    data = load(None, environment("gateway")).data_dir
    assert f"\nVOLUME {data}" in text
