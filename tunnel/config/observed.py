"""The keys that say who looks, in ``[server]`` and ``[client]`` alike."""

from __future__ import annotations

from typing import Annotated

import attrs

from tunnel.config import values
from tunnel.config.keys import Key
from tunnel.config.values import LOOPBACK


@attrs.frozen(kw_only=True)
class Observed:
    """What a program shows of itself, what it writes down of its visitors, and what it watches.

    At most one of `stats_token` and `stats_token_file` is set.
    """

    stats_port: Annotated[
        int | None,
        Key(values.PORT_OR_ANY, "HTTP statistics on this port; off while not set.", 9090),
    ] = None
    stats_addr: Annotated[
        str, Key(values.ADDRESS, "Their address. Beyond loopback, set stats_token as well.")
    ] = LOOPBACK
    stats_token: Annotated[
        str | None,
        Key(
            values.TOKEN,
            "Who asks for statistics must show it, as `Authorization: Bearer`.",
            "replace-with-a-long-random-text",
        ),
    ] = attrs.field(default=None, repr=False)
    stats_token_file: Annotated[
        str | None, Key(values.PATH, "Or a file that holds it.", "stats.token")
    ] = None
    stats_hosts: Annotated[
        tuple[str, ...],
        Key(
            values.HOSTS,
            "Other names that browsers call it by; loopback and its own address go without.",
            ("stats.example.com",),
        ),
    ] = ()
    watch: Annotated[
        bool, Key(values.SWITCH, "Do what this file says as soon as it is changed.")
    ] = False
    audit_log: Annotated[
        str | None,
        Key(
            values.PATH,
            'Every visitor\'s connection as a line of JSON; "-" is stdout. Off while not set.',
            "audit.jsonl",
        ),
    ] = None
