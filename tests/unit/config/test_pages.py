"""The links and paths in the pages of this repository lead to files and headings that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/adr/*.md")),
    *sorted(ROOT.glob("examples/**/*.md")),
]
TODAYS = [page for page in PAGES if page.parent.name != "adr"]
"""Decisions name the files that existed when they were made."""

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))


def broken(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return not target.exists() or bool(anchor and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert [link for link in links(page) if "://" not in link and broken(page, link)] == []


def test_a_link_to_nowhere_would_be_noticed() -> None:
    page = ROOT / "README.md"
    assert broken(page, "docs/nothing.md")
    assert broken(page, "docs/limits.md#nothing")
    assert not broken(page, "docs/limits.md#slow-start")


@pytest.mark.parametrize("page", TODAYS, ids=[page.relative_to(ROOT).as_posix() for page in TODAYS])
def test_every_file_of_ours_that_a_page_names_exists(page: Path) -> None:
    ours = (
        r"`(?:python )?((?:models|producer|worker|understudy|tests|benchmarks|examples|docs|\.ci|config)/[\w./*-]*)`?"
    )
    named = re.findall(ours, page.read_text("utf-8"))
    assert [name for name in named if not any(ROOT.glob(name.rstrip("/.")))] == []


def test_no_two_decisions_share_a_number() -> None:
    numbers = [page.name[:3] for page in ROOT.glob("docs/adr/*.md")]
    assert sorted(numbers) == sorted(set(numbers))
