"""A visitor's stream while its local connection is being made."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from tunnel.events import EventStream
from tunnel.model import ResetCode
from tunnel.net.account import Account
from tunnel.net.carrier import CarriedConnection
from tunnel.net.endpoint import Endpoint
from tunnel.net.incoming import IncomingEndpoint
from tunnel.net.link import Link
from tunnel.protocol.preamble import Preamble
from tunnel.stats import Counters


class Visited(Protocol):
    """What a visitor can be for."""

    counters: Counters

    @property
    def name(self) -> str:
        """What logs call it."""

    def visit(self, endpoint: DiallingEndpoint, preamble: Preamble) -> None:
        """Begin to connect; call `connected` or `refuse` in the end."""


class DiallingEndpoint(IncomingEndpoint):
    """Parks what comes until there is a local connection."""

    __slots__ = ("_account", "_events", "_proxies", "_scope")

    def __init__(
        self,
        link: Link,
        stream_id: int,
        proxies: Mapping[int, Visited],
        events: EventStream | None = None,
    ) -> None:
        super().__init__(link, stream_id)
        self._proxies = proxies
        self._events = events
        self._account: Account | None = None
        self._scope: trio.CancelScope | None = None

    def waiting(self) -> trio.CancelScope:
        """A scope for whoever waits for a connection: cancelled when the visitor goes."""
        self._scope = trio.CancelScope()
        return self._scope

    def preamble_received(self, preamble: Preamble) -> None:
        """See `IncomingEndpoint`."""
        # By the id alone, to what this client's own file says: never to an address from the wire.
        number = preamble.proxy_id
        proxy = None if number is None else self._proxies.get(number)
        if self._events is not None and self._events.wants_visitors:
            self._account = _account(self._events, proxy, preamble)
        if proxy is None:
            self.refuse(ResetCode.UNKNOWN_PROXY)
        else:
            proxy.visit(self, preamble)

    def reset(self, code: int) -> None:
        """See `Endpoint`."""
        if self._scope is not None:
            self._scope.cancel()
        if self._account is not None:
            self._account.close(ResetCode.of(code))

    def refuse(self, code: ResetCode) -> None:
        """There will be no connection: a reset before any byte. Flush the link after it."""
        super().refuse(code)
        if self._account is not None:
            self._account.close(code)

    def connected(self, sock: socket.socket, visit: CarriedConnection) -> None:
        """There is one: the carrier takes over, with what is parked. Flush the link after it."""
        self.link.carrier.adopt(
            sock, self.stream_id, self.audited(visit), parked=self.parked, finished=self.finished
        )

    def audited(self, visit: CarriedConnection) -> CarriedConnection:
        """The same visit, for whoever carries it: told to the audit if there is one."""
        if self._account is not None:
            visit.counters, visit.on_end = self._account, self._account.close
        return visit


Accept = Callable[[Link, int], Endpoint]


def accept_visitors(proxies: Mapping[int, Visited], events: EventStream | None = None) -> Accept:
    """What a link does with the streams that the server opens; `events` is told of visitors."""
    return lambda link, stream_id: DiallingEndpoint(link, stream_id, proxies, events)


def _account(events: EventStream, proxy: Visited | None, preamble: Preamble) -> Account:
    name, counters = ("", Counters()) if proxy is None else (proxy.name, proxy.counters)
    connection = preamble.connection_id.hex()
    return Account(events, name, "", connection, preamble.source, counters, published_here=False)
