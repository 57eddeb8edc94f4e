"""The tables of both files, and reading one: what is there, what is missing, what is unknown.

All reading goes on after a fault and puts it into the notes, so that one run names every fault.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from tunnel.config.client import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.legacy import Treatment, old_key
from tunnel.config.locate import Path
from tunnel.config.report import Notes, dotted
from tunnel.config.schema import Table, header, keys, required
from tunnel.config.server import IdentityConfig, RateLimit, ServerConfig
from tunnel.config.values import describe

#: Each table's name in the file (without brackets), in the order of the reference.
TABLES: Final[dict[str, Table]] = {
    "server": ServerConfig,
    "server.rate_limit": RateLimit,
    "server.clients": IdentityConfig,
    "client": ClientConfig,
    "proxies": ProxyConfig,
    "visitors": VisitorConfig,
}

Values = dict[str, Any]
"""What could be read, by key, with the defaults of keys that are not there.

A key that is there and wrong is not in it.
"""


def one_table(parent: Mapping[str, object], path: Path, notes: Notes) -> dict[str, Any] | None:
    """The table at a path; None if there is none, or, with a note, something else.

    Args:
      parent: the table that it is in.
      path: the way to it; its last part is the key in `parent`.
      notes: take the fault.
    """
    value = parent.get(str(path[-1]))
    if value is None:
        return None
    if not isinstance(value, dict):
        notes.error(path, f"expected a table {header(dotted(path))}, found {describe(value)}")
        return None
    return value


def many_tables(
    parent: Mapping[str, object], path: Path, notes: Notes
) -> dict[int, dict[str, Any]]:
    """The tables of the array at a path, by number; what is no table is left out, with a note.

    Args:
      parent: the table that it is in.
      path: the way to it; its last part is the key in `parent`.
      notes: take the faults.
    """
    value = parent.get(str(path[-1]), [])
    if not isinstance(value, list):
        hint = "; write two brackets" if isinstance(value, dict) else ""
        expected = f"expected {header(dotted(path))} tables"
        notes.error(path, f"{expected}, found {describe(value)}{hint}")
        return {}
    tables = {}
    for index, table in enumerate(value):
        if isinstance(table, dict):
            tables[index] = table
        else:
            notes.error((*path, index), f"expected a table, found {describe(table)}")
    return tables


def read_table(
    table: Table,
    file: Mapping[str, object],
    path: Path,
    notes: Notes,
    *,
    nested: tuple[str, ...] = (),
) -> Values:
    """Read the keys of one table; what is wrong goes into the notes.

    Args:
      table: its class.
      file: what the file has there.
      path: where it is, for messages.
      notes: take the faults.
      nested: names of tables in this one, which are read by themselves.
    """
    values = _defaults(table, file)
    known = keys(table)
    for name, value in file.items():
        here = (*path, name)
        if name not in known:
            if name not in nested:
                unknown_key(here, value, (*known, *nested), notes)
            continue
        try:
            values[name] = known[name].type.read(value)
        except ValueError as error:
            notes.error(here, str(error))
        else:
            _old(here, value, notes)
    for name in required(table):
        if name not in file:
            notes.error((*path, name), f"is missing: expected {known[name].type.expects}")
    return values


def _defaults(table: Table, file: Mapping[str, object]) -> Values:
    return {
        field.name: field.default
        for field in attrs.fields(table)
        # The class itself sees to the default that depends on another key.
        if field.default is not attrs.NOTHING and not hasattr(field.default, "factory")
        if field.name not in file
    }


def read_variables(table: Table, values: Values, environ: Mapping[str, str], notes: Notes) -> None:
    """Put what the environment says into the values of a table; it goes before the file.

    Args:
      table: its class; its keys name their variables.
      values: changed in place.
      environ: the environment.
      notes: take the faults.
    """
    for name, key in keys(table).items():
        if key.env is None or key.env not in environ:
            continue
        values.pop(name, None)
        try:
            values[name] = key.type.read_text(environ[key.env])
        except ValueError as error:
            notes.error_outside(key.env, str(error))


def unknown_key(path: Path, value: object, known: Iterable[str], notes: Notes) -> None:
    """Note a key that is not of this table: one of 1.5, a misplaced or a mistyped one.

    Args:
      path: the way to it.
      value: what it has.
      known: the keys that may be there, of which one may be meant.
      notes: take the fault.
    """
    if not _old(path, value, notes):
        notes.error(path, f"unknown {_kind(value)}{_suggestion(str(path[-1]), known)}")


def _kind(value: object) -> str:
    return "table" if isinstance(value, dict) else "key"


def _suggestion(name: str, known: Iterable[str]) -> str:
    homes = [header(table) for table, of in TABLES.items() if name in keys(of)]
    if homes:
        return f"; it belongs in {' or '.join(homes)}"
    close = difflib.get_close_matches(name.lower(), list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _old(path: Path, value: object, notes: Notes) -> bool:
    """Treat a key of tls-tunnel 1.5 as its table says; False if it is none."""
    old = old_key(path)
    if old is None:
        return False
    if old.treatment is Treatment.REFUSED and old.concerns(value):
        notes.error(path, old.text)
    elif old.treatment is Treatment.IGNORED and old.concerns(value):
        notes.warn(path, old.text)
    return True
