"""A visitor's stream while its local connection is being made."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
import trio

from tunnel.errors import RemoteProtocolError
from tunnel.model import ResetCode
from tunnel.net.account import Account, Audit
from tunnel.net.carrier import Visit
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.protocol.preamble import Preamble, PreambleDecoder
from tunnel.stats import Counters, Meter


class Visited(Protocol):
    """What a visitor can be for."""

    name: str
    counters: Counters

    def visit(self, endpoint: DiallingEndpoint, preamble: Preamble) -> None:
        """Begin to connect; call `connected` or `refuse` in the end."""


class DiallingEndpoint(Endpoint):
    """Reads the preamble, then parks what comes (the window bounds it) until there is a socket."""

    __slots__ = (
        "_account",
        "_audit",
        "_decoder",
        "_finished",
        "_parked",
        "_proxies",
        "_stream_id",
        "link",
        "scope",
    )

    def __init__(
        self,
        link: Link,
        stream_id: int,
        proxies: Mapping[int, Visited],
        audit: Audit | None = None,
    ) -> None:
        self.link = link
        self._audit = audit
        self._account: Account | None = None
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
        number = preamble.proxy_id
        proxy = None if number is None else self._proxies.get(number)
        if self._audit is not None:
            self._account = _account(self._audit, proxy, preamble)
        if proxy is None:
            self.refuse(ResetCode.UNKNOWN_PROXY)
        else:
            proxy.visit(self, preamble)

    def finish(self) -> None:
        """See `Endpoint`."""
        self._finished = True
        if self._decoder is not None:
            self.refuse(ResetCode.BAD_PREAMBLE)

    def reset(self, code: int) -> None:
        """See `Endpoint`."""
        self.scope.cancel()
        if self._account is not None:
            self._account.close(ResetCode.of(code))

    def resume(self) -> None:
        """See `Endpoint`; nothing was sent yet."""

    def refuse(self, code: ResetCode) -> None:
        """There will be no connection: a reset before any byte. Flush the link after it."""
        self.link.reset(self._stream_id, code)
        if self._account is not None:
            self._account.close(code)

    def connected(self, sock: socket.socket, visit: Visit) -> None:
        """There is one: the carrier takes over, with what is parked. Flush the link after it."""
        if self._account is not None:
            account = self._account
            visit = attrs.evolve(visit, counters=account.meter, on_end=account.close)
        self.link.carrier.adopt(
            sock, self._stream_id, visit, parked=self._parked, finished=self._finished
        )


Accept = Callable[[Link, int], Endpoint]


def accept_visitors(proxies: Mapping[int, Visited], audit: Audit | None = None) -> Accept:
    """What a link does with the streams that the server opens; `audit` is told of each visitor."""
    return lambda link, stream_id: DiallingEndpoint(link, stream_id, proxies, audit)


def _account(audit: Audit, proxy: Visited | None, preamble: Preamble) -> Account:
    name, counters = ("", Counters()) if proxy is None else (proxy.name, proxy.counters)
    connection, meter = preamble.connection_id.hex(), Meter(counters)
    return Account(audit, name, "", connection, preamble.source, meter, published_here=False)
