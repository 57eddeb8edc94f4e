"""What is different between two configurations, and when each difference takes effect.

Every key is in exactly one of three classes: a running program takes it over at once, or with a new
connection to the server, or only when it is restarted. A key in none of the sets below takes a
restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import attrs

from tunnel.config.client import ClientConfig, ProxyConfig
from tunnel.config.server import ServerConfig

C = TypeVar("C", ServerConfig, ClientConfig)

#: What a running server takes over at once.
_SERVER_LIVE: Final = {
    "auth_key",
    "auth_key_file",
    "allow_ports",
    "allow_publish_addrs",
    "handshake_timeout",
    "keepalive_interval",
    "keepalive_timeout",
    "shutdown_grace",
    "max_unauthenticated",
    "max_connections_per_proxy",
    "max_connections_per_visitor",
    "rate_limit",
}
#: What a running client takes over at once.
_CLIENT_LIVE: Final = {
    "connect_timeout",
    "reconnect_delay",
    "reconnect_max_delay",
    "local_connect_retries",
    "local_retry_delay_ms",
}
#: What a running client takes over with a new connection to the server.
_CLIENT_ANEW: Final = {
    "visitors",
    "server_addr",
    "server_port",
    "auth_key",
    "auth_key_file",
    "pin",
    "ca_cert_path",
    "skip_verify",
    "cert_path",
    "key_path",
    "name",
    "keepalive_interval",
    "keepalive_timeout",
}


@attrs.frozen
class Changes:
    """From one configuration to another.

    Args:
      added, removed: names of a client's proxies, or of the clients that a server knows.
      moved: proxies whose published address or port is another.
      changed: those of which something else is different; live connections go on as they are.
      live: keys that take effect at once, those of keepalive for sessions that begin later.
      anew: keys that take effect with a new connection to the server; it is made at once.
      restart: keys that take effect when the program is restarted.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def server_changes(former: ServerConfig, new: ServerConfig) -> Changes:
    """The difference between two configurations of a server."""
    before = {entry.name: entry for entry in former.clients}
    now = {entry.name: entry for entry in new.clients}
    keys = [key for key in _different(former, new) if key != "clients"]
    return Changes(
        added=tuple(name for name in now if name not in before),
        removed=tuple(name for name in before if name not in now),
        changed=tuple(name for name in now if name in before and now[name] != before[name]),
        live=tuple(key for key in keys if key in _SERVER_LIVE),
        restart=tuple(key for key in keys if key not in _SERVER_LIVE),
    )


def client_changes(former: ClientConfig, new: ClientConfig) -> Changes:
    """The difference between two configurations of a client."""
    before = {proxy.name: proxy for proxy in former.proxies}
    now = {proxy.name: proxy for proxy in new.proxies}
    both = [name for name in now if name in before and now[name] != before[name]]
    moved = tuple(name for name in both if _place(now[name]) != _place(before[name]))
    keys = [key for key in _different(former, new) if key != "proxies"]
    return Changes(
        added=tuple(name for name in now if name not in before),
        removed=tuple(name for name in before if name not in now),
        moved=moved,
        changed=tuple(name for name in both if name not in moved),
        live=tuple(key for key in keys if key in _CLIENT_LIVE),
        anew=tuple(key for key in keys if key in _CLIENT_ANEW),
        restart=tuple(key for key in keys if key not in _CLIENT_LIVE | _CLIENT_ANEW),
    )


def in_force(former: C, new: C, changes: Changes) -> C:
    """The configuration that a running program has after a change.

    Args:
      former: what it runs with.
      new: what its file says now.
      changes: from one to the other; the keys of its `restart` stay as they were.
    """
    return attrs.evolve(new, **{key: getattr(former, key) for key in changes.restart})


def _different(former: C, new: C) -> Iterator[str]:
    for field in attrs.fields(type(new)):
        if getattr(former, field.name) != getattr(new, field.name):
            yield field.name


def _place(proxy: ProxyConfig) -> tuple[str, int, bool]:
    return proxy.publish_addr, proxy.publish_port, proxy.visitors_only
