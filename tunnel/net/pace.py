"""How much is put on the wire at a time: what the link carries in a few milliseconds.

What was encrypted, and what the kernel holds unsent, cannot be overtaken: on a slow link it is what
a keystroke waits for. On a fast link small batches cost throughput. So the batch follows the rate
at which the network was really seen to deliver.
"""

from __future__ import annotations

from tunnel import limits
from tunnel.net.transport import Transport


class Pace:
    """The batch of one link, in bytes; the kernel's unsent queue is kept as short."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._looked_at = -limits.PACE_INTERVAL
        self.batch = limits.BATCH

    def look(self, now: float) -> bool:
        """Ask how fast the link is; True if `batch` is another now.

        Call it whenever something was sent. (Not only when the link takes no more: what the window
        of one stream lets out may all fit into the kernel, and wait there.)
        """
        if now - self._looked_at < limits.PACE_INTERVAL:
            return False
        self._looked_at = now
        rate = self._transport.delivery_rate()
        if rate is None:
            return False
        batch = self._following(rate)
        if batch == self.batch:
            return False
        self.batch = batch
        self._transport.limit_unsent(batch)
        return True

    def _following(self, rate: float) -> int:
        """The batch for a link that carries so many bytes a second."""
        # Down at once, up in steps: a burst can look fast for a moment.
        batch = min(_power_of_two(rate * limits.BATCH_TIME), 2 * self.batch)
        return min(max(batch, limits.MIN_BATCH), limits.MAX_BATCH)


def _power_of_two(size: float) -> int:
    """The next smaller one: in steps, so that not every new measurement changes something."""
    return 1 << max(0, int(size).bit_length() - 1)
