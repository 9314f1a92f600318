"""Surface × dialect × feature, and the page that says so."""

from __future__ import annotations

import pytest

from tests.compat.document import DOCUMENT, document
from tests.compat.matrix import cells
from tests.fakes.up_rig import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_nothing_fails_and_the_page_is_current(market: Market) -> None:
    found = await cells(market)
    assert [cell for cell in found if cell.state == "failed"] == []
    assert DOCUMENT.read_text(encoding="utf-8") == document(found), "run python -m tests.compat"
