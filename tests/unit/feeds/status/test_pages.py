"""Which offers an incident concerns."""

from __future__ import annotations

import pytest

from bidding.market import Offer, PriceList
from broker.providers.quirks import known
from feeds.errors import BadRecord
from feeds.status.formats import FORMATS
from feeds.status.incident import Incident
from feeds.status.pages import (
    Concern,
    StatusPage,
    concern_of,
    is_concerned,
    known_pages,
    pages_from,
)

FREE = PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=0)
PAGE = {page.id: page for page in known_pages()}


def offers(provider: str, *models: str, region: str | None = None) -> list[Offer]:
    return [Offer(provider=provider, model=m, prices=FREE, region=region) for m in models]


def told(title: str, *components: str, regions: tuple[str, ...] = ()) -> Incident:
    return Incident(
        id="1",
        title=title,
        severity="major",
        stage="investigating",
        since_us=0,
        told_us=0,
        updated_us=0,
        components=components,
        regions=regions,
    )


def test_fifteen_real_providers_and_more_ship_as_data() -> None:
    assert len({page.of for page in known_pages()}) >= 15
    assert len({page.id for page in known_pages()}) == len(known_pages())
    for page in known_pages():
        assert page.format in FORMATS
        assert page.url.startswith("https://")
        assert page.of in known().provider, page.of


def test_an_outage_of_a_chat_app_is_none_of_ours() -> None:
    sold = offers("openai", "gpt-4o", "gpt-4o-mini")
    page = PAGE["openai"]
    assert concern_of(page, told("Login fails", "ChatGPT"), sold).scope == "none"
    assert concern_of(page, told("ChatGPT is slow"), sold).scope == "none"
    assert concern_of(page, told("ChatGPT and API down"), sold).scope == "provider"
    assert concern_of(page, told("Down", "ChatGPT", "API"), sold).scope == "provider"


@pytest.mark.parametrize(
    ("title", "models"),
    [
        ("Elevated errors on gpt-4o-mini", ("gpt-4o-mini",)),
        ("Elevated errors on GPT-4o", ("gpt-4o",)),
        ("GPT-4o and GPT 4o mini are slow", ("gpt-4o", "gpt-4o-mini")),
        ("Elevated errors", ()),
        ("gpt-4omega", ()),
    ],
)
def test_the_models_named_are_those_concerned(title: str, models: tuple[str, ...]) -> None:
    concern = concern_of(
        PAGE["openai"], told(title, "API"), offers("openai", "gpt-4o", "gpt-4o-mini")
    )
    assert concern.models == models
    assert concern.scope == ("models" if models else "provider")


def test_a_page_may_say_what_a_part_means() -> None:
    page = StatusPage(id="p", format="feed", url="https://x", models={"*embed*": ["embed-*"]})
    sold = offers("p", "command-r", "embed-v3", "embed-v4")
    assert concern_of(page, told("Slow", "Embed API"), sold).models == ("embed-v3", "embed-v4")


def test_only_some_parts_of_a_cloud_concern_us_and_only_in_the_regions_told() -> None:
    page, sold = PAGE["google"], offers("google", "gemini-pro", region="us-central1")
    assert concern_of(page, told("x", "Cloud SQL"), sold).scope == "none"
    here = told("x", "Vertex Gemini API", regions=("us-central1",))
    there = told("x", "Vertex Gemini API", regions=("europe-west4",))
    concern = concern_of(page, here, sold)
    assert is_concerned(concern, sold[0])
    assert concern_of(page, there, sold).scope == "none"
    elsewhere = offers("google", "gemini-pro", region="europe-west4")[0]
    assert not is_concerned(concern, elsewhere)
    assert is_concerned(concern, offers("google", "gemini-pro")[0])


def test_azure_writes_regions_its_own_way() -> None:
    concern = Concern(scope="provider", regions=("eastus",))
    assert is_concerned(concern, offers("azure", "gpt-4o", region="East US")[0])


def test_a_broken_file_of_pages_is_a_bad_record() -> None:
    for text in ("[[page]]\nid = 5", "= =", "[[page]]\nid='x'\nformat='f'\nurl='u'\nurll='u'"):
        with pytest.raises(BadRecord):
            pages_from(text)
