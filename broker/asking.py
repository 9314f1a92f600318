"""From an app's request to what the auction is asked: names, SLA, sizes, needs. Pure.

Order of precedence: what the app states in `sla`, then the task in its model name, then the
tenant's default. The prompt itself goes no further than its estimated length.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bidding.columns import OfferColumns
from bidding.found_tasks import UNNAMED_TASK, FoundTasks
from bidding.request import CHECKED, BidRequest, Sla
from broker.key_rules import restricted
from broker.naming import meaning_of
from broker.wire.needs import needs
from broker.wire.neutral import NeutralRequest
from broker.wire.tokens import estimate_tokens
from feeds.control_records import KeyPolicy

DEFAULT_SLA = Sla()
ANYTHING = KeyPolicy()
EMBEDDING: Final = "embedding"
"""The task of requests for vectors."""


def as_decided(sla: Sla) -> Sla:
    """`sla` without what changes nothing of a decision, so that requests of a kind share a slate.

    Of its checks is left that there were some: such requests are a class of their own, since
    what they are delivered, and so what a better seller is worth to them, differs.
    """
    if sla.session is None and not (sla.explain or sla.resume or sla.verify or sla.budget):
        return sla
    checked = None if sla.verify is None else CHECKED
    return msgspec.structs.replace(
        sla, session=None, explain=False, resume=False, verify=checked, budget=None
    )


def with_features(
    asked: BidRequest, features: tuple[float, ...], found: FoundTasks, least_n: float
) -> BidRequest:
    """The request with its prompt's features and, where its app named no task, the kind of work
    that they tell of.

    Parameters
    ----------
    least_n : float
        Prompts a kind must stand for; 0: requests are not told apart.
    """
    task = None
    if least_n > 0.0 and asked.task == UNNAMED_TASK:
        task = found.assign(features, least_n)
    return msgspec.structs.replace(asked, features=features, task=task or asked.task)


def bid_request(
    request: NeutralRequest, tenant: str, offers: OfferColumns, policy: KeyPolicy = ANYTHING
) -> BidRequest:
    """The request as the auction sees it. What the key asks by default is in `request.sla` already.

    Raises
    ------
    UnknownModel, BadRequest
        A model name that means nothing here.
    ModelNotAllowed
        One that the key may not use.
    """
    meaning = meaning_of(request.model, request.models, offers)
    sla = request.sla if request.sla is not None else DEFAULT_SLA
    task = sla.task or meaning.task or (UNNAMED_TASK if request.embedding is None else EMBEDDING)
    sla = as_decided(sla)
    if policy.models or policy.sla is not None:
        sla = restricted(sla, policy, meaning.candidates, offers)
    return BidRequest(
        tenant=tenant,
        task=task,
        sla=sla,
        input_tokens=estimate_tokens(request),
        max_output_tokens=request.max_output_tokens,
        needs=int(needs(request)),
        candidates=meaning.candidates,
        streaming=request.stream,
    )
