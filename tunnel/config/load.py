"""From the text of a configuration to its value, or to every fault that is in it.

The text is read twice: by `tomllib`, which gives values, and by `locate`, which gives lines. Then
each table is read by its class (`tables`), and the rules between keys are applied (`rules`). The
value is made only if there was no error, so a configuration in memory is always a valid one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import attrs

from tunnel.config import rules
from tunnel.config.client import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.legacy import OLD_VARIABLES
from tunnel.config.locate import Lines, Path
from tunnel.config.report import Notes, dotted
from tunnel.config.schema import Kind
from tunnel.config.server import IdentityConfig, RateLimit, ServerConfig
from tunnel.config.tables import (
    Values,
    many_tables,
    one_table,
    read_table,
    read_variables,
    unknown_key,
)
from tunnel.errors import ConfigError, Fault

C = TypeVar("C", bound=attrs.AttrsInstance)
T = TypeVar("T", ProxyConfig, VisitorConfig, IdentityConfig)
Document = Mapping[str, Any]

#: What stands at the top of each file; `forwarders` is an old client's.
_ROOTS: Final = {
    Kind.SERVER: ("server",),
    Kind.CLIENT: ("client", "proxies", "visitors", "forwarders"),
}
#: Some editors put this in front of a text.
_BYTE_ORDER_MARK: Final = "\ufeff"
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
#: What tomllib says, and the mistake that it most often means.
_HINTS: Final = {
    "Invalid value": "a text needs quotes",
    "Unescaped '\\' in a string": "write two of them, or put the text into single quotes",
    "Expected '=' after a key in a key/value pair": "a line is: key = value",
    "Unterminated string": "a quote is missing",
    'Expected "\'"': "a quote is missing",
    "Expected \"'''\"": "a text is not closed",
}


@attrs.frozen
class Loaded(Generic[C]):
    """A configuration, and the warnings about it."""

    value: C
    warnings: tuple[Fault, ...]


@attrs.frozen
class Examined:
    """All that one text gave: `value` is None if there are errors."""

    value: ServerConfig | ClientConfig | None
    errors: list[Fault]
    warnings: list[Fault]


def load_server(text: str, *, source: str, environ: Mapping[str, str]) -> Loaded[ServerConfig]:
    """Read a ``server.toml``.

    Args:
      text: the file's contents.
      source: its name, for messages.
      environ: the environment, which goes before the file.

    Raises:
      ConfigError: with all faults, in the order of their lines.
    """
    found = examine(text, Kind.SERVER, environ)
    if not isinstance(found.value, ServerConfig):
        raise ConfigError(source, found.errors)
    return Loaded(found.value, tuple(found.warnings))


def load_client(
    text: str,
    *,
    source: str,
    environ: Mapping[str, str],
    idle: bool = False,
) -> Loaded[ClientConfig]:
    """Read a ``client.toml``.

    Args:
      text: the file's contents.
      source: its name, for messages.
      environ: the environment, which goes before the file.
      idle: the file may have neither proxies nor visitors: the caller has some of its own.

    Raises:
      ConfigError: with all faults, in the order of their lines.
    """
    found = examine(text, Kind.CLIENT, environ, idle=idle)
    if not isinstance(found.value, ClientConfig):
        raise ConfigError(source, found.errors)
    return Loaded(found.value, tuple(found.warnings))


def detect(text: str) -> Kind | None:
    """Whose file this is, by its first table; None if it is nobody's.

    Works on files with syntax errors, too.
    """
    for root in Lines.of(text.removeprefix(_BYTE_ORDER_MARK)).roots:
        for kind, roots in _ROOTS.items():
            if root in roots:
                return kind
    return None


def examine(
    text: str, kind: Kind | None, environ: Mapping[str, str], *, idle: bool = False
) -> Examined:
    """Read a text as a server's or a client's file, or as one that is neither. Never raises.

    Args:
      text: the file's contents.
      kind: whose it is to be; None if `detect` could not tell, which is an error in the result.
      environ: the environment, which goes before the file.
      idle: see `load_client`.
    """
    text = text.removeprefix(_BYTE_ORDER_MARK)
    lines = Lines.of(text)
    document = _parse(text, lines)
    if isinstance(document, Fault):
        return Examined(None, [document], [])
    notes = Notes(lines)
    if kind is Kind.CLIENT and kind in document and not idle:
        _anything_to_do(document, notes)
    value = _read(document, kind, environ, notes)
    return Examined(value, notes.errors, notes.warnings)


def _parse(text: str, lines: Lines) -> dict[str, Any] | Fault:
    """The document, or the fault in it: the reader of TOML stops at the first error."""
    # tomllib, not tomlkit: it tells the right line, and takes nothing that is not TOML.
    try:
        return tomllib.loads(text)
    except RecursionError:
        return Fault(None, None, "brackets are nested too deeply")
    except tomllib.TOMLDecodeError as error:
        return _syntax_fault(str(error), text, lines)
    except ValueError:
        return Fault(None, None, "a number has too many digits")


def _syntax_fault(message: str, text: str, lines: Lines) -> Fault:
    place = _PLACE.search(message)
    at_end = text.rstrip().count("\n") + 1
    line = int(place[1]) if place and place[1] else at_end
    if lines.repeated is not None and lines.repeated.line == line:
        return Fault(line, dotted(lines.repeated.path), "is in the file twice")
    reason = _PLACE.sub("", message)
    column = f", column {place[2]}" if place and place[2] else ""
    hint = f" ({_HINTS[reason]})" if reason in _HINTS else ""
    return Fault(line, None, f"not TOML{column}: {reason}{hint}")


def _read(
    document: Document, kind: Kind | None, environ: Mapping[str, str], notes: Notes
) -> ServerConfig | ClientConfig | None:
    other = _mistaken_for(kind, document)
    if other is not None:
        message = f"this is a {other}'s file: `tls-tunnel {other}` runs it, not {kind}"
        notes.error((other.value,), message)
        return None
    _roots(document, kind, notes)
    if kind is None:
        return None
    reader = _server if kind is Kind.SERVER else _client
    values = reader(document, environ, notes)
    return None if notes.errors else _CONFIGS[kind](**values)


def _mistaken_for(kind: Kind | None, document: Document) -> Kind | None:
    if kind is None or kind in document:
        return None
    return next((other for other in Kind if other in document), None)


def _roots(document: Document, kind: Kind | None, notes: Notes) -> None:
    """The tables at the top: those that are unknown or another file's, and the one that must be."""
    known = [root for of, names in _ROOTS.items() if kind in (of, None) for root in names]
    for name, value in document.items():
        if name in known:
            continue
        if any(name in names for names in _ROOTS.values()):
            notes.error((name,), f"is not for a {kind}'s file: server and client have one each")
        else:
            unknown_key((name,), value, known, notes)
    if kind is None:
        message = "neither [server] nor [client] is there; `tls-tunnel template` prints either"
        notes.error((), message)
    elif kind not in document:
        remedy = f"`tls-tunnel template {kind}` prints a file to begin with"
        notes.error((kind.value,), f"the table [{kind}] is missing; {remedy}")


