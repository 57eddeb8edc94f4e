"""From what a client asks to what is bound: every rejection with its reason.

A port that is merely busy is tried again while the session lives: at once when the session that
holds it ends, and with growing pauses when a program outside holds it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import random
from collections.abc import Iterable, Iterator

import attrs
import trio

from tunnel import limits
from tunnel.model import ANY, PortRange, RejectionCode
from tunnel.net.link import Link
from tunnel.protocol.messages import Bound, Rejected
from tunnel.server.listener import Offer, Proxy, attend, listen
from tunnel.server.registry import Registry, Seat, covers, is_everywhere, overlap
from tunnel.server.targets import Target, Targets

logger = logging.getLogger(__name__)

#: How many ports are tried for a client that leaves the choice to the server.
_PORT_TRIES = 150


@attrs.frozen
class Rules:
    """What a server lets its clients publish.

    Args:
      allow_ports: ranges of ports.
      reserved: ports that the server itself listens on, whatever the address.
      allow_addrs: addresses to publish on; "*" is any, "0.0.0.0" any of IPv4, "::" any of IPv6.
    """

    allow_ports: tuple[PortRange, ...]
    reserved: frozenset[int]
    allow_addrs: tuple[str, ...] = (ANY,)

    def allows(self, port: int) -> bool:
        """True if clients may publish that port."""
        return any(port in ports for ports in self.allow_ports)

    def allows_addr(self, host: str) -> bool:
        """True if clients may publish on that address."""
        return any(covers(allowed, host) for allowed in self.allow_addrs)

    def candidates(self, preferred: int) -> Iterator[int]:
        """Ports to try for a client that takes any: its former one, any that is free, a few more.

        0 means whatever the system picks, which is right only if every port is allowed that the
        system could pick.
        """
        if preferred and self.allows(preferred) and preferred not in self.reserved:
            yield preferred
        if self.allows(limits.FIRST_EPHEMERAL) and self.allows(limits.LAST_EPHEMERAL):
            yield 0
            return
        total = sum(ports.last - ports.first + 1 for ports in self.allow_ports)
        # Not secrets: nobody gains from guessing a public port.
        for index in random.sample(range(total), min(total, _PORT_TRIES)):
            port = self._nth(index)
            if port not in self.reserved:
                yield port

    def _nth(self, index: int) -> int:
        for ports in self.allow_ports:
            if index <= ports.last - ports.first:
                return ports.first + index
            index -= ports.last - ports.first + 1
        raise IndexError(index)


@attrs.define(eq=False)
class Publisher:
    """Binds the proxies of one session into one nursery."""

    nursery: trio.Nursery
    rules: Rules
    seat: Seat
    registry: Registry
    targets: Targets
    link: Link
    #: Sessions that have shown a sign of life: asked once, not for every port.
    _alive: set[Seat] = attrs.field(factory=set, init=False)

    async def publish_all(
        self, proxies: Iterable[Proxy], *, beside: Iterable[Proxy] = ()
    ) -> list[Bound | Rejected]:
        """Bind what can be bound now; each answer says what became of one proxy.

        Args:
          proxies: those to publish.
          beside: the others that the client wants published.
        """
        answers: dict[Proxy, Bound | Rejected] = {}
        taken = _places(beside)
        proxies = tuple(proxies)
        # Those that take any port come last, or they might take one that another asks for.
        for proxy in sorted(proxies, key=lambda proxy: not proxy.port):
            answer = self._rejected_by_rule(proxy, taken) or await self._publish(proxy)
            proxy.rejection = answer if isinstance(answer, Rejected) else None
            if isinstance(answer, Rejected):
                self.log_rejected(proxy, answer)
            taken |= _places([proxy])
            answers[proxy] = answer
        return [answers[proxy] for proxy in proxies]

    def forbidden(self, proxy: Proxy) -> Rejected | None:
        """Why the rules do not let a client publish that; None if they do."""

        def reject(code: RejectionCode, text: str) -> Rejected:
            return Rejected(proxy.proxy_id, code, text)

        port = proxy.port
        if proxy.visitors_only:
            return None  # it takes no port
        if port and port in self.rules.reserved:
            return reject(RejectionCode.RESERVED, f"the server itself uses port {port}")
        if port and not self.rules.allows(port):
            allowed = ", ".join(map(str, self.rules.allow_ports))
            return reject(
                RejectionCode.NOT_ALLOWED, f"the server allows ports {allowed}, not {port}"
            )
        if not self.rules.allows_addr(proxy.host):
            allowed = ", ".join(self.rules.allow_addrs)
            return reject(
                RejectionCode.NOT_ALLOWED,
                f"the server allows publish_addr {allowed}, not {proxy.host}",
            )
        return None

    def _rejected_by_rule(self, proxy: Proxy, taken: set[tuple[str, int]]) -> Rejected | None:
        if (rejected := self.forbidden(proxy)) is not None:
            return rejected
        port = proxy.port
        if proxy.visitors_only:
            return None
        if port and any(port == other and overlap(host, proxy.host) for host, other in taken):
            text = f"another of your proxies has port {port}"
            return Rejected(proxy.proxy_id, RejectionCode.DUPLICATE, text)
        return None

    async def _publish(self, proxy: Proxy) -> Bound | Rejected:
        while True:
            try:
                return await self._bind_any(proxy)
            except OSError as error:
                if not await self._end_ghost(self._in_the_way(proxy, error)):
                    return Rejected(proxy.proxy_id, *self._reason(proxy, error))

    def _in_the_way(self, proxy: Proxy, error: OSError) -> tuple[Seat, ...]:
        """The sessions that hold what is missing."""
        if error.errno == errno.EDQUOT:
            return self.registry.holders(self.seat.owner.identity)
        holder = self._holder(proxy)
        return () if holder is None or error.errno != errno.EADDRINUSE else (holder,)

    def _holder(self, proxy: Proxy) -> Seat | None:
        if proxy.visitors_only:
            return self.targets.holder(proxy)
        return self.registry.holder(proxy.host, proxy.port)

    async def _end_ghost(self, holders: Iterable[Seat]) -> bool:
        """True if one of them was a silent session with the same key, and holds nothing any more.

        So a client that has lost its state (a container that was made anew) meets no ghost either.
        """
        for holder in holders:
            if holder is self.seat or holder in self._alive:
                continue
            if holder.owner.identity != self.seat.owner.identity:
                continue
            if not await holder.probe():
                await self.registry.replace(holder, self.seat)
                return True
            self._alive.add(holder)
        return False

    async def _bind_any(self, proxy: Proxy) -> Bound:
        """Bind the port, or the first that can be had if any will do."""
        fixed = proxy.port or proxy.visitors_only
        candidates = [proxy.port] if fixed else self.rules.candidates(proxy.preferred_port)
        error = OSError(errno.EADDRINUSE, "no free port")
        for port in candidates:
            try:
                await self._bind(proxy, port)
            except OSError as failure:
                error = failure
            else:
                return Bound(proxy.proxy_id, proxy.addresses)
        raise error

    async def _bind(self, proxy: Proxy, port: int) -> None:
        target = Target(proxy, self.seat, self.link)
        offer: Offer = functools.partial(self.targets.offered, target)
        if not (proxy.visitors_only or is_everywhere(proxy.host)):
            # Its owner wants it reached at that address and nowhere else.
            offer = _not_offered
        if proxy.visitors_only:
            await self.nursery.start(attend, proxy, self.seat, self.registry, offer)
        else:
            await self.nursery.start(
                listen, proxy, port, self.seat, self.registry, self.link, offer
            )
        logger.info(
            "Proxy listening",
            extra={
                "client": self.seat.name,
                "proxy": proxy.name,
                "address": ", ".join(map(str, proxy.addresses)) or "visitors only",
            },
        )

    def log_rejected(self, proxy: Proxy, answer: Rejected) -> None:
        """Say that a proxy is not published, and why."""
        logger.warning(
            "Proxy rejected",
            extra={
                "client": self.seat.name,
                "proxy": proxy.name,
                "port": proxy.port,
                "code": answer.code.value,
                "reason": answer.text,
            },
        )

    def _reason(self, proxy: Proxy, error: OSError) -> tuple[RejectionCode, str]:
        match error.errno:
            case errno.EADDRINUSE:
                return RejectionCode.IN_USE, self._who_uses(proxy)
            case errno.EDQUOT:
                return (
                    RejectionCode.LIMIT,
                    f"the server has max_proxies = {self.seat.max_proxies} for {self.seat.name}",
                )
            case errno.EACCES | errno.EPERM:
                return (
                    RejectionCode.PERMISSION,
                    f"the server's system does not let it bind port {proxy.port}",
                )
            case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT | errno.EINVAL:
                return RejectionCode.BAD_ADDRESS, f"the server has no address {proxy.host}"
            case _:
                return RejectionCode.INTERNAL, error.strerror or str(error)

    def _who_uses(self, proxy: Proxy) -> str:
        """Whose port it is, told only to clients of the same identity."""
        if proxy.visitors_only:
            return f"another proxy called {proxy.name} is visited at {proxy.port}"
        if not proxy.port:
            return "no port that clients may publish is free"
        holder = self.registry.holder(proxy.host, proxy.port)
        if holder is None:
            return f"a program outside the tunnel uses port {proxy.port}"
        if holder.owner.identity == self.seat.owner.identity:
            return f"client {holder.name} at {holder.address.host} has port {proxy.port}"
        return f"another client has port {proxy.port}"

    async def keep_trying(self, proxy: Proxy) -> Bound:
        """Bind a port that is busy as soon as it is free; return when it is bound.

        Raises:
          OSError: never for a busy port; whatever else stands in the way is tried again too.
        """
        pause = limits.BIND_RETRY_FIRST
        while True:
            with trio.move_on_after(pause):
                if proxy.visitors_only:
                    await self.targets.wait_freed(proxy)
                else:
                    await self.registry.wait_freed(proxy.port)
            try:
                return await self._bind_any(proxy)
            except OSError:
                pause = min(2 * pause, limits.BIND_RETRY_LAST)


def _not_offered() -> contextlib.AbstractContextManager[bool]:
    return contextlib.nullcontext(False)


def _places(proxies: Iterable[Proxy]) -> set[tuple[str, int]]:
    """The public places that these ask for."""
    return {(proxy.host, proxy.port) for proxy in proxies if proxy.port and not proxy.visitors_only}
