"""Receive windows: credit goes back in large steps, and grows where it is what holds a stream up.

A window of W bytes lets a peer send at most W bytes a round trip. Credit is granted when half of
the window has been handed on. A stream that uses up half its window in under two round trips would
be faster with a larger one; one that takes many round trips for it needs less than it has.

Growth comes out of a pool that all streams of the session share. The memory that a peer can make
this end hold is then the pool and 256 KiB for each stream, however many streams grow. What a stream
got returns to the pool when the stream ends, and by halves while the stream makes little of it.
(Credit that the peer holds cannot be taken back; what shrinks is the next grant.)
"""

from __future__ import annotations

from typing import Final

from tunnel import limits
from tunnel.yamux.settings import Settings
from tunnel.yamux.stream import Stream

#: Half a window used up in fewer round trips: it is too small. At 2 the sender is idle half the
#: time, waiting for credit.
GROW_BELOW: Final = 2
#: In more: a window half as large would do, with room to spare before it grew again.
SHRINK_ABOVE: Final = 16


class Windows:
    """The policy, and the pool, of one connection.

    Args:
      settings: `max_window` and `window_pool` are what counts here; bytes.
    """

    def __init__(self, settings: Settings) -> None:
        #: The last measured round trip, seconds; None before the first.
        self.rtt: float | None = None
        self._max_window = settings.max_window
        self._pool = settings.window_pool
        self._asked_at = -limits.RTT_VALIDITY

    def grant(self, stream: Stream, now: float) -> None:
        """Turn what the stream is owed into credit, after fitting the window to what it needs.

        Args:
          stream: one of which at least half a window was handed on.
          now: seconds; the time since its last grant is how long that half took.
        """
        if self.rtt is not None:
            self._fit(stream, (now - stream.granted_at) / max(self.rtt, 1e-9))
        stream.granted_at = now
        stream.window += stream.owed
        stream.credit += stream.owed
        stream.owed = 0

    def _fit(self, stream: Stream, round_trips: float) -> None:
        """Change the window of a stream that used up half of it in so many round trips."""
        change = 0
        if round_trips < GROW_BELOW:
            change = min(stream.target, self._max_window - stream.target, self._pool)
        elif round_trips > SHRINK_ABOVE:
            change = -min(stream.target // 2, stream.target - limits.INITIAL_WINDOW, stream.owed)
        self._pool -= change
        stream.target += change
        stream.owed += change

    def wants_rtt(self, now: float) -> bool:
        """True, once in a while, if a measurement would be of use."""
        if now - self._asked_at < limits.RTT_VALIDITY:
            return False
        self._asked_at = now
        return True

    def release(self, stream: Stream) -> None:
        """Return to the pool what the stream has beyond 256 KiB: it is over."""
        self._pool += stream.target - limits.INITIAL_WINDOW
        stream.target = limits.INITIAL_WINDOW
