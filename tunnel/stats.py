"""Plain counters and frozen snapshots of them. Nobody waits on a counter."""

from __future__ import annotations

import enum

import attrs


@attrs.define(eq=False, slots=True)
class Counters:
    """What one proxy has carried; bytes move while a connection lives.

    `delivered` bytes came through the tunnel and went into a socket, `read` bytes the other way.
    On the server that socket is the visitor's, on the client the local service's.
    """

    active: int = 0
    total: int = 0
    delivered: int = 0
    read: int = 0

    def opened(self) -> None:
        """Count a connection that begins."""
        self.active += 1
        self.total += 1

    def closed(self) -> None:
        """Count a connection that ended."""
        self.active -= 1

    def statistics(self) -> CountersStatistics:
        """The numbers now."""
        return CountersStatistics(self.active, self.total, self.delivered, self.read)


@attrs.frozen
class CountersStatistics:
    """A snapshot of `Counters`."""

    active: int
    total: int
    delivered: int
    read: int


class Reason(enum.StrEnum):
    """Why somebody was turned away, as log lines and metrics say it."""

    #: New connections to the server, before TLS.
    NETWORK_RATE = "rate of its network"
    RATE = "rate of all"
    FAILED_PROOFS = "failed proofs of its network"
    #: It had not proved anything yet when a newcomer needed its place.
    GAVE_WAY = "gave way to a newcomer"
    #: The key was wrong.
    WRONG_KEY = "wrong key"
    #: Visitors of a proxy.
    NOT_ALLOWED = "address not allowed"
    PROXY_FULL = "too many connections of the proxy"
    CLIENT_FULL = "too many connections of the client"
    VISITOR_FULL = "too many connections of the visitor"


class Tally:
    """How often somebody was turned away, for each reason."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Reason, 0)

    def count(self, reason: Reason) -> None:
        """Once more."""
        self._counts[reason] += 1

    def statistics(self) -> dict[Reason, int]:
        """The numbers now; every reason is there."""
        return self._counts.copy()
