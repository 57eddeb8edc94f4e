"""Who is connected, and which session has claimed which port.

One session an owner. An owner that comes back while its former session still seems alive (the
network broke, and the server was not told) takes its place: the former one is ended, and only when
it is *gone*, with every port free, does the newcomer go on. What is not certainly dead is asked
first: silent means dead, alive means that the newcomer is another client, and is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from tunnel import limits
from tunnel.errors import Refused
from tunnel.eventlog import logged_events
from tunnel.events import EventStream, SessionTakenOver
from tunnel.model import Address, RefusalCode
from tunnel.server.rules import overlap


@attrs.frozen
class Owner:
    """Whose session it is: what the key proves, and which configuration uses it."""

    identity: str
    client_id: str


@attrs.define(eq=False)
class Registration:
    """A session in the registry.

    Args:
      owner: whose it is.
      instance_id: the client's process.
      attempt: which connection of that process it is, counted by the client.
      name: the client's name.
      address: where it connects from.
      evict: ends the session at once, with a reason in words.
      probe: asks the client for a sign of life; False if there is none.
      max_proxies: how many proxies all sessions of its identity together may have.
      assigned: the name is that of the key's entry; clients that share a key choose theirs.
    """

    owner: Owner
    instance_id: str
    attempt: int
    name: str
    address: Address
    evict: Callable[[str], None]
    probe: Callable[[], Awaitable[bool]]
    max_proxies: int | None = None
    assigned: bool = False
    #: Set when the session has ended and everything that it had is free.
    gone: trio.Event = attrs.field(factory=trio.Event, init=False)
    #: True once it was told to end, so that only one newcomer does it, and says so.
    evicted: bool = attrs.field(default=False, init=False)

    def succeeds(self, other: Registration) -> bool:
        """True if this is a later connection of the same process: the other is certainly dead."""
        return self.instance_id == other.instance_id and self.attempt > other.attempt


class FreedEvents:
    """Lets tasks wait until something that has a key is free again."""

    def __init__(self) -> None:
        self._events: dict[Hashable, trio.Event] = {}

    def __len__(self) -> int:
        return len(self._events)

    def tell(self, key: Hashable) -> None:
        """It is free: all tasks that wait for it try again."""
        freed = self._events.pop(key, None)
        if freed is not None:
            freed.set()

    async def wait(self, key: Hashable) -> None:
        """Wait until it is free, or was a moment ago."""
        freed = self._events.setdefault(key, trio.Event())
        try:
            await freed.wait()
        finally:
            # The last task that gives up waiting leaves nothing behind.
            if self._events.get(key) is freed and not freed.statistics().tasks_waiting:
                del self._events[key]


class Registry:
    """The sessions of one server process, and the ports that each has.

    Args:
      events: told when a session is taken over.
    """

    def __init__(self, events: EventStream | None = None) -> None:
        self._events = events or logged_events()
        self._sessions: dict[Owner, Registration] = {}
        #: Those that are about to be registered; one for each owner.
        self._newcomers: dict[Owner, Registration] = {}
        self._ports: dict[int, list[tuple[str, Registration]]] = {}
        #: Of ports; see `Entry.wait_freed`.
        self.freed = FreedEvents()
        #: Ports that a session gives up and takes again at once.
        self._reserved: dict[int, Registration] = {}
        #: How many proxies each session has, by identity; those with none are not there.
        self._proxies: dict[str, Counter[Registration]] = {}

    @asynccontextmanager
    async def registered(
        self, newcomer: Registration, deadline: float = math.inf
    ) -> AsyncIterator[None]:
        """Have a session registered within this block; ends the owner's former session first.

        Args:
          newcomer: the session.
          deadline: until when it may take to begin, by Trio's clock.

        Raises:
          Refused: the owner is connected already, by what may be another living client.
          trio.TooSlowError: the deadline has passed.
        """
        with trio.fail_at(deadline):
            await self._take(newcomer)
        try:
            yield
        finally:
            del self._sessions[newcomer.owner]
            newcomer.gone.set()

    async def _take(self, newcomer: Registration) -> None:
        rival = self._newcomers.get(newcomer.owner)
        if rival is not None and not newcomer.succeeds(rival):
            raise _already_connected(rival)
        self._newcomers[newcomer.owner] = newcomer
        try:
            # No await between the last look and the claim: two cannot both find it free.
            while former := self._sessions.get(newcomer.owner):
                if not newcomer.succeeds(former) and await former.probe():
                    raise _already_connected(former)
                await self.replace(former, newcomer)
                self._check_latest(newcomer)
            self._sessions[newcomer.owner] = newcomer
        finally:
            if self._newcomers.get(newcomer.owner) is newcomer:
                del self._newcomers[newcomer.owner]

    def _check_latest(self, newcomer: Registration) -> None:
        """See that no later connection of the same process has come while this one waited."""
        for latest in (self._newcomers.get(newcomer.owner), self._sessions.get(newcomer.owner)):
            if latest is not None and latest.succeeds(newcomer):
                raise _already_connected(latest)

    async def replace(self, former: Registration, newcomer: Registration) -> None:
        """End a session that is dead, or silent; everything that it had is free afterwards."""
        if not (former.gone.is_set() or former.evicted):
            former.evicted = True
            self._events.emit(SessionTakenOver(newcomer.name, newcomer.address))
            former.evict("taken over by a new connection of the same client")
        with trio.fail_after(limits.TAKEOVER_TIMEOUT):
            await former.gone.wait()

    # --- Ports -------------------------------------------------------------------------------

    def full(self, session: Registration) -> bool:
        """True if the sessions of this identity have as many proxies as they may."""
        if session.max_proxies is None:
            return False
        return sum(self._proxies.get(session.owner.identity, {}).values()) >= session.max_proxies

    def count(self, session: Registration) -> None:
        """The session has one proxy more; `uncount` it in the end."""
        self._proxies.setdefault(session.owner.identity, Counter())[session] += 1

    def uncount(self, session: Registration) -> None:
        """The session has one proxy less."""
        counts = self._proxies[session.owner.identity]
        counts[session] -= 1
        if not counts[session]:
            del counts[session]
        if not counts:
            del self._proxies[session.owner.identity]

    def claim(self, session: Registration, host: str, port: int) -> None:
        """The session has bound this port, for one proxy more; `free` it in the end."""
        self._ports.setdefault(port, []).append((host, session))
        self.count(session)

    def free(self, session: Registration, host: str, port: int) -> None:
        """The session has closed it: whoever waits for the port tries again now."""
        claims = self._ports[port]
        claims.remove((host, session))
        if not claims:
            del self._ports[port]
        self.uncount(session)
        if port not in self._reserved:
            self.freed.tell(port)

    @contextmanager
    def reserved(self, session: Registration, ports: Iterable[int]) -> Iterator[None]:
        """Within this block no other session gets these ports, though this one may free them.

        Only ports that the session has are reserved.
        """
        own = [port for port in ports if any(s is session for _, s in self._ports.get(port, ()))]
        self._reserved |= dict.fromkeys(own, session)
        try:
            yield
        finally:
            for port in own:
                del self._reserved[port]
                if port not in self._ports:
                    self.freed.tell(port)

    def reserved_for_another(self, session: Registration, port: int) -> bool:
        """True if another session is about to take the port again."""
        return self._reserved.get(port, session) is not session

    def publishers(self, identity: str) -> tuple[Registration, ...]:
        """The sessions of an identity that have proxies."""
        return tuple(self._proxies.get(identity, ()))

    def claimant(self, host: str, port: int) -> Registration | None:
        """Which session stands in the way of binding this port there."""
        for claimed, session in self._ports.get(port, ()):
            if overlap(host, claimed):
                return session
        return self._reserved.get(port)


def _already_connected(other: Registration) -> Refused:
    return Refused(
        RefusalCode.ALREADY_CONNECTED,
        f"a client with this configuration is connected from {other.address.host}; "
        "give each client a state directory or a client_id of its own",
    )
