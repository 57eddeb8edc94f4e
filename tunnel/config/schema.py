"""What configurations are made of: keys, tables of keys, and the keys that both files share.

A table is a frozen class. Each of its fields is annotated with a `Key`, which says what the file
may hold under that name and what it is for. The loader, the templates and the reference are made
from these classes, so that none of them can know a key that the others do not.
"""

from __future__ import annotations

import enum
from functools import cache
from typing import Annotated, Any, Final, get_args, get_type_hints

import attrs

from tunnel.config import values
from tunnel.config.values import LOOPBACK, ValueType


class Kind(enum.StrEnum):
    """Whose configuration a file is."""

    SERVER = "server"
    CLIENT = "client"


@attrs.frozen
class Key:
    """What a file may say under one key.

    Args:
      type: what it takes.
      help: what it is for, on one line.
      example: what a template shows, commented out, where there is no default to show.
      env: the environment variable that goes before the file.
    """

    type: ValueType[Any]
    help: str
    example: object = None
    env: str | None = None


Table = type[attrs.AttrsInstance]


@cache
def keys(table: Table) -> dict[str, Key]:
    """The keys of a table, in their order; those that it shares with another come last."""
    hints = get_type_hints(table, include_extras=True)
    fields = sorted(attrs.fields(table), key=lambda field: field.inherited)
    found = {field.name: get_args(hints[field.name])[-1:] for field in fields}
    return {name: key for name, (*_, key) in found.items() if isinstance(key, Key)}


@cache
def required(table: Table) -> tuple[str, ...]:
    """The keys that a table cannot do without."""
    fields = attrs.fields_dict(table)
    return tuple(name for name in keys(table) if fields[name].default is attrs.NOTHING)


#: The tables that a file may have many of.
_ARRAYS: Final = ("server.clients", "proxies", "visitors")


def header(table: str) -> str:
    """How a table begins in the file: ``[server]``, ``[[proxies]]``."""
    return f"[[{table}]]" if table in _ARRAYS else f"[{table}]"


@attrs.frozen(kw_only=True)
class CommonConfig:
    """The keys that ``[server]`` and ``[client]`` share: statistics, audit log, reloading.

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
