"""The codes that the wire knows: which of them this version sends, and which are reserved."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunnel.model import RefusalCode, RejectionCode, ResetCode

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tunnel"

#: Never sent; a peer of another version may send them, so they are understood.
RESERVED = {
    RefusalCode: {"BUSY", "LIMIT", "STOPPING"},
    RejectionCode: {"UNSUPPORTED"},
    ResetCode: {"STOPPING"},
}
#: These name codes to explain them, and send none.
EXPLAINING = {PACKAGE / "model.py", PACKAGE / "remedies.py"}


@pytest.mark.parametrize("codes", RESERVED, ids=lambda codes: codes.__name__)
def test_the_reserved_codes_are_those_that_nothing_sends(codes):
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path not in EXPLAINING)
    named = set(re.findall(rf"\b{codes.__name__}\.([A-Z_]+)\b", source))
    assert {code.name for code in codes} - named == RESERVED[codes]


@pytest.mark.parametrize("codes", [RefusalCode, RejectionCode], ids=lambda codes: codes.__name__)
def test_the_protocol_s_page_says_which_are_reserved(codes):
    page = (ROOT / "docs" / "protocol.md").read_text()
    for name in RESERVED[codes]:
        assert re.search(rf"^\| `{codes[name]}` \|.*\breserved\b", page, re.MULTILINE), name


@pytest.mark.parametrize("codes", RESERVED, ids=lambda codes: codes.__name__)
def test_the_definition_says_which_are_reserved(codes):
    body = (PACKAGE / "model.py").read_text().partition(f"class {codes.__name__}(")[2]
    body = body.partition("\nclass ")[0]
    assert set(re.findall(r"^    ([A-Z_]+) = .*# reserved$", body, re.MULTILINE)) == RESERVED[codes]


def test_a_reserved_reset_code_is_understood():
    assert ResetCode.of(10) is ResetCode.STOPPING
    assert ResetCode.STOPPING.text == "stopping"
    assert ResetCode.of(99) is ResetCode.NONE
