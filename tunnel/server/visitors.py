"""Who may visit a published port, and how many at once.

A visitor needs a place in every room that he enters: one of the proxy, one of the client that
published it, one of his own network. He is asked for before a stream is opened, and a place is
taken and given back by `Guest`, with the life of the connection.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TypeAlias

import attrs

from tunnel import limits
from tunnel.events import ServerEvent
from tunnel.model import Address, Network, ResetCode, within
from tunnel.net.account import Account, Audit, Record
from tunnel.net.carrier import Visit
from tunnel.net.listen import Shortage
from tunnel.net.transport import reset_on_close
from tunnel.server.admission import network
from tunnel.server.complaints import Complaints
from tunnel.stats import Counters, Reason, Tally
from tunnel.views import Arrival

logger = logging.getLogger(__name__)

#: Asked for a visitor that may come in otherwise; a text refuses it. It must not wait.
Judge: TypeAlias = Callable[[Arrival], str | None]

_OWN_REASONS = frozenset(reason.value for reason in Reason)


@attrs.define(eq=False)
class Room:
    """So many live connections, and no more.

    Args:
      limit: how many; None for any number.
      reason: what is said when it is full.
    """

    limit: int | None
    reason: Reason
    taken: int = 0

    @property
    def full(self) -> bool:
        """True if nobody more may enter."""
        return self.limit is not None and self.taken >= self.limit


class Crowd:
    """The live connections of each source network: an IPv4 address, or an IPv6 /64.

    It remembers only networks that are there.

    Args:
      limit: how many each may have; None for any number.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def full(self, place: str) -> bool:
        """True if nobody more may come from that network."""
        return self.limit is not None and self._taken.get(place, 0) >= self.limit

    def enter(self, place: str) -> None:
        """One connection more."""
        self._taken[place] = self._taken.get(place, 0) + 1

    def leave(self, place: str) -> None:
        """One less."""
        left = self._taken.pop(place) - 1
        if left:
            self._taken[place] = left


class Lobby:
    """What the visitors of all proxies of a server share.

    Args:
      per_proxy: live connections of one proxy; None for any number.
      per_visitor: live connections of one source network, on all proxies; None for any number.
      tally: counts whom was turned away.
      audit: told of every visitor; None for nobody.
      judge: see `Judge`.
    """

    def __init__(
        self,
        *,
        per_proxy: int | None = limits.PROXY_CONNECTIONS,
        per_visitor: int | None = limits.VISITOR_CONNECTIONS,
        tally: Tally | None = None,
        audit: Audit | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.per_proxy = per_proxy
        self.audit = audit
        self.judge = judge
        #: Told what happens; must not wait either.
        self.tell: Callable[[ServerEvent], None] = lambda _event: None
        self.crowd = Crowd(per_visitor)
        self.tally = tally or Tally()
        self.shortage = Shortage()
        self.complaints = Complaints(logger)

    def visitors(
        self,
        proxy: str,
        *,
        owner: str = "",
        allow_from: tuple[Network, ...] = (),
        client: Room | None = None,
    ) -> Visitors:
        """The visitors of one proxy.

        Args:
          proxy: its name, for log lines.
          owner: the name of the client that published it, for the same.
          allow_from: who may come; nothing is everybody.
          client: the room of the client that published it, shared by all proxies of that client:
            `Room(max_connections, Reason.CLIENT_FULL)`.
        """
        rooms = [Room(self.per_proxy, Reason.PROXY_FULL)]
        if client is not None:
            rooms.append(client)
        return Visitors(self, proxy, owner, allow_from, tuple(rooms))


@attrs.define(eq=False)
class Visitors:
    """The visitors of one proxy; made by `Lobby.visitors`."""

    lobby: Lobby
    proxy: str
    owner: str
    allow_from: tuple[Network, ...]
    rooms: tuple[Room, ...]

    def admit(self, host: str) -> Reason | None:
        """Why nobody may come in from that address now; None if he may.

        Nothing is counted: what carries the connection is given a `Guest`, which counts while it
        lives. Between this look and that there must be no `await`.
        """
        if self.allow_from and not within(host, self.allow_from):
            return Reason.NOT_ALLOWED
        for room in self.rooms:
            if room.full:
                return room.reason
        if self.lobby.crowd.full(network(host)):
            return Reason.VISITOR_FULL
        return None

    def ask(self, source: Address, guest_of: str | None = None) -> str | None:
        """`admit`, and then whoever judges for the program; the reason in words."""
        if (reason := self.admit(source.host)) is not None:
            return reason.value
        judge = self.lobby.judge
        return judge(Arrival(self.owner, self.proxy, source, guest_of)) if judge else None

    def count(self, reason: str, source: Address) -> None:
        """Count somebody who was refused, and have it in the audit."""
        self.lobby.tally.count(_own(reason))
        if self.lobby.audit is not None:
            self.lobby.audit(Record(self.proxy, self.owner, None, source, 0, 0, 0.0, reason))

    def guest(self, source: Address, connection: str, counters: Counters) -> Guest:
        """The visit of somebody who was admitted."""
        audit, failure = self.lobby.audit, ResetCode.VISITOR_RESET
        if audit is None:
            return Guest(self.proxy, connection, counters, failure, self, source.host)
        account = Account(
            audit, self.proxy, self.owner, connection, source, counters, published_here=True
        )
        end = account.close
        return Guest(self.proxy, connection, account, failure, self, source.host, on_end=end)

    def turn_away(self, sock: socket.socket, source: Address, reason: str) -> None:
        """Reset the visitor's connection, count it, and say so in a line that cannot flood."""
        with contextlib.suppress(OSError):  # not every system takes it once the peer has gone
            reset_on_close(sock)
        sock.close()
        self.count(reason, source)
        self.lobby.complaints.say(
            logging.WARNING,
            "Visitor turned away",
            kind=_own(reason),
            client=self.owner,
            proxy=self.proxy,
            address=str(source),
            reason=reason,
        )

    def entered(self, host: str) -> None:
        """A visitor's connection begins."""
        for room in self.rooms:
            room.taken += 1
        self.lobby.crowd.enter(network(host))

    def left(self, host: str) -> None:
        """It is over."""
        for room in self.rooms:
            room.taken -= 1
        self.lobby.crowd.leave(network(host))


def _own(reason: str) -> Reason:
    """The reason as one of ours, which are few; what a program says may be anything."""
    return Reason(reason) if reason in _OWN_REASONS else Reason.REFUSED


@attrs.define(eq=False)
class Guest(Visit):
    """A visit that has its places while the connection lives.

    Args:
      visitors: who was asked, by `admit`.
      host: where the visitor comes from.
    """

    visitors: Visitors
    host: str

    def begin(self) -> None:
        """See `Visit`."""
        super().begin()
        self.visitors.entered(self.host)

    def end(self, code: ResetCode | None) -> None:
        """See `Visit`."""
        super().end(code)
        self.visitors.left(self.host)
