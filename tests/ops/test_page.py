"""The page as it is handed out; tests/page looks at it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from tunnel.ops.page import load_page

KIB = 1024


@pytest.fixture
def body():
    return load_page().body.decode()


def header(name: bytes) -> str:
    return dict(load_page().headers)[name].decode()


def test_it_is_small(body):
    assert 20 * KIB < len(body) < 60 * KIB


@pytest.mark.parametrize(("tag", "directive"), [("style", "style-src"), ("script", "script-src")])
def test_the_policy_allows_exactly_what_is_inside(body, tag, directive):
    [content] = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    policy = dict(part.split(" ", 1) for part in header(b"content-security-policy").split("; "))
    assert policy[directive] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"


def test_it_needs_nothing_from_elsewhere(body):
    addresses = re.findall(r"https?://[^\s'\"<>]+", body)
    assert set(addresses) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"\b(src|srcset|action)=", body)
    assert re.findall(r'href="(\w+):', body) == ["data"]


def test_names_cannot_become_html(body):
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|Function\("
    assert not re.search(makers, body)
    assert not re.search(r"\son\w+=|style=", body)  # the policy would not let them work


def test_every_mark_says_something(body):
    """What an element is called in a table of words is there in both languages."""
    used = set(re.findall(r'data-text="(\w+)"', body))
    english, chinese = re.findall(r"^  (?:en|zh): \{(.*?)^  \},", body, re.DOTALL | re.MULTILINE)
    for words in (english, chinese):
        assert used <= set(re.findall(r"(\w+): \"", words))
