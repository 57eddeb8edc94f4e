"""The two configurations: all their tables.

The classes are the schema: the loader, the templates and the reference are made from them.
"""

from __future__ import annotations

import enum
from typing import Final

from tunnel.config.client import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.keys import Key, Table, keys, required
from tunnel.config.server import IdentityConfig, RateLimit, ServerConfig

__all__ = [
    "TABLES",
    "ClientConfig",
    "IdentityConfig",
    "Key",
    "Kind",
    "ProxyConfig",
    "RateLimit",
    "ServerConfig",
    "Table",
    "VisitorConfig",
    "header",
    "keys",
    "required",
]


class Kind(enum.StrEnum):
    """Whose configuration a file is."""

    SERVER = "server"
    CLIENT = "client"


#: Each table's name in the file (without brackets), in the order of the reference.
TABLES: Final[dict[str, Table]] = {
    "server": ServerConfig,
    "server.rate_limit": RateLimit,
    "server.clients": IdentityConfig,
    "client": ClientConfig,
    "proxies": ProxyConfig,
    "visitors": VisitorConfig,
}
#: Those that a file may have many of.
_MANY: Final = ("server.clients", "proxies", "visitors")


def header(table: str) -> str:
    """How a table begins in the file: ``[server]``, ``[[proxies]]``."""
    return f"[[{table}]]" if table in _MANY else f"[{table}]"
