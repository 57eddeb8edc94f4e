"""The page about errors is what the code says, and the code's remedies are whole."""

from __future__ import annotations

import string

import pytest

from tests import errors_page
from tunnel import remedies
from tunnel.model import RefusalCode, RejectionCode


def test_the_page_is_fresh():
    assert errors_page.PAGE.read_text() == errors_page.page(), "run python -m tests.errors_page"


def test_every_remedy_is_on_the_page():
    found = [value for value in vars(remedies).values() if isinstance(value, remedies.Remedy)]
    assert tuple(found) == remedies.REMEDIES
    codes = [each.code for each in found]
    assert len(set(codes)) == len(codes)
    assert all(f"| `{code}` |" in errors_page.page() for code in codes)


def test_every_code_of_the_protocol_has_a_remedy():
    assert set(remedies.REFUSED) == set(RefusalCode)
    assert set(remedies.REJECTED) == set(RejectionCode)
    assert remedies.refusal_remedy("authentication") == remedies.REFUSED[RefusalCode.AUTHENTICATION]
    assert remedies.refusal_remedy("of the future") is None


@pytest.mark.parametrize("each", remedies.REMEDIES, ids=lambda each: each.code)
def test_a_remedy_is_one_line_with_all_that_it_leaves_open(each):
    fields = {
        name for _, name, _, _ in string.Formatter().parse(each.message + each.remedy) if name
    }
    text = each.text(**{name: f"<{name}>" for name in fields})
    assert all(f"<{name}>" in text for name in fields)
    assert "\n" not in text
    assert "{" not in text
