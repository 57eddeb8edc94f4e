"""From the arguments of a call to the values of a configuration, by the rules of the file."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from tunnel.config import rules
from tunnel.config.client import ProxyConfig, VisitorConfig
from tunnel.config.locate import Lines
from tunnel.config.report import Notes
from tunnel.config.tables import read_table
from tunnel.config.values import LOOPBACK, UNIX
from tunnel.errors import ConfigError, Fault
from tunnel.model import Address

#: What names a local service: a port of this machine, "host:port", "unix:/path", or an address.
Target = int | str | Address


def proxy_config(arguments: Mapping[str, object], call: str = "publish()") -> ProxyConfig:
    """A proxy as `[[proxies]]` would describe it.

    Args:
      arguments: by the keys of the file; those that are None or empty are left out.
      call: what to name in messages.

    Raises:
      ConfigError: with all that is wrong.
    """
    notes = Notes(Lines.of(""))
    values = read_table(ProxyConfig, _given(arguments), (), notes)
    if not notes.errors:
        rules.proxies({0: values}, notes)
    if notes.errors:
        raise ConfigError(call, [_without_table(fault) for fault in notes.errors])
    return ProxyConfig(**values)


def visitor_config(arguments: Mapping[str, object], call: str) -> VisitorConfig:
    """Another client's proxy to visit, as `[[visitors]]` would describe it; see `proxy_config`."""
    notes = Notes(Lines.of(""))
    values = read_table(VisitorConfig, _given(arguments), (), notes)
    if notes.errors:
        raise ConfigError(call, notes.errors)
    return VisitorConfig(**values)


def _given(arguments: Mapping[str, object]) -> dict[str, object]:
    return {key: _plain(value) for key, value in arguments.items() if value not in (None, (), [])}


def _plain(value: object) -> object:
    """As TOML would have it."""
    return list(value) if isinstance(value, tuple) else value


def _without_table(fault: Fault) -> Fault:
    return attrs.evolve(fault, key=(fault.key or "").removeprefix("proxies[0]."))


def local_address(to: Target) -> dict[str, object]:
    """The keys `local_addr` and `local_port` for a target. Nothing is checked: `proxy_config` does.

    Args:
      to: a port of this machine, "host:port", "unix:/path", or an address.
    """
    if isinstance(to, Address):
        return {"local_addr": to.host, "local_port": to.port}
    if isinstance(to, str) and to.startswith(UNIX):
        return {"local_addr": to}
    host, colon, port = str(to).rpartition(":")
    number: object = int(port) if port.isascii() and port.isdecimal() else port
    return {"local_addr": host.strip("[]") if colon else LOOPBACK, "local_port": number}
