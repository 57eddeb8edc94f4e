"""A client from a join string: where the string comes from, and the file it can be saved as."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final, TextIO

import attrs

from tunnel import limits, store
from tunnel.cli.loading import read_text, rewrite
from tunnel.compose import joined_client
from tunnel.config import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.edit import add_proxy, add_visitor
from tunnel.config.load import load_client
from tunnel.config.template import dump
from tunnel.errors import ConfigError, Fault, StoreError, TunnelError
from tunnel.protocol.join import Join

VARIABLE: Final = "TLS_TUNNEL_JOIN"
_STDIN: Final = "-"
_KEY_VARIABLE: Final = "TLS_TUNNEL_AUTH_KEY"


def read_join(text: str | None, file: Path | None, environ: MutableMapping[str, str]) -> Join:
    """Read the join string from the one place that has it.

    Args:
      text: what the command line says; "-" is standard input.
      file: the file that the command line names.
      environ: the environment. The join string, which holds a key, is taken out of it, so that no
        child process inherits it.

    Raises:
      TunnelError: no place has one, or several do, or it cannot be read.
      JoinFormatError: what is there is no join string.
    """
    variable = environ.pop(VARIABLE, None)
    given = [
        name
        for name, value in (("--join", text), ("--join-file", file), (VARIABLE, variable))
        if value is not None
    ]
    if not given:
        raise TunnelError(
            "which server? give its join string with --join, --join-file or "
            f"{VARIABLE}; `tls-tunnel server --quick` prints one"
        )
    if len(given) > 1:
        raise TunnelError(f"{' and '.join(given)} both give a join string: keep one of them")
    if file is not None:
        return Join.from_text(_read_file(file))
    return Join.from_text(_read_stdin(sys.stdin) if text == _STDIN else text or variable or "")


def client_of(join: Join, environ: MutableMapping[str, str]) -> ClientConfig:
    """Make the configuration of a client from a join string and the environment.

    The rules are those of a file, for which the environment counts as well.

    Args:
      join: the server, and the key. That of the environment does not count.
      environ: usually `os.environ`.

    Raises:
      ConfigError: the environment has faults.
    """
    others = {name: value for name, value in environ.items() if name != _KEY_VARIABLE}
    text = dump(joined_client(join))
    return load_client(text, source="join string", environ=others, idle=True).value


def _read_file(path: Path) -> str:
    if problem := store.exposed(path):
        print(f"warning: {problem}", file=sys.stderr)
    try:
        with path.open("rb") as file:
            return file.read(limits.MAX_JOIN_FILE).decode(errors="replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot read the join string in {path}: {reason}") from error


def _read_stdin(stdin: TextIO) -> str:
    if stdin.isatty():
        return getpass.getpass("Join string (it does not show): ")
    return stdin.readline(limits.MAX_JOIN_FILE)


# --- Saving ----------------------------------------------------------------------------------


def save_as_file(
    path: Path, join: Join, table: ProxyConfig | VisitorConfig, environ: Mapping[str, str]
) -> str:
    """Write what a command of one line says as a file for `tls-tunnel client`.

    Args:
      path: the file. If it is there, then the table is added to it.
      join: the server.
      table: what is published or visited.
      environ: usually `os.environ`; counts when the file is checked.

    Returns:
      What to tell the person.

    Raises:
      ConfigError: the file has faults, is for another server, or would have faults with this.
      StoreError: it cannot be read or written. Either way it is as it was.
    """
    later = f"later: tls-tunnel client -c {path}"
    if not os.path.lexists(path):
        config = _with(joined_client(join), table)
        store.write_atomic(store.File(path, dump(config).encode()))
        return f"saved as {path}; {later}"
    text = read_text(path, "client")
    before = load_client(text, source=str(path), environ=environ, idle=True).value
    _refuse_another_server(path, before, join)
    if table in (*before.proxies, *before.visitors):
        return f"{path} says so already; {later}"
    if isinstance(table, ProxyConfig):
        text = add_proxy(text, table, source=str(path), environ=environ)
    else:
        text = add_visitor(text, table, source=str(path), environ=environ)
    rewrite(path, text)
    return f"added to {path}; {later}"


def _with(config: ClientConfig, table: ProxyConfig | VisitorConfig) -> ClientConfig:
    if isinstance(table, ProxyConfig):
        return attrs.evolve(config, proxies=(table,))
    return attrs.evolve(config, visitors=(table,))


def _refuse_another_server(path: Path, config: ClientConfig, join: Join) -> None:
    """Go on only if the file leads to the server of the join string, with the same key.

    Raises:
      ConfigError: it does not.
    """
    key, wrong = _key_of(path, config), None
    if join.host not in config.server_addr or join.port != config.server_port:
        wrong = "leads to another server"
    elif key != join.key:
        wrong = "has another key"
    elif config.pin and join.pin not in config.pin:
        wrong = "has another pin"
    if wrong:
        message = f"this file {wrong} than the join string: give another name to save as"
        raise ConfigError(str(path), [Fault(None, None, message)])


def _key_of(path: Path, config: ClientConfig) -> str:
    if config.auth_key is not None:
        return config.auth_key
    named = store.resolve(config.auth_key_file or "", base=store.directory_of(path))
    return store.read_auth_key(named)
