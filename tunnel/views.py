"""What `run_server` and `run_client` hand out: how to look at them, and how to end them.

To operate or test a server or a client, these values are enough, and nothing behind them is needed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

import attrs

if TYPE_CHECKING:
    from trio_util import AsyncValue

    from tunnel.model import Address
    from tunnel.stats import Counters, CountersStatistics

#: A number of bytes, or None where the system does not tell it.
_N = TypeVar("_N", int, int | None)


@attrs.frozen
class ProxyStatistics:
    """One published proxy, now; `start_time` is in Unix seconds."""

    name: str
    addresses: tuple[Address, ...]
    local_port: int
    start_time: float
    counters: CountersStatistics


@attrs.frozen
class SessionStatistics:
    """One connected client, as the server sees it now.

    Args:
      name: the client's name.
      address: where it connects from.
      session_id: logs have the first eight characters.
      connections: visitors' connections that are open.
      rtt: the last round trip in seconds; None while there is none.
      proxies: those that are published.
    """

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
      reload: read the certificate again, now. Clients stay connected; a broken one is a log line.
      change: ask and allow what a new configuration says; see `Server.update`. Returns at once.
      reserved: the ports that the program itself listens on; no client may publish them.
    """

    addresses: tuple[Address, ...]
    pin: str
    statistics: Callable[[], tuple[SessionStatistics, ...]]
    drain: Callable[[], None]
    reload: Callable[[], None]
    change: Callable[..., None]
    reserved: frozenset[int] = frozenset()


@attrs.frozen
class Arrival:
    """A visitor that asks for a proxy, as a server sees it.

    Args:
      client: the name of the client that has the proxy.
      proxy: its name.
      address: where the visitor comes from.
      guest_of: the name of the client that it comes through; None for a public port.
    """

    client: str
    proxy: str
    address: Address
    guest_of: str | None = None


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
      change: do what a new configuration says; see `Client.update`. Returns at once.
    """

    state: AsyncValue[ClientState]
    statistics: Callable[[], tuple[ProxyStatistics, ...]]
    change: Callable[..., None]


# --- A whole program at a moment: what is served over HTTP -------------------------------------


class Waits(enum.StrEnum):
    """What a connection waits for: the first word of why it is slow."""

    #: The visitor does not read what came for it.
    VISITOR = "visitor"
    #: The other end has not handed on what it was sent already: look there.
    WINDOW = "window"
    #: The connection between server and client carries no more.
    LINK = "link"
    #: The local service does not read, or does not answer yet.
    LOCAL = "local"


@attrs.frozen
class LinkView:
    """The connection between a client and its server, now. Seconds and bytes.

    Args:
      rtt: the last measured round trip; None while there is none.
      streams: those that are not over; the control stream is one.
      connections: sockets that it carries.
      queued: payload that waits for the link.
      blocked: the kernel takes no more at this moment.
    """

    rtt: float | None
    streams: int
    connections: int
    queued: int
    blocked: bool


@attrs.frozen
class ConnectionView:
    """One visitor's connection, as this end sees it now.

    Args:
      connection: the id that the logs of both ends use.
      proxy: its proxy's name.
      visitor: where it comes from; None on a client, which does not keep it.
      waits: what it waits for; None for nothing.
      parked: bytes from the tunnel that the socket here has not taken.
      queued: bytes from the socket here that wait for the link.
      delivered, read: what the socket here took and gave, if the system tells.
    """

    connection: str
    proxy: str
    visitor: str | None
    waits: Waits | None
    parked: int
    queued: int
    delivered: int | None = None
    read: int | None = None


@attrs.frozen
class ProxyView:
    """One proxy, with its living counters.

    Args:
      name: its name.
      host, port: where it is to be published.
      addresses: where it is; empty while it is not.
      target: the local service: an address or "unix:/path"; empty on a server.
      local_port: the local service's port; 0 if it has none.
      start_time: since when it is counted, in Unix seconds.
      counters: they go on moving.
      up: it is published, or can be visited if that is all that is wanted.
    """

    name: str
    host: str
    port: int
    addresses: tuple[Address, ...]
    target: str
    local_port: int
    start_time: float
    counters: Counters
    up: bool


@attrs.frozen
class SessionView:
    """A client and its server, connected; on a client also while they are not.

    Args:
      client: the client's name.
      session: its id; None on a client.
      address: the other end's; None while there is none.
      since: in Unix seconds.
      link: None while not connected.
      proxies: what the client wants published.
    """

    client: str
    session: str | None
    address: str | None
    since: float | None
    link: LinkView | None
    proxies: tuple[ProxyView, ...]


@attrs.frozen
class ProgramView:
    """A server or a client at a moment.

    Args:
      state: what it is doing, in a word.
      unready: why it is not ready for visitors; None if it is.
      addresses: where a server listens for its clients.
      server: where a client dials.
      sessions: those that are connected; a client has one, connected or not.
      rejected: how many visitors and strangers a server turned away, by reason.
      strangers: connections to a server that have not proved anything yet.
      certificate_until: when the certificate that a server shows runs out, in Unix seconds.
    """

    state: str
    unready: str | None
    sessions: tuple[SessionView, ...]
    addresses: tuple[Address, ...] = ()
    server: str | None = None
    rejected: Mapping[str, int] = attrs.field(factory=dict)
    strangers: int | None = None
    certificate_until: float | None = None


@attrs.frozen
class ConnectionsView:
    """The connections of a program at a moment.

    Args:
      total: how many there are.
      waits: how many of them wait for what.
      shown: the client's name and the connection, those that wait and hold most first.
    """

    total: int
    waits: Mapping[Waits, int]
    shown: tuple[tuple[str, ConnectionView], ...]


@attrs.frozen
class Snapshots:
    """How to look at a running program, at any moment.

    Args:
      role: whose program it is.
      view: the program now.
      connections: its connections now; this one takes some time where there are many.
      counters: those of all its proxies; they are the view's.
    """

    role: Literal["server", "client"]
    view: Callable[[], ProgramView]
    connections: Callable[[], ConnectionsView]
    counters: Callable[[], Iterable[Counters]]

    def sent_and_received(self, delivered: _N, read: _N) -> tuple[_N, _N]:
        """Bytes towards the visitor and from it, of those that a socket here took and gave.

        On a server that socket is the visitor's, on a client the local service's.
        """
        return (delivered, read) if self.role == "server" else (read, delivered)
