"""The built site, in build/docs: `make docs` builds it and runs these."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tunnel

SITE = Path(__file__).parents[2] / "build/docs"
PAGES = sorted(SITE.rglob("*.html"))
#: Elements that a browser fetches without being asked.
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?([^\"' >]+)")
#: Names for types: they have no page entry of their own.
TYPES = {"Handler", "ServerEvent", "__version__"}


@pytest.fixture(scope="module")
def index():
    return json.loads((SITE / "search/search_index.json").read_text(encoding="utf-8"))


def test_there_is_a_site():
    assert len(PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(SITE)))
def test_nothing_is_fetched_from_elsewhere(page):
    fetched = FETCHED.findall(page.read_text(encoding="utf-8"))
    assert fetched
    assert not [address for address in fetched if re.match(r"(?:https?:)?//", address)]


def test_no_style_fetches_from_elsewhere():
    for sheet in SITE.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", text), sheet


def test_every_page_is_there_in_both_languages():
    english = {page.relative_to(SITE) for page in PAGES if page.relative_to(SITE).parts[0] != "zh"}
    chinese = {page.relative_to(SITE / "zh") for page in PAGES if page.is_relative_to(SITE / "zh")}
    assert english - {Path("404.html")} == chinese - {Path("404.html")}


def test_the_reference_has_every_public_name():
    page = (SITE / "reference/library.html").read_text(encoding="utf-8")
    found = set(re.findall(r'id="?tunnel\.(\w+)[">]', page))
    assert set(tunnel.__all__) - TYPES <= found


@pytest.mark.parametrize("word", ["certificate", "证书", "服务器"])
def test_the_search_knows_words_of_both_languages(index, word):
    separator = re.compile(index["config"]["separator"])
    assert any(word in separator.split(entry["text"]) for entry in index["docs"])
