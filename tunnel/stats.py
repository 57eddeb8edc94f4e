"""Plain counters and frozen snapshots of them. Nobody waits on a counter."""

from __future__ import annotations

import attrs


@attrs.define(eq=False, slots=True)
class Counters:
    """What one proxy has carried; bytes move while a connection lives.

    `bytes_sent` go towards the visitor, `bytes_received` come from it.
    """

    active_connections: int = 0
    total_connections: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def opened(self) -> None:
        """Count a connection that begins."""
        self.active_connections += 1
        self.total_connections += 1

    def closed(self) -> None:
        """Count a connection that ended."""
        self.active_connections -= 1

    def statistics(self) -> CountersStatistics:
        """The numbers now."""
        return CountersStatistics(
            self.active_connections, self.total_connections, self.bytes_sent, self.bytes_received
        )


@attrs.frozen
class CountersStatistics:
    """A snapshot of `Counters`."""

    active_connections: int
    total_connections: int
    bytes_sent: int
    bytes_received: int
