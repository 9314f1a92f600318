"""Pages that the paper market serves, fetched and read over HTTP as a real provider's would be."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broker.paper.serve import PaperMarket
from broker.paper.status import IncidentPatch, IncidentSpec
from broker.paper.status_history import StatusHistory
from feeds.fetch import Fetcher, FetchSettings
from feeds.status.formats import parse
from feeds.status.incident import Incident

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "status" / "incidents.jsonl.gz"
OVER = ("", "resolved", "postmortem")
SHAPES = {
    "api/v2/summary.json": "statuspage",
    "api/v2/incidents.json": "statuspage",
    "history.atom": "feed",
    "history.rss": "feed",
}


class Wall:
    """A wall clock that is set by hand."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest_asyncio.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher(FetchSettings(private_hosts=("127.0.0.1",))) as made:
        yield made


async def read(fetcher: Fetcher, url: str, form: str) -> list[Incident]:
    fetched = await fetcher.fetch(url)
    assert fetched.body is not None
    assert (await fetcher.fetch(url, etag=fetched.etag)).body is None
    sheet = parse(form, fetched.body)
    assert sheet.n_skipped == 0, sheet.skipped
    return sheet.incidents


async def test_an_incident_opened_by_control_is_read_in_every_shape(fetcher: Fetcher) -> None:
    wall = Wall(datetime(2024, 3, 1, 10, tzinfo=UTC).timestamp())
    market = PaperMarket(providers=["groq"], clock=wall)
    await market.start()
    try:
        page = market.sellers["groq"].status
        number = page.open(
            IncidentSpec(
                name="Errors <b>& delays</b>", impact="critical", components=["llama-3.1-8b"]
            ),
            wall(),
        )
        wall.now_s += 600
        page.update(number, IncidentPatch(status="identified", body="Found & fixing"), wall())
        base = f"{market.control_url}/status/groq"
        for shape, form in SHAPES.items():
            (found, *_) = await read(fetcher, f"{base}/{shape}", form)
            assert found.stage == "identified"
            assert found.components == ("llama-3.1-8b",)
            if not shape.endswith("rss"):
                assert (found.updated_us - found.told_us) // 1_000_000 == 600
            assert found.title.startswith("Errors")
            assert found.severity == ("critical" if form == "statuspage" else "minor")
        page.update(number, IncidentPatch(status="resolved"), wall())
        assert await read(fetcher, f"{base}/api/v2/summary.json", "statuspage") == []
        (over,) = await read(fetcher, f"{base}/history.atom", "feed")
        assert over.stage == "resolved"
    finally:
        await market.stop()


@pytest.mark.skipif(not DATA.exists(), reason="needs the data folder ../shared/data")
async def test_years_of_real_incidents_are_told_word_by_word(fetcher: Fetcher) -> None:
    told: list[dict[str, Any]] = [
        json.loads(line) for line in gzip.decompress(DATA.read_bytes()).splitlines()
    ]
    openai = [i for i in told if i["provider"] == "openai"]
    wall = Wall(0.0)
    begins = datetime(2023, 11, 8, tzinfo=UTC)
    history = StatusHistory(DATA, begins=begins, at_s=0.0, speed=3600.0)
    market = PaperMarket(providers=["groq"], status_history=history, clock=wall)
    await market.start()
    base = f"{market.control_url}/history/openai"
    try:
        n_open = 0
        for hours in range(0, 24 * 12, 7):
            wall.now_s = float(hours)
            now = datetime.fromtimestamp(history.moment_s(wall.now_s), UTC)
            going = await read(fetcher, f"{base}/api/v2/summary.json", "statuspage")
            shown = {i.id for i in going if not i.id.startswith("component:")}
            assert shown == {i["id"] for i in openai if _stage(i, now) not in OVER}
            n_open += len(shown)
        assert n_open > 5
        wall.now_s = 24 * 365.0
        newest = await read(fetcher, f"{base}/api/v2/incidents.json", "statuspage")
        assert len(newest) == 50
        by_id = {i["id"]: i for i in openai}
        for found in newest:
            given = by_id[found.id]
            assert found.stage == "resolved"
            assert len(found.updates) == len(given["updates"])
            assert found.components == tuple(given["components"])
        atom = await read(fetcher, f"{base}/history.atom", "feed")
        rss = await read(fetcher, f"{base}/history.rss", "feed")
        assert [i.title for i in atom] == [i.title for i in newest] == [i.title for i in rss]
        assert [i.components for i in atom] == [i.components for i in newest]
    finally:
        await market.stop()


def _stage(incident: dict[str, Any], now: datetime) -> str:
    said = [u["status"] for u in incident["updates"] if datetime.fromisoformat(u["at"]) <= now]
    return str(said[-1]) if said else ""
