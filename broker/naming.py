"""What an app's `model` means on this market.

`market` is the whole market, `market:<task>` the same for a task named by the app, a canonical
model is that model at any provider, an offer id is that offer and no other. `models` limits the
candidates further, in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from bidding.columns import OfferColumns
from bidding.errors import BadRequest
from bidding.market import resolve_name

MARKET: Final = "market"
_MAX_TASK: Final = 128


class Meaning(NamedTuple):
    """Which offers may bid (None: all), and the task the name implies, if any."""

    candidates: tuple[str, ...] | None
    task: str | None


def meaning_of(model: str, models: Iterable[str], offers: OfferColumns) -> Meaning:
    """What `model` and `models` mean.

    Raises
    ------
    UnknownModel
        Nothing here is called so; carries near names.
    BadRequest
        A `market:` without a task.
    """
    known = known_names(offers)
    limited = tuple(resolve_name(name, known) for name in models) or None
    if model == MARKET:
        return Meaning(limited, None)
    if model.startswith(MARKET + ":"):
        task = model.partition(":")[2]
        if (
            not task
            or len(task) > _MAX_TASK
            or not task.replace("-", "").replace("_", "").isalnum()
        ):
            raise BadRequest(
                f"model {model!r} names no task",
                path="model",
                remedy='write "market:<task>", the task in letters, digits, - and _',
            )
        return Meaning(limited, task)
    name = resolve_name(model, known)
    return Meaning((name,), None)


def known_names(offers: OfferColumns) -> list[str]:
    """Every name an app may put into `model`, canonical models first."""
    return [MARKET, *offers.model_ids, *offers.offer_ids]
