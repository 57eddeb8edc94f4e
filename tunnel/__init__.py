"""Publish services from behind a NAT through a server with a public address.

The names below are the public API. Each is loaded when it is first used, so that
`import tunnel.yamux` loads no Trio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunnel._version import __version__
    from tunnel.api import run_client, run_server
    from tunnel.config import ClientConfig, ServerConfig, load_client, load_server
    from tunnel.errors import ConfigError, TunnelError
    from tunnel.handles import ClientHandle, ClientState, ServerHandle

__all__ = [
    "ClientConfig",
    "ClientHandle",
    "ClientState",
    "ConfigError",
    "ServerConfig",
    "ServerHandle",
    "TunnelError",
    "__version__",
    "load_client",
    "load_server",
    "run_client",
    "run_server",
]

_HOME = {
    "ClientConfig": "config",
    "ClientHandle": "handles",
    "ClientState": "handles",
    "ConfigError": "errors",
    "ServerConfig": "config",
    "ServerHandle": "handles",
    "TunnelError": "errors",
    "__version__": "_version",
    "load_client": "config",
    "load_server": "config",
    "run_client": "api",
    "run_server": "api",
}


def __getattr__(name: str) -> object:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'tunnel' has no attribute {name!r}")
    return getattr(import_module(f"tunnel.{_HOME[name]}"), name)
