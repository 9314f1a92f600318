"""LiteLLM's `config.yaml` as a catalogue and settings of ours, and what it could not say. Pure.

A deployment becomes an offer; deployments of one vendor with other addresses, keys or regions
become providers of their own. A group of deployments of one model becomes that model, under the
name that apps already use. Whatever has no counterpart is named in a note with what to do
instead: nothing is passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from bidding.errors import MarketError
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from broker.importing.litellm_names import Vendor, vendor_of
from feeds.catalogue.listing import nusd_per_mtok

_DEFAULT_CONTEXT: Final = 32_768
_DEFAULT_OUTPUT: Final = 4_096
_ENV: Final = re.compile(r"^os\.environ/([A-Za-z_][A-Za-z0-9_]*)$")
_NAME: Final = re.compile(r"[^a-z0-9._-]+")
_SUPPORTS: Final = {
    "supports_function_calling": "tools",
    "supports_vision": "vision",
    "supports_response_schema": "json_schema",
    "supports_reasoning": "reasoning",
    "supports_prompt_caching": "prompt_cache",
}
_INSTEAD: Final = {
    "router_settings.routing_strategy": "every request is an auction; nothing to set",
    "router_settings.num_retries": "dispatch falls back down the ranking within the deadline",
    "router_settings.allowed_fails": "circuits open after `reliability.circuit.open_after`",
    "router_settings.cooldown_time": "circuits reopen by `reliability.circuit.open_s`",
    "router_settings.model_group_alias": "apps name a model, an offer, or `market`",
    "router_settings.enable_pre_call_checks": "gates always check windows and capabilities",
    "router_settings.redis_host": "set [state] kind = 'redis' and its url",
    "router_settings.redis_password": "set [state] kind = 'redis' and its url",
    "router_settings.redis_port": "set [state] kind = 'redis' and its url",
    "litellm_settings.num_retries": "dispatch falls back down the ranking within the deadline",
    "litellm_settings.drop_params": "nothing is dropped: an offer that lacks a parameter is "
    "turned away with `capability`",
    "litellm_settings.cache": "turn it on per key: `cache_age_s` in its policy",
    "litellm_settings.callbacks": "every request is on the log and in ClickHouse; traces: [otel]",
    "litellm_settings.success_callback": "every request is on the log and in ClickHouse",
    "litellm_settings.failure_callback": "every request is on the log and in ClickHouse",
    "litellm_settings.set_verbose": "set log_level",
    "general_settings.master_key": "make keys with `broker key create`",
    "general_settings.database_url": "keys are on the log; history is in ClickHouse",
}


class Unreadable(MarketError):
    """The file is no LiteLLM configuration; the message says why."""


class Facts(Struct, frozen=True, kw_only=True):
    """What price lists know of a model at a provider."""

    prices: PriceList
    context_window: int | None = None


PriceOf = Callable[[str, str], Facts | None]
"""Provider id and model to what is known."""


class Note(Struct, frozen=True, kw_only=True):
    """Something that could not be carried over: where it stood, and what to do instead."""

    path: str
    said: str
    instead: str


class Imported(Struct, frozen=True, kw_only=True):
    """What came of it. `env` maps our settings' variables to the variables that hold the keys."""

    catalogue: Catalogue
    settings: dict[str, Any]
    env: dict[str, str]
    notes: list[Note]


class _Deployment(Struct, frozen=True, kw_only=True):
    """One entry of `model_list`, read."""

    group: str
    vendor: Vendor
    params: dict[str, Any]
    info: dict[str, Any]
    path: str

    @property
    def account(self) -> tuple[str, ...]:
        """What makes it another provider than a deployment of the same vendor elsewhere."""
        names = ("api_base", "api_key", "aws_region_name", "vertex_location", "vertex_project")
        return (self.vendor.id, *(str(self.params.get(n) or "") for n in names))


