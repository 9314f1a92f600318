"""Every page's relative links and the files that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FILE = re.compile(r"`((?:bidding|feeds|analytics|broker|tests|infra|docs)/[\w./-]+\.\w+)`")


def _prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?![a-z]+:|#)([^)\s]+)\)", _prose(page))
    lost = [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]
    assert not lost


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],  # it tells of what was
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_files_named_exist(page: Path) -> None:
    text = _prose(page)
    lost = [name for name in _FILE.findall(text) if not (ROOT / name).exists()]
    names = re.findall(r"`(test_\w+\.py)`", text)
    lost += [name for name in names if not list((ROOT / "tests").rglob(name))]
    assert not lost
