"""What a server asks of every client."""

from __future__ import annotations

import attrs

from tunnel import limits
from tunnel.server.ratelimit import Rate


@attrs.frozen
class Policy:
    """What a server asks of every client, whoever it is. Seconds throughout.

    Args:
      handshake_timeout: TLS, authentication and configuration together.
      keepalive_interval: silence before a ping.
      keepalive_timeout: silence after it before the client counts as gone.
      shutdown_grace: how long live connections may go on when the server stops.
      carrier: what carries visitors' sockets; None for the best there is.
      rate: how fast new connections are taken; None for any rate.
      max_unauthenticated: connections that have not proved anything yet.
      max_connections_per_proxy: live visitors of one proxy; None for any number.
      max_connections_per_visitor: live visitors from one source network, on all proxies; None
        for any number.
    """

    handshake_timeout: float = limits.HANDSHAKE_TIMEOUT
    keepalive_interval: float = limits.KEEPALIVE_INTERVAL
    keepalive_timeout: float = limits.KEEPALIVE_TIMEOUT
    shutdown_grace: float = limits.SHUTDOWN_GRACE
    carrier: str | None = None
    rate: Rate | None = None
    max_unauthenticated: int = limits.MAX_STRANGERS
    max_connections_per_proxy: int | None = limits.PROXY_CONNECTIONS
    max_connections_per_visitor: int | None = limits.VISITOR_CONNECTIONS
