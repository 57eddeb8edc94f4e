"""Configuration files: reading one for a program, checking one for a person, writing one back."""

from __future__ import annotations

import itertools
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar

from tunnel import remedies, store
from tunnel.config import (
    ClientConfig,
    IdentityConfig,
    Kind,
    ProxyConfig,
    ServerConfig,
    VisitorConfig,
)
from tunnel.config.load import Loaded, detect, examine
from tunnel.config.load import load_client as parse_client
from tunnel.config.load import load_server as parse_server
from tunnel.config.locate import Path as Place
from tunnel.config.locate import locate
from tunnel.config.report import Report, dotted
from tunnel.errors import Fault, StoreError
from tunnel.protocol.keys import KeyFormatError, Verifier, is_generated_key

logger = logging.getLogger(__name__)

C = TypeVar("C", ServerConfig, ClientConfig)
#: A table that has a key.
WithKey: TypeAlias = ServerConfig | ClientConfig | IdentityConfig
#: A table that may have a visitor secret.
WithSecret: TypeAlias = ProxyConfig | VisitorConfig

#: The keys that name a file which must be there when the program starts; whether it is secret.
FILES = {
    "cert_path": False,
    "key_path": True,
    "auth_key_file": True,
    "stats_token_file": True,
    "ca_cert_path": False,
    "client_ca_path": False,
    "visitor_secret_file": True,
}


def load_server(path: Path) -> ServerConfig:
    """Load a server's configuration, with what the environment says; log its warnings.

    Args:
      path: the file.

    Raises:
      ConfigError: it has faults.
      StoreError: it cannot be read.
    """
    text = read_text(path, "server")
    return _usable(path, parse_server(text, source=str(path), environ=os.environ))


def load_client(path: Path) -> ClientConfig:
    """Load a client's configuration, with what the environment says; log its warnings.

    Args:
      path: the file.

    Raises:
      ConfigError: it has faults.
      StoreError: it cannot be read.
    """
    text = read_text(path, "client")
    return _usable(path, parse_client(text, source=str(path), environ=os.environ))


def check(path: Path) -> Report:
    """Find every error and warning of a file, and of the files that it names.

    Args:
      path: the file. Whether it is a server's or a client's is seen from its tables.

    Raises:
      StoreError: it cannot be read.
    """
    text = read_text(path)
    kind = detect(text)
    found = examine(text, kind, os.environ)
    errors, warnings = list(found.errors), list(found.warnings)
    if found.value is not None and kind is not None:
        errors += _mistyped_keys(text, kind, found.value)
        warnings += [*_exposure(path, found.value), *_references(path, found.value)]
    return Report(kind, tuple(errors), tuple(warnings))


