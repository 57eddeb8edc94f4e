"""What a configuration says of a client and of each of its proxies, as values."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from tunnel import limits
from tunnel.model import Address, Network
from tunnel.net.tls import TlsStream
from tunnel.protocol.keys import ClientKeys

#: What the path of a Unix socket begins with where an address is expected.
UNIX: Final = "unix:"


@attrs.frozen
class ClientSettings:
    """What a configuration says of a client, besides its proxies and its visit ports.

    Args:
      dial: connects to the server; see `Dialler`.
      keys: derived from the authentication key.
      name: how the server's logs call this client.
      connect_timeout: seconds from dialling to configured.
      reconnect_delay, reconnect_max_delay: seconds; see `Backoff.delay`.
      keepalive_interval: seconds of silence before a ping.
      keepalive_timeout: seconds of silence after it before the server counts as gone.
      carrier: what carries local sockets; None for the best there is.
    """

    dial: Callable[[], Awaitable[TlsStream]]
    keys: ClientKeys
    name: str
    connect_timeout: float = attrs.field(default=limits.CONNECT_TIMEOUT, kw_only=True)
    reconnect_delay: float = attrs.field(default=limits.RECONNECT_DELAY, kw_only=True)
    reconnect_max_delay: float = attrs.field(default=limits.RECONNECT_DELAY, kw_only=True)
    keepalive_interval: float = attrs.field(default=limits.KEEPALIVE_INTERVAL, kw_only=True)
    keepalive_timeout: float = attrs.field(default=limits.KEEPALIVE_TIMEOUT, kw_only=True)
    carrier: str | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class ProxySpec:
    """What a configuration says of one proxy.

    Args:
      name: unique in this client.
      publish_addr, publish_port: what the server is asked for; port 0 is any.
      local_addr: an address, a name, or "unix:/path".
      local_port: 0 for a Unix socket.
      proxy_protocol: "v1" or "v2" to tell the local service who visits it.
      allow_from: the networks that may visit it; none is everybody.
      visitors_only: without a public port, for visitors through other clients.
      allow_visitors: the clients that those may come through; none is every one.
      visit_key: from the secret that those have to prove; None if they need not.
      retries: how often the local service is tried again for one visitor.
      retry_delay: seconds between two tries.
    """

    name: str
    publish_addr: str
    publish_port: int
    local_addr: str
    local_port: int
    proxy_protocol: str | None = None
    allow_from: tuple[str, ...] = ()
    visitors_only: bool = attrs.field(default=False, kw_only=True)
    allow_visitors: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    visit_key: bytes | None = attrs.field(default=None, repr=False, kw_only=True)
    retries: int = attrs.field(default=limits.LOCAL_CONNECT_RETRIES, kw_only=True)
    retry_delay: float = attrs.field(default=limits.LOCAL_RETRY_DELAY, kw_only=True)
    #: `allow_from`, parsed.
    networks: tuple[Network, ...] = attrs.field(init=False, repr=False)
    #: True if there is no name to look up, so that it can be connected to at once.
    is_literal: bool = attrs.field(init=False, repr=False)
    #: True if the service is on this machine, where no end of a connection vanishes without the
    #: kernel's saying so.
    is_near: bool = attrs.field(init=False, repr=False)

    @networks.default
    def _parse_networks(self) -> tuple[Network, ...]:
        return tuple(map(ipaddress.ip_network, self.allow_from))

    @is_literal.default
    def _has_no_name_to_look_up(self) -> bool:
        try:
            ipaddress.ip_address(self.local_addr)
        except ValueError:
            return False
        return True

    @is_near.default
    def _is_on_this_machine(self) -> bool:
        if self.is_literal:
            return ipaddress.ip_address(self.local_addr).is_loopback
        return self.local_addr.startswith(UNIX)

    @property
    def place(self) -> tuple[str, str, int, bool]:
        """What makes it the same proxy: its name, and what the server is asked to publish."""
        return self.name, self.publish_addr, self.publish_port, self.visitors_only

    @property
    def target(self) -> str:
        """The local service as a log line shows it."""
        if self.local_addr.startswith(UNIX):
            return self.local_addr
        return str(Address(self.local_addr, self.local_port))
