"""What became of a seller's spot asks, as it may see it: its own and nobody else's."""

from __future__ import annotations

from typing import Any, Final

from analytics.store import Store

_NOTICES: Final = """
SELECT
    toUnixTimestamp64Micro(at) AS at_us, ask_id, offer, result, reason, n,
    clearing_price_nusd / 1e9 AS clearing_price_usd, short_nusd / 1e9 AS short_usd
FROM {raw:Identifier}.notices
WHERE seller = {seller:String} AND ({offer:String} = '' OR offer = {offer:String})
    AND at >= fromUnixTimestamp64Micro({since_us:Int64})
ORDER BY at DESC, ask_id, reason
LIMIT {most:UInt32}
"""


async def notices(
    store: Store, seller: str, *, offer: str = "", since_us: int = 0, most: int = 1_000
) -> list[dict[str, Any]]:
    """A seller's notices since a time, newest first; of one offer, if that is named.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    asked = {"seller": seller, "offer": offer, "since_us": since_us, "most": most}
    answer = await store.query(_NOTICES, asked)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
