"""Every live-tunable number of the market: type, bounds, unit, meaning, default.

A `Params` is one immutable version; a decision names the version it read. Numbers are grouped
by what they steer. `patched` applies a partial change and refuses what is unknown or out of
bounds, naming the path and the bounds. Defaults cite the decision note or replay behind them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from bidding.errors import BadParams
from bidding.estimators.latency_params import LatencyParams
from bidding.estimators.reliability import ReliabilityParams
from bidding.estimators.tokens import TokenParams
from bidding.hearsay import TrustParams


def _number(ge: float, le: float, unit: str, meaning: str) -> Meta:
    return Meta(ge=ge, le=le, description=meaning, extra={"unit": unit})


class PacingParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the class prices of quality and punctuality move (ALGORITHMS.md, Pacing)."""

    quality_step: Annotated[
        float, _number(0.0, 0.2, "1/request", "log-step of the quality price per unit of shortfall")
    ] = 0.03
    punctuality_step: Annotated[
        float,
        _number(0.0, 0.5, "1/request", "log-step of the punctuality price per unit of shortfall"),
    ] = 0.05
    label_scaling: Annotated[
        float,
        _number(
            0.0, 1.0, "exponent", "how much the quality price's step shrinks with the judged share"
        ),
    ] = 1.0
    label_step: Annotated[
        float, _number(0.0, 0.2, "1/label", "step of the bias correction of P(good) per label")
    ] = 0.005
    start_quality_price_usd: Annotated[
        float, _number(0.0, 1.0, "USD/good answer", "price of a good answer in a class just born")
    ] = 0.001
    start_punctuality_price_usd: Annotated[
        float,
        _number(0.0, 1.0, "USD/punctual answer", "price of a punctual answer in a class just born"),
    ] = 0.001
    floor_price_usd: Annotated[
        float, _number(0.0, 1.0, "USD", "least price of quality and punctuality")
    ] = 1e-6
    quality_reserve_usd: Annotated[
        float, _number(0.0, 10.0, "USD/good answer", "most that one more good answer may cost")
    ] = 0.01
    punctuality_reserve_usd: Annotated[
        float,
        _number(0.0, 10.0, "USD/punctual answer", "most that one more punctual answer may cost"),
    ] = 0.01
    quality_margin: Annotated[
        float, _number(-0.2, 0.2, "share", "added to every quality target, against noise")
    ] = 0.005
    delivered_half_life: Annotated[
        float, _number(10.0, 1e6, "requests", "half-life of the delivered shares reported")
    ] = 500.0


class ChoiceParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How bids are scored."""

    optimism_sd: Annotated[
        float,
        _number(
            0.0, 4.0, "standard deviations", "bonus for what is uncertain about a model's quality"
        ),
    ] = 1.0
    latency_optimism_sd: Annotated[
        float,
        _number(
            0.0,
            4.0,
            "standard deviations",
            "bonus for what is uncertain about an offer's mean TTFT",
        ),
    ] = 0.5
    unstated_value_usd: Annotated[
        float,
        _number(
            0.0,
            10.0,
            "USD/good answer",
            "worth of a good answer when the app states neither target nor value",
        ),
    ] = 0.002
    found_task_prompts: Annotated[
        float,
        _number(
            0.0,
            1_000_000.0,
            "prompts",
            "prompts a kind of work found among requests without a task must stand for before "
            "it is a task of its own; 0: never",
        ),
    ] = 0.0
    failover_price_usd: Annotated[
        float,
        _number(0.0, 10.0, "USD/failed attempt", "harm of a failed attempt beyond its own cost"),
    ] = 0.0005
    capacity_price_usd: Annotated[
        float,
        _number(
            0.0, 10.0, "USD/refused attempt", "harm of an attempt refused for lack of capacity"
        ),
    ] = 0.0005
    quota_price_usd: Annotated[
        float,
        _number(
            0.0,
            10.0,
            "USD/request",
            "what a request costs extra where none of the use to come will find any quota left",
        ),
    ] = 0.001
    n_ranked: Annotated[
        int, Meta(ge=2, le=32, description="bids kept in a decision, winner included")
    ] = 6


class ExplorationParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is bought to learn rather than to serve; never on strict requests, never in a
    session that has an incumbent (docs/decisions/0013).
    """

    share: Annotated[
        float,
        _number(0.0, 0.5, "share of requests", "requests whose winner is drawn among safe bids"),
    ] = 0.01
    burn_in_share: Annotated[
        float,
        _number(
            0.0, 0.5, "share of requests", "requests that go to an offer with too little history"
        ),
    ] = 0.01
    burn_in_tries: Annotated[
        float,
        _number(0.0, 10_000.0, "attempts", "attempts behind an offer up to which it is a newcomer"),
    ] = 20.0
    probe_share: Annotated[
        float,
        _number(
            0.0,
            0.99,
            "share of requests",
            "requests that try an offer whose circuit is half open, while it waits",
        ),
    ] = 0.5
    max_loss_usd: Annotated[
        float,
        _number(
            0.0, 1.0, "USD/request", "most that an explored bid's score may exceed the best one's"
        ),
    ] = 0.001
    max_spend_share: Annotated[
        float,
        _number(0.0, 1.0, "share of spend", "most that exploration may add to what requests cost"),
    ] = 0.05
    safety_sd: Annotated[
        float,
        _number(0.0, 6.0, "standard deviations", "how far below its mean a safe bid must still do"),
    ] = 1.0


class SwitchingParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it costs a session to move to another model, beside its lost prompt cache."""

    consistency_tax_usd: Annotated[
        float,
        _number(0.0, 1.0, "USD/switch", "harm of a changed voice, style and habits in mid-session"),
    ] = 0.0005
    translation_usd: Annotated[
        float,
        _number(
            0.0,
            1.0,
            "USD/block",
            "harm of a reasoning or tool-call block that another family of models cannot read",
        ),
    ] = 0.0001


class Params(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of all live-tunable numbers."""

    version: int = 0
    pacing: PacingParams = field(default_factory=PacingParams)
    choice: ChoiceParams = field(default_factory=ChoiceParams)
    exploration: ExplorationParams = field(default_factory=ExplorationParams)
    switching: SwitchingParams = field(default_factory=SwitchingParams)
    latency: LatencyParams = field(default_factory=LatencyParams)
    reliability: ReliabilityParams = field(default_factory=ReliabilityParams)
    tokens: TokenParams = field(default_factory=TokenParams)
    trust: TrustParams = field(default_factory=TrustParams)

    def patched(self, change: dict[str, Any], *, version: int) -> Params:
        """A new version with `change` (nested like the Params) applied.

        Raises
        ------
        BadParams
            Unknown group or number, wrong type, or out of bounds; names the path.
        """
        current: dict[str, Any] = msgspec.to_builtins(self)
        for group, numbers in change.items():
            if group == "version" or group not in current or not isinstance(numbers, dict):
                known = ", ".join(k for k in current if k != "version")
                raise BadParams(f"no parameter group {group!r}; groups are {known}", path=group)
        merged = {**_merged(current, change), "version": version}
        try:
            return msgspec.convert(merged, Params)
        except msgspec.ValidationError as error:
            message = str(error)
            path = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
            raise BadParams(message, path=path) from error


class ParamDoc(Struct, frozen=True, kw_only=True):
    """What a page or a manual says of one number."""

    path: str
    default: float
    ge: float | None
    le: float | None
    unit: str
    meaning: str


def describe() -> list[ParamDoc]:
    """Every number with its bounds, unit and meaning, in declaration order."""
    return [doc for doc in _described(Params(), "") if doc.path != "version"]


def _described(section: Struct, prefix: str) -> list[ParamDoc]:
    docs: list[ParamDoc] = []
    for number in msgspec.structs.fields(type(section)):
        value = getattr(section, number.name)
        path = f"{prefix}{number.name}"
        if isinstance(value, Struct):
            docs += _described(value, f"{path}.")
            continue
        info = msgspec.inspect.type_info(number.type)
        extra: dict[str, Any] = {}
        meaning = ""
        if isinstance(info, msgspec.inspect.Metadata):
            extra = info.extra or {}
            meaning = str((info.extra_json_schema or {}).get("description", ""))
            info = info.type
        docs.append(
            ParamDoc(
                path=path,
                default=float(value),
                ge=getattr(info, "ge", None),
                le=getattr(info, "le", None),
                unit=str(extra.get("unit", "")),
                meaning=meaning,
            )
        )
    return docs


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
