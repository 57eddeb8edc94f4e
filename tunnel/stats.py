"""Plain counters and frozen snapshots of them.

A counter is an integer that its owner adds to; it wakes nothing and costs nothing to have. What
shows it asks for a snapshot (`statistics`).
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable

import attrs


@attrs.define(eq=False, slots=True)
class Counters:
    """What one proxy has carried; bytes move while a connection lives.

    Args:
      active: connections that are open.
      total: connections that there were, open ones included.
      delivered: bytes that came through the tunnel and went into a socket: on the server the
        visitor's, on the client the local service's.
      read: bytes that went the other way.
    """

    active: int = 0
    total: int = 0
    delivered: int = 0
    read: int = 0
    #: Connections that count for themselves until they are settled.
    meters: set[Meter] = attrs.field(factory=set, init=False, repr=False)

    def settle(self) -> None:
        """Add to `delivered` and `read` what the meters have counted since the last time."""
        for meter in self.meters:
            meter.settle()

    def opened(self) -> None:
        """Count a connection that begins."""
        self.active += 1
        self.total += 1

    def closed(self) -> None:
        """Count a connection that ended."""
        self.active -= 1

    def add(self, other: Counters | CountersStatistics) -> None:
        """Add the numbers of another proxy, as far as they are settled.

        Args:
          other: unchanged by this.
        """
        self.active += other.active
        self.total += other.total
        self.delivered += other.delivered
        self.read += other.read

    def statistics(self) -> CountersStatistics:
        """The numbers now."""
        self.settle()
        return CountersStatistics(self.active, self.total, self.delivered, self.read)


class Meter:
    """Counts what one connection carries; its proxy's counters include it once it is settled.

    It is settled when the numbers are asked for, and at its end: to add every number twice as it
    comes would cost a request some percent of its CPU time.

    Args:
      proxy: the counters of the connection's proxy.
    """

    __slots__ = ("_proxy", "_settled_delivered", "_settled_read", "delivered", "read")

    def __init__(self, proxy: Counters) -> None:
        self._proxy = proxy
        self.delivered = self.read = 0
        self._settled_delivered = self._settled_read = 0

    def settle(self) -> None:
        """Add to the proxy's counters what was counted since the last time."""
        proxy, delivered, read = self._proxy, self.delivered, self.read
        proxy.delivered += delivered - self._settled_delivered
        proxy.read += read - self._settled_read
        self._settled_delivered, self._settled_read = delivered, read

    def opened(self) -> None:
        """Count the connection as begun, and belong to the proxy until `closed`."""
        proxy = self._proxy
        proxy.active += 1
        proxy.total += 1
        proxy.meters.add(self)

    def closed(self) -> None:
        """Settle, and count the connection as ended."""
        self.settle()
        proxy = self._proxy
        proxy.meters.discard(self)
        proxy.active -= 1


@attrs.frozen
class CountersStatistics:
    """A snapshot of `Counters`, with the same fields."""

    active: int
    total: int
    delivered: int
    read: int


class Reason(enum.StrEnum):
    """Why a visitor or stranger was turned away, as log lines and metrics say it."""

    #: New connections to the server, before TLS.
    NETWORK_RATE = "rate of its network"
    RATE = "rate of all"
    FAILED_PROOFS = "failed proofs of its network"
    #: It had not proved anything yet when a new connection needed its place.
    GAVE_WAY = "gave way to a newcomer"
    #: The key was wrong.
    WRONG_KEY = "wrong key"
    #: Visitors of a proxy.
    NOT_ALLOWED = "address not allowed"
    PROXY_FULL = "too many connections of the proxy"
    CLIENT_FULL = "too many connections of the client"
    VISITOR_FULL = "too many connections of the visitor"
    #: The program that runs the server said no.
    REFUSED = "refused by the program"


class Tally:
    """How many visitors and strangers were turned away, for each reason."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Reason, 0)

    def count(self, reason: Reason) -> None:
        """Count one that was turned away."""
        self._counts[reason] += 1

    def statistics(self) -> dict[Reason, int]:
        """The numbers now; every reason is there."""
        return self._counts.copy()


class Totals:
    """What all proxies of a program have carried together, those that are gone included.

    It is given the counters that live from time to time. What is missing then has ended, and what
    it had carried stays in the sum. So the sum never falls, which Prometheus requires of a counter,
    though clients and their proxies come and go.
    """

    def __init__(self) -> None:
        self._living: dict[int, Counters] = {}
        self._gone = Counters()

    def look(self, living: Iterable[Counters]) -> None:
        """Take note of all counters that live now; others that were there have ended.

        Counters with connections that still live are kept all the same: a proxy that is no longer
        published may have some.
        """
        now = {id(counters): counters for counters in living}
        for counters in now.values():
            counters.settle()
        for key, counters in self._living.items():
            if key in now:
                continue
            if counters.active:
                now[key] = counters
            else:
                self._gone.add(counters)
        self._living = now

    def statistics(self) -> CountersStatistics:
        """The sums now."""
        gone, living = self._gone, self._living.values()
        for counters in living:
            counters.settle()
        return CountersStatistics(
            sum(counters.active for counters in living),
            gone.total + sum(counters.total for counters in living),
            gone.delivered + sum(counters.delivered for counters in living),
            gone.read + sum(counters.read for counters in living),
        )


class Histogram:
    """How many values were at most each of a few bounds, as Prometheus' histograms have it.

    Args:
      bounds: ascending, in the unit of the values; what is above the last is counted too.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.sum += value
        self._counts[bisect_left(self.bounds, value)] += 1

    def cumulated(self) -> list[int]:
        """For each bound how many values were not above it; at the end, how many there were."""
        total = 0
        return [total := total + count for count in self._counts]
