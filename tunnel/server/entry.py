"""The kinds of entry: what the visitors of a proxy come to.

What is particular to a kind stands here, in one class for each: what the rules say of it, what is
claimed and opened, what stands in the way of that, and how visitors are accepted. Another kind (a
name on a shared port, a UDP port) is another class here, and a line in `make_entry`; what it takes
elsewhere is in docs/design.md.
"""

from __future__ import annotations

import errno
import functools
import socket
from abc import ABC, abstractmethod
from typing import Final

import attrs
import trio

from tunnel.model import Address, RejectionCode
from tunnel.net.listen import accept_visitors, close_all, open_listeners
from tunnel.net.transport import own_address
from tunnel.server.directory import Directory
from tunnel.server.member import Member
from tunnel.server.proxy import Proxy
from tunnel.server.registry import Registration, Registry
from tunnel.server.rules import Rules, is_everywhere, overlap

#: What a system says of a bind, and what that means for the client.
_CODES: Final = {
    errno.EADDRINUSE: RejectionCode.IN_USE,
    errno.EDQUOT: RejectionCode.LIMIT,
    errno.EACCES: RejectionCode.PERMISSION,
    errno.EPERM: RejectionCode.PERMISSION,
    errno.EADDRNOTAVAIL: RejectionCode.BAD_ADDRESS,
    errno.EAFNOSUPPORT: RejectionCode.BAD_ADDRESS,
    errno.EINVAL: RejectionCode.BAD_ADDRESS,
}


@attrs.frozen
class Rejection:
    """Why a proxy is not published: for programs, and in words."""

    code: RejectionCode
    text: str


@attrs.define(eq=False)
class Entry(ABC):
    """What the visitors of a proxy come to.

    Args:
      member: what stands behind it: one session's proxy.
      registry: who has which port.
      directory: what other clients can visit.
    """

    member: Member
    registry: Registry
    directory: Directory

    @property
    def proxy(self) -> Proxy:
        """The member's."""
        return self.member.proxy

    @property
    def registration(self) -> Registration:
        """Of the session whose it is."""
        return self.member.registration

    @abstractmethod
    def forbidden(self, rules: Rules) -> Rejection | None:
        """Why the rules do not let a client publish that; None if they do."""

    @abstractmethod
    def duplicates(self, other: Proxy) -> bool:
        """True if another proxy of the same session asks for the same."""

    @abstractmethod
    def open(self, rules: Rules) -> None:
        """Open and claim it; visitors queue from then on. `close` it in the end.

        Raises:
          OSError: it cannot be had, and nothing is open; EDQUOT if the sessions of the identity
            have as many proxies as they may.
        """

    @abstractmethod
    def close(self) -> None:
        """Free all that `open` has taken; nothing if it was not opened."""

    @abstractmethod
    async def accept(self) -> None:
        """Accept visitors while it is open, until cancelled."""

    @abstractmethod
    def claimant(self) -> Registration | None:
        """The session that has what is asked for, if one has."""

    @abstractmethod
    async def wait_freed(self) -> None:
        """Wait until another session has freed what is asked for; for ever if none has it."""

    @abstractmethod
    def who_uses_it(self) -> str:
        """What is in the way, for a client, which is told no more than it may know."""

    def in_the_way(self, error: OSError) -> tuple[Registration, ...]:
        """The sessions that have what is missing."""
        if error.errno == errno.EDQUOT:
            return self.registry.publishers(self.registration.owner.identity)
        other = self.claimant() if error.errno == errno.EADDRINUSE else None
        return () if other is None else (other,)

    def why_not(self, error: OSError) -> Rejection:
        """What `open` has raised, as a reason."""
        code = _CODES.get(error.errno or 0, RejectionCode.INTERNAL)
        match code:
            case RejectionCode.IN_USE:
                text = self.who_uses_it()
            case RejectionCode.LIMIT:
                most, name = self.registration.max_proxies, self.registration.name
                text = f"the server has max_proxies = {most} for {name}"
            case RejectionCode.PERMISSION:
                text = f"the server's system does not let it bind port {self.proxy.port}"
            case RejectionCode.BAD_ADDRESS:
                text = f"the server has no address {self.proxy.host}"
            case _:
                text = error.strerror or str(error)
        return Rejection(code, text)

    def _check_quota(self) -> None:
        if self.registry.full(self.registration):
            raise OSError(errno.EDQUOT, "this identity has as many proxies as it may have")


