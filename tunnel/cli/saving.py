"""`--save`: what a line says, as a file that `tls-tunnel client` runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from tunnel import store
from tunnel.cli.loading import read_text
from tunnel.cli.proxies import replace
from tunnel.config import ClientConfig, ProxyConfig, VisitorConfig, load_client
from tunnel.config.edit import add_proxy, add_visitor
from tunnel.config.template import dump
from tunnel.errors import ConfigError, Fault
from tunnel.protocol.join import Join
from tunnel.quick import client_config


def save(
    path: Path, join: Join, table: ProxyConfig | VisitorConfig, environ: Mapping[str, str]
) -> str:
    """Write what a line says into a file, a new one or one that is there; returns what to tell.

    Raises:
      ConfigError: the file has faults, is for another server, or would have faults with this.
      StoreError: it cannot be read or written. Either way it is as it was.
    """
    later = f"later: tls-tunnel client -c {path}"
    if not os.path.lexists(path):
        config = _with(client_config(join), table)
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
    replace(path, text)
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
    key = config.auth_key
    if key is None:
        beside = store.directory_of(path)
        key = store.read_auth_key(store.resolve(config.auth_key_file or "", beside=beside))
    wrong = None
    if join.host not in config.server_addr or join.port != config.server_port:
        wrong = "leads to another server"
    elif key != join.key:
        wrong = "has another key"
    elif config.pin and join.pin not in config.pin:
        wrong = "has another pin"
    if wrong:
        message = f"this file {wrong} than the join string: give another name to save as"
        raise ConfigError(str(path), [Fault(None, None, message)])