def _server(document: Document, environ: Mapping[str, str], notes: Notes) -> Values:
    path = ("server",)
    file = one_table(document, path, notes)
    if file is None:
        return {}
    values = read_table(ServerConfig, file, path, notes, nested=("rate_limit", "clients"))
    values["rate_limit"] = _rate_limit(file, notes)
    values["clients"] = _tables(IdentityConfig, file, ("server", "clients"), notes)
    read_variables(ServerConfig, values, environ, notes)
    rules.server(file, values, notes)
    return values


def _rate_limit(server: Document, notes: Notes) -> RateLimit | None:
    path = ("server", "rate_limit")
    file = one_table(server, path, notes)
    if file is None:
        return None
    values = read_table(RateLimit, file, path, notes)
    return None if notes.errors else RateLimit(**values)


def _tables(of: type[T], parent: Document, path: Path, notes: Notes) -> tuple[T, ...]:
    """The tables of the array at a path; none if there is a fault anywhere."""
    files = many_tables(parent, path, notes).items()
    tables = {i: read_table(of, file, (*path, i), notes) for i, file in files}
    _RULES[of](tables, notes)
    return () if notes.errors else tuple(of(**values) for values in tables.values())


def _client(document: Document, environ: Mapping[str, str], notes: Notes) -> Values:
    path = ("client",)
    values: Values = {}
    file = one_table(document, path, notes)
    if file is not None:
        values = read_table(ClientConfig, file, path, notes)
        read_variables(ClientConfig, values, environ, notes)
        rules.client(file, values, notes)
    for variable, text in OLD_VARIABLES.items():
        if variable in environ:
            notes.warn_outside(variable, text)
    if "forwarders" in document:
        unknown_key(("forwarders",), document["forwarders"], (), notes)
    return values | {
        "proxies": _tables(ProxyConfig, document, ("proxies",), notes),
        "visitors": _tables(VisitorConfig, document, ("visitors",), notes),
    }


def _anything_to_do(document: Document, notes: Notes) -> None:
    if all(document.get(name, []) == [] for name in ("proxies", "visitors", "forwarders")):
        notes.error(("proxies",), "there is nothing to do: add a [[proxies]] or [[visitors]] table")


#: The rules for the tables of an array, by what each table becomes.
_RULES: Final[dict[type, Callable[[rules.Tables, Notes], None]]] = {
    IdentityConfig: rules.identities,
    ProxyConfig: rules.proxies,
    VisitorConfig: rules.visitors,
}
_CONFIGS: Final = {Kind.SERVER: ServerConfig, Kind.CLIENT: ClientConfig}
