"""What `run_server` and `run_client` hand out: how to look at them, and how to end them.

Whoever operates or tests a server or a client works on these values and nothing behind them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from trio_util import AsyncValue

    from tunnel.model import Address
    from tunnel.stats import CountersStatistics


@attrs.frozen
class ProxyStatistics:
    """One published proxy, now."""

    name: str
    addresses: tuple[Address, ...]
    local_port: int
    start_time: float
    counters: CountersStatistics


@attrs.frozen
class SessionStatistics:
    """One connected client, as the server sees it now."""

    name: str
    address: Address
    session_id: str
    connections: int
    rtt: float | None
    proxies: tuple[ProxyStatistics, ...]


@attrs.frozen
class ServerHandle:
    """A running server.

    Args:
      addresses: where it listens for clients.
      pin: what a client may trust it by, as it was at the start.
      statistics: the sessions now.
      drain: stop gracefully: no new clients or visitors, ports freed at once, live connections get
        the configured grace. `run_server` returns when all is over.
      reload: read the certificate again, now. Nobody is disconnected; a broken one is a log line.
    """

    addresses: tuple[Address, ...]
    pin: str
    statistics: Callable[[], tuple[SessionStatistics, ...]]
    drain: Callable[[], None]
    reload: Callable[[], None]


class ClientState(enum.Enum):
    """Where the reconnect loop is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"


@attrs.frozen
class ClientHandle:
    """A running client.

    Args:
      state: where the reconnect loop is; wait for a value with `state.wait_value(...)`.
      statistics: the proxies now, with their public addresses while they are published.
    """

    state: AsyncValue[ClientState]
    statistics: Callable[[], tuple[ProxyStatistics, ...]]
