"""What a server lets its clients publish."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator

import attrs

from tunnel import limits
from tunnel.model import ANY, PortRange


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

    def publishable(self, port: int) -> bool:
        """True if clients may publish that port, and the server does not use it itself."""
        return self.allows(port) and port not in self.reserved

    def _allows_all(self, first: int, last: int) -> bool:
        """True if every port of a range is allowed, by one range of the rules or by several."""
        allowed = sorted(self.allow_ports, key=lambda ports: ports.first)
        for ports in allowed:
            if ports.first <= first <= ports.last:
                first = ports.last + 1
        return first > last

    def allows_addr(self, host: str) -> bool:
        """True if clients may publish on that address."""
        return any(covers(allowed, host) for allowed in self.allow_addrs)

    def candidates(self, preferred: int) -> Iterator[int]:
        """Ports to try for a client that takes any: its former one, any that is free, a few more.

        0 means whatever the system picks, which is right only if every port is allowed that the
        system could pick.
        """
        if preferred and self.publishable(preferred):
            yield preferred
        if self._allows_all(limits.FIRST_EPHEMERAL, limits.LAST_EPHEMERAL):
            yield 0
            return
        total = sum(ports.last - ports.first + 1 for ports in self.allow_ports)
        # Not secrets: nothing is gained by guessing a public port.
        for index in random.sample(range(total), min(total, limits.MAX_CANDIDATE_PORTS)):
            port = self._nth(index)
            if port not in self.reserved:
                yield port

    def _nth(self, index: int) -> int:
        for ports in self.allow_ports:
            if index <= ports.last - ports.first:
                return ports.first + index
            index -= ports.last - ports.first + 1
        raise IndexError(index)


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
