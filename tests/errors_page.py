"""Makes `docs/errors.md` from the code: python -m tests.errors_page"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tunnel import remedies

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"

_HEAD = """\
# When something fails

What the programs say when something fails that you can put right, and what to do about it. A word
in capitals stands for what differs. A `Connection lost` in the client's log has its reason from the
second table; the client tries again in any case.

This page is made from the code (`tunnel/remedies.py`), by `python -m tests.errors_page`. What is
wrong in a configuration is not here: that is said with line and key, all of it at once by
`tls-tunnel check -c FILE`.
"""
_REFUSED = """\
The client logs `Refused` with a code, the server's reason and the remedy, and tries again later.
The server logs the same, or `Authentication failed`. What the codes mean is in
[the protocol](protocol.md).
"""
_REJECTED = """\
Both log `Proxy rejected` with a code and a reason; the client's other proxies go on. With the codes
`in_use` and `limit` the server keeps trying by itself.
"""
_STRANGERS = """\
The server logs `Handshake failed` about whoever connects and is no client. On a port that the
Internet can reach these are mostly strangers who look around.
"""
_REASONS = [
    ("`TLS: http request`", "a browser, or another program that speaks HTTP without TLS"),
    ("`TLS: wrong version number`", "a program that speaks no TLS"),
    ("`TLS: unsupported protocol`", "a program whose TLS is older than 1.3"),
    ("`not a client: …`, `TLS: no application protocol`", "a TLS client that is not ours"),
    ("`TLS: … alert unknown ca`", "a client that does not trust this server: see `not_trusted`"),
    ("`closed during the TLS handshake`, `too slow`", "a scan, a load balancer, or a lost link"),
]


def page() -> str:
    """The text of the page."""
    starting = [each for each in remedies.REMEDIES if not _of_client(each)]
    reaching = [each for each in remedies.REMEDIES if _of_client(each)]
    return (
        "\n".join(
            (
                _HEAD,
                "## Starting\n",
                _table(("code", "it says", "do"), map(_row, starting)),
                "## Reaching the server\n",
                _table(("code", "it says", "do"), map(_row, reaching)),
                "## The server says no\n",
                _REFUSED,
                _table(("code", "do"), _codes(remedies.REFUSED)),
                "## A proxy is not published\n",
                _REJECTED,
                _table(("code", "do"), _codes(remedies.REJECTED)),
                "## Somebody else connects to the server\n",
                _STRANGERS,
                _table(("reason", "who that was"), _REASONS),
            )
        ).rstrip("\n")
        + "\n"
    )


def _of_client(each: remedies.Remedy) -> bool:
    return "{server}" in each.message


def _row(each: remedies.Remedy) -> tuple[str, ...]:
    return f"`{each.code}`", _shown(each.message), _shown(each.remedy)


def _shown(template: str) -> str:
    """A template as people read it: what differs in capitals."""
    return re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), template)


def _codes(remedies: dict) -> list[tuple[str, ...]]:
    return [(f"`{code.value}`", remedy) for code, remedy in remedies.items()]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
