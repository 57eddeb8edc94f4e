"""The page for people at `/`: one file of HTML, with its styles and its program inside.

It asks for nothing but the statistics of the program that serves it. Its Content-Security-Policy
allows exactly the two blocks that are in the file, by their hashes (CSP Level 3, section 2.3.1),
and forbids making HTML out of strings (`require-trusted-types-for`): names come from strangers.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import Final

import attrs

#: The contents of an inline block. There is one of each, and neither contains its own end.
_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)
_SCRIPT: Final = re.compile(rb'<script type="module">(.*?)</script>', re.DOTALL)


@attrs.frozen
class Page:
    """What to answer to `GET /`: the bytes, and all headers but the length."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def load_page() -> Page:
    """Read the page from the package; takes a millisecond, so do it once."""
    body = resources.files(__name__).joinpath("index.html").read_bytes()
    return Page(
        body,
        (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", _policy(body).encode()),
            # Another version of the program may answer at this address tomorrow.
            (b"cache-control", b"no-cache"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ),
    )


def _policy(body: bytes) -> str:
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {_source(_STYLE, body)}",
            f"script-src {_source(_SCRIPT, body)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _source(block: re.Pattern[bytes], body: bytes) -> str:
    """The hash of the one such block, as a policy names it."""
    [content] = block.findall(body)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
