"""One whole market for all end-to-end tests, in the session's own loop; it ends with the last of
them, since a market that idles takes half a core from whatever is tested after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.up_rig import Market, market_up


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    """Use tasks of your own where counts matter; others use the market at the same time."""
    async with market_up(tmp_path_factory.mktemp("market"), feed_poll_s=1.5) as made:
        yield made