def read_text(path: Path, kind: str = "server|client") -> str:
    """Read the text of a configuration.

    Args:
      path: the file.
      kind: whose it is, for the error that says how to make one.

    Raises:
      StoreError: the file is not there, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError as error:
        raise StoreError(remedies.NO_CONFIGURATION.text(path=path, kind=kind)) from error
    except PermissionError as error:
        raise StoreError(remedies.NOT_ALLOWED_TO_READ.text(path=path)) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(remedies.CANNOT_READ.text(path=path, reason=reason)) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise StoreError(f"{path}:{line}: this is not UTF-8 text") from error


def rewrite(path: Path, text: str) -> None:
    """Write another text into a file, whole or not at all.

    The file keeps its mode, and a link to it stays a link.

    Args:
      path: the file, which is there.
      text: what it holds from now on.

    Raises:
      StoreError: it cannot be written, or belongs to another user.
    """
    path = path.resolve()
    before = path.stat()
    if before.st_uid != os.geteuid():
        raise StoreError(f"{path} belongs to another user, who would lose it: edit it as that user")
    store.write_atomic(store.File(path, text.encode(), stat.S_IMODE(before.st_mode)))


def _usable(path: Path, loaded: Loaded[C]) -> C:
    _log(path, [*loaded.warnings, *_exposure(path, loaded.value)])
    return loaded.value


def _log(path: Path, warnings: Iterable[Fault]) -> None:
    for warning in warnings:
        place = str(path) if warning.line is None else f"{path}:{warning.line}"
        key = {} if warning.key is None else {"key": warning.key}
        logger.warning("Configuration", extra={"file": place, **key, "warning": warning.message})


def _mistyped_keys(text: str, kind: Kind, value: ServerConfig | ClientConfig) -> Iterator[Fault]:
    """An error for each key or verifier that looks like a generated one and has been changed."""
    tables: dict[Place, WithKey] = {(kind.value,): value}
    tables |= {(kind.value, "clients", i): entry for i, entry in enumerate(_identities(value))}
    for path, entry in tables.items():
        key = "auth_key" if entry.auth_key is not None else "verifier"
        try:
            is_generated_key(entry.auth_key or "")
            if isinstance(entry, IdentityConfig) and entry.verifier is not None:
                Verifier.from_text(entry.verifier)
        except KeyFormatError as error:
            yield Fault(locate(text, (*path, key)), dotted((*path, key)), str(error))
    for path, table in _with_secret(value).items():
        try:
            is_generated_key(table.visitor_secret or "")
        except KeyFormatError as error:
            place = (*path, "visitor_secret")
            yield Fault(locate(text, place), dotted(place), str(error))


def _with_secret(value: ServerConfig | ClientConfig) -> dict[Place, WithSecret]:
    """The tables of a client that may have a secret."""
    if isinstance(value, ServerConfig):
        return {}
    proxies: dict[Place, WithSecret] = {("proxies", i): it for i, it in enumerate(value.proxies)}
    return proxies | {("visitors", i): it for i, it in enumerate(value.visitors)}


def _identities(value: ServerConfig | ClientConfig) -> tuple[IdentityConfig, ...]:
    return value.clients if isinstance(value, ServerConfig) else ()


def _exposure(path: Path, value: ServerConfig | ClientConfig) -> Iterator[Fault]:
    """A warning if the file holds the key and others can read it."""
    own = value.auth_key is not None and "TLS_TUNNEL_AUTH_KEY" not in os.environ
    # A verifier is a secret as well: see `Verifier.to_text`.
    others = any(entry.auth_key or entry.verifier for entry in _identities(value))
    secret = any(table.visitor_secret for table in _with_secret(value).values())
    if (own or others or secret) and (problem := store.exposed(path)):
        yield Fault(None, "auth_key" if own or others else "visitor_secret", problem)


def _references(path: Path, value: ServerConfig | ClientConfig) -> Iterator[Fault]:
    """A warning for each file that the configuration names and that is missing or exposed here.

    Not an error: a configuration may be checked on another machine than the one it is for.
    """
    for place, key, name in named_files(value):
        if problem := _file_problem(name, path.parent, secret=FILES[key]):
            yield Fault(None, place + key, problem)


def named_files(value: ServerConfig | ClientConfig) -> Iterator[tuple[str, str, str]]:
    """The files that a configuration names: for each its table, as in `proxies[0].`, key and name.

    Args:
      value: the configuration.
    """
    entries: dict[str, WithKey | WithSecret] = {"": value}
    entries |= {f"server.clients[{i}].": entry for i, entry in enumerate(_identities(value))}
    entries |= {f"{dotted(path)}.": table for path, table in _with_secret(value).items()}
    for place, key in itertools.product(entries, FILES):
        if (name := getattr(entries[place], key, None)) is not None:
            yield place, key, name


def _file_problem(name: str, base: Path, *, secret: bool) -> str | None:
    """Why a program here could or should not use the file; None if nothing is wrong with it."""
    try:
        file = store.resolve(name, base=base)
    except StoreError as error:
        return str(error)
    if not os.access(file, os.R_OK):
        return f"there is no file {file}, or it cannot be read"
    return store.exposed(file) if secret else None
