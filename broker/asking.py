"""From an app's request to what the auction is asked: names, SLA, sizes, needs. Pure.

Order of precedence: what the app states in `sla`, then the task in its model name, then the
tenant's default. The prompt itself goes no further than its estimated length.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bidding.columns import OfferColumns
from bidding.request import BidRequest, Sla
from broker.naming import UNNAMED_TASK, meaning_of
from broker.wire.neutral import NeutralRequest, needs
from broker.wire.tokens import estimate_tokens

DEFAULT_SLA = Sla()
EMBEDDING: Final = "embedding"
"""The task of requests for vectors."""


def bid_request(
    request: NeutralRequest, tenant: str, offers: OfferColumns, default_sla: Sla = DEFAULT_SLA
) -> BidRequest:
    """The request as the auction sees it.

    Raises
    ------
    UnknownModel, BadRequest
        A model name that means nothing here.
    """
    meaning = meaning_of(request.model, request.models, offers)
    sla = request.sla if request.sla is not None else default_sla
    task = sla.task or meaning.task or (UNNAMED_TASK if request.embedding is None else EMBEDDING)
    if sla.session is not None or sla.explain or sla.resume:
        # None of these changes what is decided; without them requests of a kind share a slate.
        sla = msgspec.structs.replace(sla, session=None, explain=False, resume=False)
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
