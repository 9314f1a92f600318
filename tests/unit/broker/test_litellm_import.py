"""`broker import litellm`: what comes over, what is said of the rest, and that it can be used."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from broker.cli import app
from broker.config import load
from broker.importing.commands import price_of
from broker.importing.litellm_config import Imported, Unreadable, translate
from broker.services import read_catalogue

CONFIG = Path(__file__).parents[2] / "golden" / "importing" / "litellm.yaml"


def _imported() -> Imported:
    return translate(msgspec.yaml.decode(CONFIG.read_bytes()), price_of)


def test_deployments_become_offers_at_providers() -> None:
    found = _imported()
    offers = {o.id: o for o in found.catalogue.offers}
    assert set(offers) == {
        "openai/gpt-4o",
        "azure/gpt-4o",
        "azure_2/gpt-4o",
        "anthropic/claude-3-5-haiku-latest",
        "groq/llama-3.1-8b-instant",
        "openai_like/local",
        "litellm_replicate/pictures",
    }
    assert offers["azure/gpt-4o"].upstream_model == "gpt-4o-eu"
    assert offers["azure_2/gpt-4o"].prices.output_nusd_per_mtok == 10_000_000_000
    assert offers["openai/gpt-4o"].prices.input_nusd_per_mtok > 0
    assert offers["openai_like/local"].enabled
    assert not offers["litellm_replicate/pictures"].enabled
    assert offers["litellm_replicate/pictures"].upstream_model == "replicate/meta/llama-2-70b"
    providers = {p.id: p for p in found.catalogue.providers}
    assert providers["azure_2"].base_url == "https://acme-us.openai.azure.com"
    assert providers["azure_2"].quirks == "azure"
    assert providers["openai"].limit_rpm == 500
    assert providers["groq"].wire == "openai"
    assert providers["anthropic"].wire == "anthropic"
    assert providers["litellm_replicate"].wire == "litellm"
    models = {m.id: m for m in found.catalogue.models}
    assert set(models["gpt-4o"].capabilities) == {"tools", "vision", "json_schema", "streaming"}


def test_keys_stay_where_they_are() -> None:
    found = _imported()
    assert found.env == {
        "BROKER__PROVIDER_KEYS__OPENAI": "OPENAI_API_KEY",
        "BROKER__PROVIDER_KEYS__AZURE": "AZURE_EU_KEY",
        "BROKER__PROVIDER_KEYS__AZURE_2": "AZURE_US_KEY",
        "BROKER__PROVIDER_KEYS__ANTHROPIC": "ANTHROPIC_API_KEY",
        "BROKER__PROVIDER_KEYS__GROQ": "GROQ_API_KEY",
    }
    assert "written-in-plain" not in msgspec.json.encode(found).decode()


def test_what_could_not_come_over_is_said() -> None:
    notes = {n.path: n for n in _imported().notes}
    for path in (
        "model_list[7]",
        "model_list[8]",
        "model_list[3].litellm_params.api_key",
        "litellm_settings.fallbacks",
        "litellm_settings.context_window_fallbacks",
        "litellm_settings.drop_params",
        "litellm_settings.success_callback",
        "router_settings.routing_strategy",
        "router_settings.num_retries",
        "router_settings.model_group_alias",
        "general_settings.master_key",
        "general_settings.something_new",
        "environment_variables.LANGFUSE_HOST",
    ):
        assert notes[path].instead, path
    assert '"models": ["smart", "gpt-4o"]' in notes["litellm_settings.fallbacks"].instead
    said = [n.said for n in _imported().notes]
    assert "group 'smart' mixes claude-3-5-haiku-latest, llama-3.1-8b-instant" in said


def test_the_files_are_a_configuration(tmp_path: Path) -> None:
    out = tmp_path / "imported"
    ran = CliRunner().invoke(app, ["import", "litellm", str(CONFIG), "--out", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    told = msgspec.json.decode(ran.stdout.splitlines()[-1])
    assert (told["offers"], told["enabled"]) == (7, 6)
    settings = load(out / "broker.json", {"BROKER__PROVIDER_KEYS__AZURE_2": "k"})
    assert settings.provider_keys == {"azure_2": "k"}
    assert settings.gateway.default_deadline_s == 120.0
    assert len(read_catalogue(settings).offers) == 7
    assert 'BROKER__PROVIDER_KEYS__AZURE_2="$AZURE_US_KEY"' in (out / "keys.sh").read_text()
    everything = "".join(path.read_text() for path in out.iterdir())
    assert "written-in-plain" not in everything
    assert "sk-1234" not in everything


@pytest.mark.parametrize("text", ["", "[]", "model_list: 7", "{", "\x00", "a: &a [*a]"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    ran = CliRunner().invoke(app, ["import", "litellm", str(path), "--out", str(tmp_path / "o")])
    assert ran.exit_code == 2
    assert not (tmp_path / "o").exists()


def test_odd_entries_do_not_end_it() -> None:
    odd = {"model_list": [None, 7, {"litellm_params": {"model": 3}}], "router_settings": 4}
    found = translate(odd, lambda _p, _m: None)
    assert found.catalogue.offers == []
    assert len(found.notes) == 4
    with pytest.raises(Unreadable):
        translate(None, lambda _p, _m: None)
