"""What the tests of configurations share."""

from __future__ import annotations

from tunnel.config import Report, detect
from tunnel.config.load import examine


def check(text: str, environ: dict[str, str] | None = None) -> Report:
    """All that is wrong or odd with a text, as `tls-tunnel check` says it."""
    kind = detect(text)
    found = examine(text, kind, environ or {})
    return Report(kind, tuple(found.errors), tuple(found.warnings))