def translate(config: object, price_of: PriceOf) -> Imported:
    """A decoded `config.yaml` in our words.

    Raises
    ------
    Unreadable
        It has no `model_list`, or one that is none.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("model_list"), list):
        raise Unreadable("no list `model_list` in it: is it a LiteLLM proxy configuration?")
    notes: list[Note] = []
    deployments = _deployments(config["model_list"], notes)
    providers, env, ids = _providers(deployments, notes)
    models, offers = _models_and_offers(deployments, ids, price_of, notes)
    settings: dict[str, Any] = {"catalogue": "catalogue.json"}
    _rest(config, settings, notes)
    return Imported(
        catalogue=Catalogue(providers=providers, models=models, offers=offers).checked(),
        settings=settings,
        env=env,
        notes=notes,
    )


def _deployments(entries: list[Any], notes: list[Note]) -> list[_Deployment]:
    found = []
    for i, entry in enumerate(entries):
        path = f"model_list[{i}]"
        params = entry.get("litellm_params") if isinstance(entry, Mapping) else None
        if not isinstance(params, Mapping) or not isinstance(params.get("model"), str):
            notes.append(Note(path=path, said="no litellm_params.model", instead="left out"))
            continue
        group = str(entry.get("model_name") or params["model"])
        if "*" in group or "*" in params["model"]:
            instead = "list the models you use; nothing is bought that is not in the catalogue"
            notes.append(Note(path=path, said=f"a wildcard, {group!r}", instead=instead))
            continue
        base = params.get("api_base") or params.get("base_url")
        info = entry.get("model_info")
        found.append(
            _Deployment(
                group=group,
                vendor=vendor_of(params["model"], base),
                params={**params, "api_base": base},
                info=dict(info) if isinstance(info, Mapping) else {},
                path=path,
            )
        )
    return found


def _providers(
    deployments: list[_Deployment], notes: list[Note]
) -> tuple[list[Provider], dict[str, str], dict[tuple[str, ...], str]]:
    ids: dict[tuple[str, ...], str] = {}
    providers: dict[str, Provider] = {}
    env: dict[str, str] = {}
    for d in deployments:
        if d.account in ids:
            continue
        n = sum(account[0] == d.vendor.id for account in ids)
        name = d.vendor.id if not n else f"{d.vendor.id}_{n + 1}"
        ids[d.account] = name
        providers[name] = _provider(name, d, notes)
        variable = f"BROKER__PROVIDER_KEYS__{name.upper()}"
        key = d.params.get("api_key")
        stated = _ENV.match(key) if isinstance(key, str) else None
        own = None if d.vendor.entry is None else d.vendor.entry.key_env
        if stated is not None:
            env[variable] = stated[1]
        elif key:
            env[variable] = own or f"{name.upper()}_API_KEY"
            instead = f"put it into ${env[variable]}; secrets are not written to files"
            notes.append(
                Note(path=f"{d.path}.litellm_params.api_key", said="a key", instead=instead)
            )
        elif own is not None:
            env[variable] = own
    return list(providers.values()), env, ids


def _provider(name: str, d: _Deployment, notes: list[Note]) -> Provider:
    entry, params = d.vendor.entry, d.params
    base = params.get("api_base")
    if isinstance(base, str) and (stated := _ENV.match(base)):
        said, instead = f"${stated[1]}", "write the address into the catalogue"
        notes.append(Note(path=f"{d.path}.litellm_params.api_base", said=said, instead=instead))
        base = None
    url = base or (entry.base_url if entry is not None else "")
    if "{" in url:
        said, instead = f"an address with a gap: {url}", "fill it in, in the catalogue"
        notes.append(Note(path=f"{d.path}.litellm_params.api_base", said=said, instead=instead))
    jurisdiction = entry.jurisdiction if entry is not None else None
    if jurisdiction is None:
        said, instead = f"where {name} runs", "state its `jurisdiction`; 'unknown' fails `regions`"
        notes.append(Note(path=d.path, said=said, instead=instead))
    stated_days = None if entry is None else entry.retention_days
    return Provider(
        id=name,
        name=entry.name if entry is not None and entry.name else name,
        wire=d.vendor.wire,
        base_url=url or "https://litellm.invalid",
        jurisdiction=jurisdiction or "unknown",
        retention_days=30 if stated_days is None else stated_days,
        trains=bool(entry is not None and entry.trains),
        quirks=None if entry is None or name == d.vendor.id else d.vendor.id,
        region=_text(params.get("aws_region_name") or params.get("vertex_location")),
        limit_rpm=_whole(params.get("rpm")),
        limit_tpm=_whole(params.get("tpm")),
    )


def _models_and_offers(
    deployments: list[_Deployment],
    ids: Mapping[tuple[str, ...], str],
    price_of: PriceOf,
    notes: list[Note],
) -> tuple[list[Model], list[Offer]]:
    groups: dict[str, list[_Deployment]] = {}
    for d in deployments:
        groups.setdefault(d.group, []).append(d)
    models: dict[str, Model] = {}
    offers: dict[str, Offer] = {}
    for group, members in groups.items():
        bases = {_base(d) for d in members}
        if len(bases) > 1:
            names = sorted(bases)
            said = f"group {group!r} mixes {', '.join(names)}"
            listed = ", ".join(f'"{n}"' for n in names)
            instead = f'ask for {{"model": "market", "models": [{listed}]}}'
            notes.append(Note(path=members[0].path, said=said, instead=instead))
        for d in members:
            model = _plain(group) if len(bases) == 1 else _base(d)
            facts = price_of(d.vendor.id, d.vendor.model)
            offer = _offer(d, ids[d.account], model, facts, notes)
            if offer.id in offers:
                said = f"another deployment of {offer.id} with the same account"
                notes.append(Note(path=d.path, said=said, instead="one offer stands for both"))
                continue
            offers[offer.id] = offer
            models.setdefault(model, _model(d, model, facts, notes))
    return list(models.values()), list(offers.values())


def _offer(
    d: _Deployment, provider: str, model: str, facts: Facts | None, notes: list[Note]
) -> Offer:
    stated = {**d.info, **d.params}
    own_input = nusd_per_mtok(stated.get("input_cost_per_token"))
    own_output = nusd_per_mtok(stated.get("output_cost_per_token"))
    prices = None if facts is None else facts.prices
    if own_input is not None:
        prices = PriceList(input_nusd_per_mtok=own_input, output_nusd_per_mtok=own_output or 0)
    if prices is None:
        said, instead = f"no price of {d.params['model']}", "state it and set `enabled`"
        notes.append(Note(path=d.path, said=said, instead=f"{instead} in the catalogue"))
    upstream = d.params["model"] if d.vendor.wire == "litellm" else d.vendor.model
    return Offer(
        provider=provider,
        model=model,
        prices=prices or PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=0),
        upstream_model=upstream,
        enabled=prices is not None,
    )


def _model(d: _Deployment, name: str, facts: Facts | None, notes: list[Note]) -> Model:
    info = d.info
    context = _whole(info.get("max_input_tokens")) or (facts.context_window if facts else None)
    if context is None:
        context = _whole(info.get("max_tokens"))
    if context is None:
        said, instead = f"the context window of {name}", f"{_DEFAULT_CONTEXT} is assumed: state it"
        notes.append(Note(path=d.path, said=said, instead=instead))
    told = {ours for theirs, ours in _SUPPORTS.items() if info.get(theirs)}
    if not any(name in info for name in _SUPPORTS):
        told = {"tools"}
        said, instead = f"what {name} can do", "tools are assumed: state its capabilities"
        notes.append(Note(path=d.path, said=said, instead=instead))
    if info.get("mode") == "embedding":
        told = {"embeddings"}
    else:
        told.add("streaming")
    window = context or _DEFAULT_CONTEXT
    return Model(
        id=name,
        family=name.partition("-")[0] or name,
        context_window=window,
        max_output_tokens=_whole(info.get("max_output_tokens")) or min(_DEFAULT_OUTPUT, window),
        capabilities=sorted(told),
    )


def _rest(config: Mapping[str, Any], settings: dict[str, Any], notes: list[Note]) -> None:
    """Everything beside the models."""
    for section, body in config.items():
        if section == "model_list" or not body:
            continue
        if not isinstance(body, Mapping):
            notes.append(Note(path=section, said="not known here", instead="left out"))
            continue
        for name, value in body.items():
            path = f"{section}.{name}"
            if name.endswith("fallbacks"):
                _fallbacks(path, value, notes)
            elif name in ("request_timeout", "timeout") and isinstance(value, int | float):
                settings["gateway"] = {"default_deadline_s": float(value)}
            elif section == "environment_variables":
                said, instead = f"the variable {name}", "set it where the broker is started"
                notes.append(Note(path=path, said=said, instead=instead))
            else:
                instead = _INSTEAD.get(path, "no counterpart: left out")
                notes.append(Note(path=path, said="a setting", instead=instead))


def _fallbacks(path: str, value: object, notes: list[Note]) -> None:
    """LiteLLM falls back from group to group; here a request says what it would accept."""
    rules = value if isinstance(value, list) else [value]
    for rule in rules:
        pairs = rule.items() if isinstance(rule, Mapping) else [("*", [rule])]
        for group, others in pairs:
            names = [_plain(str(n)) for n in (group, *others) if n != "*"]
            listed = ", ".join(f'"{n}"' for n in names)
            said = f"{group} falls back to {', '.join(map(str, others))}"
            instead = f'ask for {{"model": "market", "models": [{listed}]}}: all of them bid'
            if path.endswith("context_window_fallbacks"):
                instead += ", and a prompt that is too long for one goes to another"
            notes.append(Note(path=path, said=said, instead=instead))


def _base(d: _Deployment) -> str:
    """The model behind a deployment, by its plainest name."""
    stated = d.info.get("base_model")
    return _plain(str(stated or d.vendor.model).rpartition("/")[2])


def _plain(name: str) -> str:
    """A name that may be a model's id."""
    return _NAME.sub("-", name.lower()).strip("-") or "model"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and not value.startswith("os.") else None
