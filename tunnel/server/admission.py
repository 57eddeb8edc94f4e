"""Which visitors may come in, and how many at once.

A visitor needs a place in each quota that counts it: that of the proxy, that of the identity which
published it, that of the visitor's network. It is asked for before a stream is opened, and its
places are taken and given back by `AdmittedConnection`, with the life of the connection.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TypeAlias

import attrs

from tunnel.eventlog import logged_events
from tunnel.events import EventStream, VisitorClosed, VisitorTurnedAway
from tunnel.model import Address, Network, ResetCode, within
from tunnel.net.account import Account
from tunnel.net.carrier import CarriedConnection
from tunnel.net.listen import Shortage
from tunnel.net.transport import reset_on_close
from tunnel.server.limited_events import LimitedEvents
from tunnel.server.policy import Policy
from tunnel.server.ratelimit import network
from tunnel.stats import Counters, Reason, Tally
from tunnel.views import Arrival

logger = logging.getLogger(__name__)

#: A program's own check, asked for a visitor that may come in otherwise: why it is turned away, or
#: None. It must not wait.
Judge: TypeAlias = Callable[[Arrival], str | None]

_OWN_REASONS = frozenset(reason.value for reason in Reason)


@attrs.define(eq=False)
class Quota:
    """So many live connections, and no more.

    Args:
      limit: how many; None for any number.
      reason: what is said when it is used up.
    """

    limit: int | None
    reason: Reason
    taken: int = 0

    @property
    def full(self) -> bool:
        """True if there is no place left."""
        return _used_up(self.taken, self.limit)


class NetworkCounts:
    """The live connections of each source network: an IPv4 address, or an IPv6 /64.

    It remembers only networks that have any.
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def of(self, source: str) -> int:
        """How many that network has."""
        return self._taken.get(source, 0)

    def take(self, source: str) -> None:
        """Count a connection from that network."""
        self._taken[source] = self._taken.get(source, 0) + 1

    def give_back(self, source: str) -> None:
        """Count it no more."""
        left = self._taken.pop(source) - 1
        if left:
            self._taken[source] = left


class Admission:
    """What the visitors of all proxies of a server share.

    Args:
      policy: how many there may be of each proxy and from each network; replaced as a whole.
      tally: counts what was turned away.
      events: told of visitors that were turned away, and of all visitors if that is wanted.
      judge: see `Judge`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        tally: Tally | None = None,
        events: EventStream | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.policy = policy
        self.networks = NetworkCounts()
        self.tally = tally or Tally()
        self.events = events or logged_events()
        self.limited = LimitedEvents(self.events)
        self.judge = judge
        self.shortage = Shortage()

    def update(self, policy: Policy) -> None:
        """Go by another policy from now on, for the proxies that there are as well."""
        self.policy = policy


@attrs.define(eq=False)
class ProxyAdmission:
    """The visitors of one proxy.

    Args:
      admission: what it shares with the others.
      proxy: the proxy's name, for log lines.
      client: the name of the client that published it, for the same.
      allow_from: the networks that may come in; none is every one.
      quota: that of the identity which published it, shared by all its proxies.
    """

    admission: Admission
    proxy: str
    client: str = ""
    allow_from: tuple[Network, ...] = ()
    quota: Quota = attrs.field(factory=lambda: Quota(None, Reason.CLIENT_FULL))
    _taken: int = attrs.field(default=0, init=False)

    def own_reason(self, host: str) -> Reason | None:
        """Why the server itself turns away visitors from that address now; None if it does not.

        Nothing is counted: what carries the connection is an `AdmittedConnection`, which counts
        while it lives. Between this look and its beginning there must be no `await`.
        """
        policy = self.admission.policy
        if self.allow_from and not within(host, self.allow_from):
            return Reason.NOT_ALLOWED
        if _used_up(self._taken, policy.max_connections_per_proxy):
            return Reason.PROXY_FULL
        if self.quota.full:
            return self.quota.reason
        from_there = self.admission.networks.of(network(host))
        if _used_up(from_there, policy.max_connections_per_visitor):
            return Reason.VISITOR_FULL
        return None

    def why_not(self, source: Address, through: str | None = None) -> str | None:
        """Why a visitor may not come in now, in words; None if it may. The judge is asked last.

        Args:
          source: the visitor's address.
          through: the name of the client that it comes through; None for a public port.
        """
        if (reason := self.own_reason(source.host)) is not None:
            return reason.value
        judge = self.admission.judge
        return judge(Arrival(self.client, self.proxy, source, through)) if judge else None

    def count_turned_away(self, reason: str, source: Address) -> None:
        """Count a visitor that is turned away, and tell of it if visitors are told of."""
        self.admission.tally.count(_own(reason))
        if self.admission.events.wants_visitors:
            self.admission.events.emit_visitor(
                VisitorClosed(self.proxy, self.client, None, source, 0, 0, 0.0, reason)
            )

    def turn_away(self, sock: socket.socket, source: Address, reason: str) -> None:
        """Reset a visitor's connection, count it, and tell of it in a line that cannot flood."""
        with contextlib.suppress(OSError):  # not every system takes it once the peer has gone
            reset_on_close(sock)
        sock.close()
        self.count_turned_away(reason, source)
        self.admission.limited.emit(
            f"visitor/{_own(reason)}",
            lambda left_out: VisitorTurnedAway(self.client, self.proxy, source, reason, left_out),
        )

    def connection(
        self, source: Address, connection: str, counters: Counters
    ) -> AdmittedConnection:
        """The connection of a visitor that was let in.

        Args:
          source: the visitor's address.
          connection: the id that both sides log.
          counters: the proxy's.
        """
        failure = ResetCode.VISITOR_RESET
        if not self.admission.events.wants_visitors:
            return AdmittedConnection(self.proxy, connection, counters, failure, self, source.host)
        account = Account(
            self.admission.events,
            self.proxy,
            self.client,
            connection,
            source,
            counters,
            published_here=True,
        )
        return AdmittedConnection(
            self.proxy, connection, account, failure, self, source.host, on_end=account.close
        )

    @property
    def shortage(self) -> Shortage:
        """Of descriptors, shared by all listeners for visitors."""
        return self.admission.shortage

    def take(self, host: str) -> None:
        """A visitor's connection begins."""
        self._taken += 1
        self.quota.taken += 1
        self.admission.networks.take(network(host))

    def give_back(self, host: str) -> None:
        """It is over."""
        self._taken -= 1
        self.quota.taken -= 1
        self.admission.networks.give_back(network(host))


def _used_up(taken: int, limit: int | None) -> bool:
    return limit is not None and taken >= limit


def _own(reason: str) -> Reason:
    """The reason as one of ours, which are few; what a program says may be anything."""
    return Reason(reason) if reason in _OWN_REASONS else Reason.REFUSED


@attrs.define(eq=False)
class AdmittedConnection(CarriedConnection):
    """A connection that has its places while it lives.

    Args:
      admission: what let it in.
      host: where the visitor comes from.
    """

    admission: ProxyAdmission
    host: str

    def begin(self) -> None:
        """See `CarriedConnection`."""
        super().begin()
        self.admission.take(self.host)

    def end(self, code: ResetCode | None) -> None:
        """See `CarriedConnection`."""
        super().end(code)
        self.admission.give_back(self.host)
