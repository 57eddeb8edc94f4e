"""Who is connected, and which session holds which port.

One session an owner. An owner that comes back while its former session still seems alive (the
network broke, and nobody told the server) takes its place: the former one is ended, and only when
it is *gone*, with every port free, does the newcomer go on. What is not certainly dead is asked
first: silent means dead, alive means that the newcomer is another client, and is refused.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from tunnel import limits
from tunnel.errors import Refused
from tunnel.model import ANY, Address, RefusalCode

logger = logging.getLogger(__name__)


@attrs.frozen
class Owner:
    """Whose session it is: what the key proves, and which configuration uses it."""

    identity: str
    client_id: str


@attrs.define(eq=False)
class Seat:
    """A session's place in the registry.

    Args:
      owner: whose it is.
      instance_id: the client's process.
      attempt: which connection of that process it is, counted by the client.
      name: the client's name.
      address: where it connects from.
      max_proxies: how many proxies all sessions of its identity together may hold.
    """

    owner: Owner
    instance_id: str
    attempt: int
    name: str
    address: Address
    max_proxies: int | None = None
    #: The name is that of the key's entry; clients that share a key choose theirs.
    assigned: bool = False
    #: Ends the session at once, with a reason for its log line.
    evict: Callable[[str], None] = attrs.field(init=False)
    #: Asks the client for a sign of life; False if there is none.
    probe: Callable[[], Awaitable[bool]] = attrs.field(init=False)
    #: Set when the session has ended and everything it held is free.
    gone: trio.Event = attrs.field(factory=trio.Event, init=False)
    #: True once it was told to end, so that only one newcomer does it, and says so.
    evicted: bool = attrs.field(default=False, init=False)

    def succeeds(self, other: Seat) -> bool:
        """True if this is a later connection of the same process: the other is certainly dead."""
        return self.instance_id == other.instance_id and self.attempt > other.attempt


class Registry:
    """The sessions of one server process."""

    def __init__(self) -> None:
        self._seats: dict[Owner, Seat] = {}
        #: Who is about to take a seat; one for each owner.
        self._coming: dict[Owner, Seat] = {}
        self._ports: dict[int, list[tuple[str, Seat]]] = {}
        self._freed: dict[int, trio.Event] = {}
        #: Ports that a session gives up and takes again at once.
        self._kept: dict[int, Seat] = {}
        #: How many ports each seat holds, by identity; those with none are not there.
        self._held: dict[str, Counter[Seat]] = {}

    @asynccontextmanager
    async def seat(self, newcomer: Seat) -> AsyncIterator[None]:
        """Hold the owner's place; ends the owner's former session first.

        Raises:
          Refused: the owner is connected already, by what may be another living client.
        """
        await self._take(newcomer)
        try:
            yield
        finally:
            del self._seats[newcomer.owner]
            newcomer.gone.set()

    async def _take(self, newcomer: Seat) -> None:
        rival = self._coming.get(newcomer.owner)
        if rival is not None and not newcomer.succeeds(rival):
            raise _already_connected(rival)
        self._coming[newcomer.owner] = newcomer
        try:
            # No await between the last look and the claim: two cannot both find the seat free.
            while former := self._seats.get(newcomer.owner):
                if not newcomer.succeeds(former) and await former.probe():
                    raise _already_connected(former)
                await self.replace(former, newcomer)
                self._check_latest(newcomer)
            self._seats[newcomer.owner] = newcomer
        finally:
            if self._coming.get(newcomer.owner) is newcomer:
                del self._coming[newcomer.owner]

    def _check_latest(self, newcomer: Seat) -> None:
        """See that no later connection of the same process has come while this one waited."""
        for latest in (self._coming.get(newcomer.owner), self._seats.get(newcomer.owner)):
            if latest is not None and latest.succeeds(newcomer):
                raise _already_connected(latest)

    async def replace(self, former: Seat, newcomer: Seat) -> None:
        """End a session that is dead, or silent; everything that it held is free afterwards."""
        if not (former.gone.is_set() or former.evicted):
            former.evicted = True
            logger.warning(
                "Session taken over",
                extra={"client": newcomer.name, "address": str(newcomer.address)},
            )
            former.evict("taken over by a new connection of the same client")
        with trio.fail_after(limits.TAKEOVER_TIMEOUT):
            await former.gone.wait()

    # --- Ports -------------------------------------------------------------------------------

    def full(self, seat: Seat) -> bool:
        """True if the sessions of this identity hold as many ports as they may."""
        if seat.max_proxies is None:
            return False
        return sum(self._held.get(seat.owner.identity, {}).values()) >= seat.max_proxies

    def hold(self, seat: Seat, host: str, port: int) -> None:
        """The session has bound this port."""
        self._ports.setdefault(port, []).append((host, seat))
        self.enter(seat)

    def enter(self, seat: Seat) -> None:
        """The session has one proxy more."""
        self._held.setdefault(seat.owner.identity, Counter())[seat] += 1

    def release(self, seat: Seat, host: str, port: int) -> None:
        """The session has closed it; whoever waits for it tries again now."""
        holders = self._ports[port]
        holders.remove((host, seat))
        if not holders:
            del self._ports[port]
        self.leave(seat)
        if port not in self._kept:
            self._tell_freed(port)

    def _tell_freed(self, port: int) -> None:
        freed = self._freed.pop(port, None)
        if freed is not None:
            freed.set()

    @contextmanager
    def keep(self, seat: Seat, ports: Iterable[int]) -> Iterator[None]:
        """While it lasts no other session gets these ports, though this one may release them.

        Only ports that the session holds are kept.
        """
        kept = [port for port in ports if any(s is seat for _, s in self._ports.get(port, ()))]
        self._kept |= dict.fromkeys(kept, seat)
        try:
            yield
        finally:
            for port in kept:
                del self._kept[port]
                if port not in self._ports:
                    self._tell_freed(port)

    def kept_from(self, seat: Seat, port: int) -> bool:
        """True if another session keeps the port."""
        return self._kept.get(port, seat) is not seat

    def leave(self, seat: Seat) -> None:
        """The session has one less."""
        held = self._held[seat.owner.identity]
        held[seat] -= 1
        if not held[seat]:
            del held[seat]
        if not held:
            del self._held[seat.owner.identity]

    def holders(self, identity: str) -> tuple[Seat, ...]:
        """The sessions of an identity that hold ports."""
        return tuple(self._held.get(identity, ()))

    def holder(self, host: str, port: int) -> Seat | None:
        """Which session stands in the way of binding this port there."""
        for held_host, seat in self._ports.get(port, ()):
            if overlap(host, held_host):
                return seat
        return self._kept.get(port)

    async def wait_freed(self, port: int) -> None:
        """Wait until some session closes this port."""
        freed = self._freed.setdefault(port, trio.Event())
        try:
            await freed.wait()
        finally:
            # The last one who gives up waiting leaves nothing behind.
            if self._freed.get(port) is freed and not freed.statistics().tasks_waiting:
                del self._freed[port]


def _already_connected(holder: Seat) -> Refused:
    return Refused(
        RefusalCode.ALREADY_CONNECTED,
        f"a client with this configuration is connected from {holder.address.host}; "
        "give each client a state directory or a client_id of its own",
    )


def overlap(one: str, other: str) -> bool:
    """True if both addresses cannot have the same port at once.

    They are the same, however written, or one of them means every address of its family. (IPv6
    sockets here take no IPv4.)
    """
    return covers(one, other) or covers(other, one)


def is_everywhere(host: str) -> bool:
    """True if an address means every address of the machine, or of one family."""
    return host == ANY or ipaddress.ip_address(host).is_unspecified


def covers(one: str, other: str) -> bool:
    """True if the first address is the second, or means all those of which the second is one."""
    if ANY in (one, other):
        return one == ANY
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first.version == second.version and (first == second or first.is_unspecified)
