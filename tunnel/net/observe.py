"""Looking at links and their connections without touching them: nothing here changes anything.

The data path keeps no numbers for it. What is read here is what the engine and the carrier know
anyway, at the moment in which it is asked for.
"""
# It looks into its neighbours so that they need no properties that only it would use.
# ruff: noqa: SLF001

from __future__ import annotations

import heapq
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunnel import limits
from tunnel.net.transport import tcp_info
from tunnel.views import ConnectionsView, ConnectionView, LinkView, Waits

if TYPE_CHECKING:
    from tunnel.net.hub import SocketEndpoint
    from tunnel.net.link import Link
    from tunnel.yamux.stream import Stream


def observe_link(link: Link) -> LinkView:
    """The link now."""
    return LinkView(
        link.rtt,
        link.stream_count,
        link.carrier.count,
        link._engine.pending,
        link._tls.blocked,
    )


def observe_connections(
    links: Iterable[tuple[str, Link]], *, is_server: bool, most: int = limits.SHOWN_CONNECTIONS
) -> ConnectionsView:
    """The connections of all links: how many wait for what, and those that hold most.

    Args:
      links: each with its client's name.
      is_server: the sockets here are visitors', not local services'.
      most: how many are shown one by one.

    Connections that two tasks carry (see `Relay`) are counted, but not looked at.
    """
    links = list(links)
    waits: Counter[Waits] = Counter()
    found = []
    for client, link in links:
        for endpoint in _endpoints(link):
            look = _Look(client, link, endpoint, is_server=is_server)
            if look.waits is not None:
                waits[look.waits] += 1
            found.append(look)
        if not is_server:
            # Streams without a socket, but for the control stream: it is being made.
            waits[Waits.LOCAL] += max(0, link.stream_count - link.carrier.count - 1)
    total = sum(link.carrier.count for _, link in links)
    busiest = heapq.nlargest(most, found, key=lambda look: look.rank)
    return ConnectionsView(
        total,
        {reason: waits[reason] for reason in Waits},
        tuple((look.client, look.view()) for look in busiest),
    )


def _endpoints(link: Link) -> Iterator[SocketEndpoint]:
    from tunnel.net.hub import SocketEndpoint

    for endpoint in link._endpoints.values():
        if type(endpoint) is SocketEndpoint:
            yield endpoint


class _Look:
    """One look at one connection: what is cheap for all, the rest for those that are shown."""

    __slots__ = ("client", "dialled", "endpoint", "parked", "queued", "rank", "waits")

    def __init__(
        self, client: str, link: Link, endpoint: SocketEndpoint, *, is_server: bool
    ) -> None:
        self.client = client
        self.endpoint = endpoint
        self.dialled = not is_server
        self.parked = len(endpoint._parked or b"")
        stream = link._engine._table.get(endpoint._stream_id)
        self.queued = 0 if stream is None else stream.pending_size
        self.waits = self._waits(stream, Waits.VISITOR if is_server else Waits.LOCAL)
        grown = 0 if stream is None else stream.target
        self.rank = (self.waits is not None, self.parked + self.queued, grown)

    def _waits(self, stream: Stream | None, here: Waits) -> Waits | None:
        if self.parked:
            return here
        if stream is None or not (stream.wants_room or stream.pending_size):
            return None
        # Nothing may be sent, or else it may and is not.
        return Waits.LINK if stream.send_window else Waits.WINDOW

    def view(self) -> ConnectionView:
        connection = self.endpoint._connection
        delivered, read = _carried(self.endpoint._sock, dialled=self.dialled)
        return ConnectionView(
            connection.connection_id,
            connection.proxy,
            getattr(connection, "host", None),
            self.waits,
            self.parked,
            self.queued,
            delivered,
            read,
        )


def _carried(sock: socket.socket, *, dialled: bool) -> tuple[int | None, int | None]:
    """The bytes that the other side has acknowledged, and those that came from it."""
    info = tcp_info(sock)
    if info is None:
        return None, None
    # The side that dialled has had its SYN acknowledged as well, which counts there.
    return info.acknowledged - (dialled and info.acknowledged > 0), info.received
