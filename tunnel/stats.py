"""Plain counters and frozen snapshots of them. Nobody waits on a counter."""

from __future__ import annotations

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
