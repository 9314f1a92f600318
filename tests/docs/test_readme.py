"""The README says what is so: commands exist, the example is accepted, links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer.main

from analytics.reports import list_reports
from bidding.request import Sla
from broker.cli import app
from broker.gateway import ROUTES
from broker.wire.openai_chat import OPENAI_CHAT

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)))
)
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`broker ([^`]+)`", README))))
def test_commands_and_their_options_exist(line: str) -> None:
    words = line.split()
    commands = typer.main.get_command(app).commands
    command = commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    passed_on = command.context_settings.get("ignore_unknown_options", False)
    for option in re.findall(r"--[a-z-]+", line):
        assert option in known or passed_on, f"broker {words[0]} has no {option}"


def test_the_example_request_is_one_that_the_gateway_takes() -> None:
    body = re.search(r"-d '(\{.*?\})'", README, re.DOTALL)
    assert body is not None
    request = OPENAI_CHAT.decode(body.group(1).encode())
    assert request.model == "market:math"
    assert request.sla == Sla(quality=0.95, ttft_ms=1000.0, percentile=0.95)
    assert json.loads(body.group(1))


def test_every_route_named_is_served() -> None:
    served = {path for _, path, _, _ in ROUTES}
    named = set(re.findall(r"(/v1/[a-z/]+(?:\{id\})?|/healthz|/readyz|/metrics)", README))
    assert len(named) > 8
    assert named - {"/v1/decisions/dec"} <= served


def test_every_sla_field_is_explained() -> None:
    table = README.split("## What an app can ask for")[1].split("## How it decides")[0]
    hidden = {"session", "explain"}
    for field in Sla.__struct_fields__:
        assert f"`{field}`" in table or field in hidden, field


def test_links_lead_somewhere_and_numbers_of_things_are_right() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    assert f"{len(list_reports())} named questions" in README
