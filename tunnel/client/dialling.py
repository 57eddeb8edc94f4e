"""A visitor's stream while its local connection is being made."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from tunnel.errors import RemoteProtocolError
from tunnel.model import ResetCode
from tunnel.net.carrier import Visit
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.protocol.preamble import Preamble, PreambleDecoder


class Visited(Protocol):
    """What a visitor can be for."""

    def visit(self, endpoint: DiallingEndpoint, preamble: Preamble) -> None:
        """Begin to connect; call `connected` or `refuse` in the end."""


class DiallingEndpoint(Endpoint):
    """Reads the preamble, then parks what comes (the window bounds it) until there is a socket."""

    __slots__ = ("_decoder", "_finished", "_parked", "_proxies", "_stream_id", "link", "scope")

    def __init__(self, link: Link, stream_id: int, proxies: Mapping[int, Visited]) -> None:
        self.link = link
        self._stream_id = stream_id
        self._proxies = proxies
        self._decoder: PreambleDecoder | None = PreambleDecoder()
        self._parked = bytearray()
        self._finished = False
        #: Cancelled when the visitor goes before there is a connection.
        self.scope = trio.CancelScope()

    def deliver(self, data: memoryview) -> int:
        """See `Endpoint`. The preamble is consumed at once, the rest when the socket takes it."""
        if self._decoder is None:
            self._parked += data
            return 0
        try:
            taken, preamble = self._decoder.feed(data)
        except RemoteProtocolError:
            self.refuse(ResetCode.BAD_PREAMBLE)
            return 0
        if preamble is not None:
            self._decoder = None
            self._parked += data[taken:]
            self._dispatch(preamble)
        return taken

    def _dispatch(self, preamble: Preamble) -> None:
        # By the id alone, to what this client's own file says: never to an address from the wire.
        proxy = self._proxies.get(preamble.proxy_id)
        if proxy is None:
            self.refuse(ResetCode.UNKNOWN_PROXY)
        else:
            proxy.visit(self, preamble)

    def finish(self) -> None:
        """See `Endpoint`."""
        self._finished = True
        if self._decoder is not None:
            self.refuse(ResetCode.BAD_PREAMBLE)

    def reset(self, code: int) -> None:  # noqa: ARG002
        """See `Endpoint`."""
        self.scope.cancel()

    def resume(self) -> None:
        """See `Endpoint`; nothing was sent yet."""

    def refuse(self, code: ResetCode) -> None:
        """There will be no connection: a reset before any byte. Flush the link after it."""
        self.link.reset(self._stream_id, code)

    def connected(self, sock: socket.socket, visit: Visit) -> None:
        """There is one: the carrier takes over, with what is parked. Flush the link after it."""
        self.link.carrier.adopt(
            sock, self._stream_id, visit, parked=self._parked, finished=self._finished
        )


Accept = Callable[[Link, int], Endpoint]


def accept_visitors(proxies: Mapping[int, Visited]) -> Accept:
    """What a link does with the streams that the server opens."""
    return lambda link, stream_id: DiallingEndpoint(link, stream_id, proxies)