@attrs.define(eq=False)
class PortEntry(Entry):
    """A public port: bound sockets, on which visitors are accepted."""

    _listeners: list[socket.socket] = attrs.field(factory=list, init=False)

    def forbidden(self, rules: Rules) -> Rejection | None:
        """See `Entry`."""
        host, port = self.proxy.host, self.proxy.port
        if port and port in rules.reserved:
            return Rejection(RejectionCode.RESERVED, f"the server itself uses port {port}")
        if port and not rules.allows(port):
            allowed = ", ".join(map(str, rules.allow_ports))
            text = f"the server allows ports {allowed}, not {port}"
            return Rejection(RejectionCode.NOT_ALLOWED, text)
        if not rules.allows_addr(host):
            allowed = ", ".join(rules.allow_addrs)
            text = f"the server allows publish_addr {allowed}, not {host}"
            return Rejection(RejectionCode.NOT_ALLOWED, text)
        return None

    def duplicates(self, other: Proxy) -> bool:
        """See `Entry`."""
        port, same = self.proxy.port, not other.visitors_only and other.port == self.proxy.port
        return bool(port) and same and overlap(other.host, self.proxy.host)

    def open(self, rules: Rules) -> None:
        """See `Entry`. Where any port will do, the first that can be had."""
        self._check_quota()
        proxy, failure = self.proxy, OSError(errno.EADDRINUSE, "no free port")
        any_port = rules.candidates(proxy.request.preferred_port)
        for wanted in [proxy.port] if proxy.port else any_port:
            try:
                listeners = open_listeners(proxy.host, wanted)
            except OSError as error:
                failure = error
                continue
            if self._may_have(own_address(listeners[0]).port, rules):
                self._take(listeners)
                return
            close_all(listeners)
            failure = OSError(errno.EADDRINUSE, "another session is about to take that port again")
        raise failure

    def _may_have(self, port: int, rules: Rules) -> bool:
        """True if the port that was bound may be kept. (A system that picks one knows no rules.)"""
        if self.registry.reserved_for_another(self.registration, port):
            return False
        return bool(self.proxy.port) or rules.publishable(port)

    def _take(self, listeners: list[socket.socket]) -> None:
        proxy = self.proxy
        self._listeners, proxy.addresses = listeners, tuple(map(own_address, listeners))
        self.registry.claim(self.registration, proxy.host, proxy.addresses[0].port)
        # A client that publishes at one address wants the proxy reached there and nowhere else.
        proxy.visitable = is_everywhere(proxy.host) and self.directory.add(self.member)

    def close(self) -> None:
        """See `Entry`. The port is closed before another session hears that it is free."""
        if not self._listeners:
            return
        proxy, listeners = self.proxy, self._listeners
        port = proxy.addresses[0].port
        if proxy.visitable:
            self.directory.remove(self.member)
        self._listeners, proxy.addresses, proxy.visitable = [], (), False
        close_all(listeners)
        self.registry.free(self.registration, proxy.host, port)

    async def accept(self) -> None:
        """See `Entry`."""
        async with trio.open_nursery() as nursery:
            for listener in self._listeners[1:]:
                nursery.start_soon(self._accept_on, listener)
            await self._accept_on(self._listeners[0])

    async def _accept_on(self, listener: socket.socket) -> None:
        here, shortage = own_address(listener), self.proxy.admission.shortage
        # Bound to one address, that is where every visitor came to; else each socket is asked.
        destination = None if is_everywhere(here.host) else here
        admit = functools.partial(self._admit, destination)
        await accept_visitors(listener, self.member.link, admit, shortage, proxy=self.proxy.name)

    def _admit(self, destination: Address | None, visitor: socket.socket, source: Address) -> None:
        try:
            destination = destination or own_address(visitor)
        except OSError:
            visitor.close()  # it has gone already
            return
        admission = self.proxy.admission
        if (reason := admission.why_not(source)) is not None:
            admission.turn_away(visitor, source, reason)
            return
        stream = self.member.open_visitor_stream(source, destination)
        self.member.link.carrier.adopt(visitor, *stream)

    def claimant(self) -> Registration | None:
        """See `Entry`."""
        return self.registry.claimant(self.proxy.host, self.proxy.port)

    async def wait_freed(self) -> None:
        """See `Entry`."""
        await self.registry.freed.wait(self.proxy.port)

    def who_uses_it(self) -> str:
        """See `Entry`. Whose port it is, only clients of the same identity are told."""
        port = self.proxy.port
        if not port:
            return "no port that clients may publish is free"
        other = self.claimant()
        if other is None:
            return f"a program outside the tunnel uses port {port}"
        if other.owner.identity == self.registration.owner.identity:
            return f"client {other.name} at {other.address.host} has port {port}"
        return f"another client has port {port}"


class NoEntry(Entry):
    """Nothing from outside: only other clients visit the proxy, by its name."""

    def forbidden(self, rules: Rules) -> Rejection | None:  # noqa: ARG002
        """See `Entry`. It takes no port that a rule could be about."""
        return None

    def duplicates(self, other: Proxy) -> bool:  # noqa: ARG002
        """See `Entry`."""
        return False

    def open(self, rules: Rules) -> None:  # noqa: ARG002
        """See `Entry`."""
        self._check_quota()
        if not self.directory.add(self.member):
            raise OSError(errno.EADDRINUSE, "another proxy is visited by that name and port")
        self.registry.count(self.registration)
        self.proxy.visitable = True

    def close(self) -> None:
        """See `Entry`."""
        if self.proxy.visitable:
            self.proxy.visitable = False
            self.registry.uncount(self.registration)
            self.directory.remove(self.member)

    async def accept(self) -> None:
        """See `Entry`. The sessions of the visiting clients bring the visitors."""
        await trio.sleep_forever()

    def claimant(self) -> Registration | None:
        """See `Entry`."""
        return self.directory.claimant(self.proxy)

    async def wait_freed(self) -> None:
        """See `Entry`."""
        await self.directory.freed.wait((self.proxy.name, self.proxy.port))

    def who_uses_it(self) -> str:
        """See `Entry`."""
        return f"another proxy called {self.proxy.name} is visited at {self.proxy.port}"


def make_entry(member: Member, registry: Registry, directory: Directory) -> Entry:
    """The entry of the kind that the member's proxy asks for; arguments as for `Entry`."""
    kind = NoEntry if member.proxy.visitors_only else PortEntry
    return kind(member, registry, directory)
