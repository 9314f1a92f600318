"""Changes of the live params by path, and who may reach the port they are made at."""

from __future__ import annotations

import asyncio

import pytest

from bidding.errors import BadParams, UnknownParam
from bidding.params import Params, describe
from bidding.params_change import Difference, differences, flat, with_changes
from broker.admin import ROUTES
from broker.admin_exposure import check_exposure, is_loopback, page_origin
from broker.config import AdminSettings, GatewaySettings, KeySettings, Settings
from broker.error_answers import answer_for, body_for
from broker.errors import ParamsConflict


def test_a_change_moves_what_it_names_and_nothing_else() -> None:
    old = Params(version=6)
    new = with_changes(old, {"choice.optimism_sd": 0.7, "exploration.share": 0}, version=7)
    assert new.version == 7
    assert differences(old, new) == [
        Difference("choice.optimism_sd", old.choice.optimism_sd, 0.7),
        Difference("exploration.share", old.exploration.share, 0),
    ]
    assert [*flat(new)] == [doc.path for doc in describe()]


@pytest.mark.parametrize("doc", describe(), ids=lambda doc: doc.path)
def test_every_number_is_held_within_its_bounds(doc: object) -> None:
    found = next(d for d in describe() if d == doc)
    for bound, beyond in ((found.ge, -1), (found.le, 1)):
        if bound is None:
            continue
        with pytest.raises(BadParams) as caught:
            with_changes(Params(), {found.path: bound + beyond}, version=1)
        assert (caught.value.path, caught.value.low, caught.value.high) == (
            *(found.path, found.ge),
            found.le,
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(BadParams):
        with_changes(Params(), {"choice.optimism_sd": value}, version=1)


def test_a_whole_number_stays_whole() -> None:
    with pytest.raises(BadParams):
        with_changes(Params(), {"choice.n_ranked": 2.5}, version=1)


def test_an_unknown_path_is_answered_with_near_ones() -> None:
    for path in ("choice.optimism", "optimism_sd", "version", "choice", "choice.optimism_sd.x"):
        with pytest.raises(UnknownParam):
            with_changes(Params(), {path: 1.0}, version=1)
    with pytest.raises(UnknownParam) as caught:
        with_changes(Params(), {"choice.optimism": 1.0}, version=1)
    assert "choice.optimism_sd" in caught.value.near
    assert answer_for(caught.value).status == 422
    assert body_for(caught.value)["error"]["near"] == caught.value.near


def test_no_change_is_no_version() -> None:
    with pytest.raises(BadParams, match="changes nothing"):
        with_changes(Params(), {"choice.optimism_sd": Params().choice.optimism_sd}, version=1)


def test_a_conflict_tells_the_version_in_force() -> None:
    error = ParamsConflict("at version 4, not 3", 4)
    assert answer_for(error).status == 409
    assert body_for(error)["error"]["version"] == 4


def test_the_port_is_not_opened_to_others_without_an_operators_key() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("localhost.example.com")
    open_to_all = AdminSettings(host="0.0.0.0")
    ops = KeySettings(id="o", sha256="0" * 64, tenant="t", scopes=["ops"])
    asyncio.run(check_exposure(Settings()))
    asyncio.run(check_exposure(Settings(admin=open_to_all, keys=[ops])))


def test_routes_ask_for_ops_and_the_page_has_one_origin() -> None:
    assert {path for _, path, scope, _ in ROUTES if scope != "ops"} == {"/healthz", "/readyz"}
    assert page_origin(Settings(gateway=GatewaySettings(port=9))) == "http://127.0.0.1:9"
    own = AdminSettings(page_origin="https://market.example")
    assert page_origin(Settings(admin=own)) == "https://market.example"
