"""Publish services from behind a NAT through a server with a public address.

The names below are the public API. Each is loaded when it is first used, so that
`import tunnel.yamux` loads no Trio.

(PYTEST_DONT_REWRITE: there is a plugin of pytest's in here, and pytest would warn if the tunnel was
imported before it.)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunnel._version import __version__
    from tunnel.api import change_client, change_server, run_client, run_server
    from tunnel.client.handler import Handler, Peer
    from tunnel.config import ClientConfig, ServerConfig, load_client, load_server
    from tunnel.errors import (
        ConfigError,
        LinkLost,
        PublishError,
        Refused,
        TunnelError,
        Untrusted,
    )
    from tunnel.events import (
        ClientConnected,
        ClientDisconnected,
        ProxyPublished,
        ProxyWithdrawn,
        ServerEvent,
    )
    from tunnel.library.link import ClientLink, connect
    from tunnel.library.server import EmbeddedServer, serve
    from tunnel.model import Address
    from tunnel.views import (
        Arrival,
        ClientHandle,
        ClientState,
        ServerHandle,
    )

__all__ = [
    "Address",
    "Arrival",
    "ClientConfig",
    "ClientConnected",
    "ClientDisconnected",
    "ClientHandle",
    "ClientLink",
    "ClientState",
    "ConfigError",
    "EmbeddedServer",
    "Handler",
    "LinkLost",
    "Peer",
    "ProxyPublished",
    "ProxyWithdrawn",
    "PublishError",
    "Refused",
    "ServerConfig",
    "ServerEvent",
    "ServerHandle",
    "TunnelError",
    "Untrusted",
    "__version__",
    "change_client",
    "change_server",
    "connect",
    "load_client",
    "load_server",
    "run_client",
    "run_server",
    "serve",
]

_HOME = {
    "Address": "model",
    "Arrival": "views",
    "ClientConfig": "config",
    "ClientConnected": "events",
    "ClientDisconnected": "events",
    "ClientHandle": "views",
    "ClientLink": "library.link",
    "ClientState": "views",
    "ConfigError": "errors",
    "EmbeddedServer": "library.server",
    "Handler": "client.handler",
    "LinkLost": "errors",
    "Peer": "client.handler",
    "ProxyPublished": "events",
    "ProxyWithdrawn": "events",
    "PublishError": "errors",
    "Refused": "errors",
    "ServerConfig": "config",
    "ServerEvent": "events",
    "ServerHandle": "views",
    "TunnelError": "errors",
    "Untrusted": "errors",
    "__version__": "_version",
    "change_client": "api",
    "change_server": "api",
    "connect": "library.link",
    "load_client": "config",
    "load_server": "config",
    "run_client": "api",
    "run_server": "api",
    "serve": "library.server",
}


def __getattr__(name: str) -> object:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'tunnel' has no attribute {name!r}")
    return getattr(import_module(f"tunnel.{_HOME[name]}"), name)
