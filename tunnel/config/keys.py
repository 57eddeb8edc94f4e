"""What a key of a configuration takes and is for, and how the keys of a table are found."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args, get_type_hints

import attrs

from tunnel.config.values import ValueType


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
