"""Receive windows: credit goes back in large steps, and grows where it is what holds a stream up.

A stream that uses up half its window in under two round trips could be faster with a larger one.
What it gets comes out of a pool that all streams of the session share, and returns there when the
stream ends, so that the session's memory has a bound.
"""

from __future__ import annotations

from tunnel import limits
from tunnel.yamux.settings import Settings
from tunnel.yamux.stream import Stream


class Windows:
    """The policy, and the pool, of one connection."""

    def __init__(self, settings: Settings) -> None:
        self.rtt: float | None = None
        self._max_window = settings.max_window
        self._pool = settings.window_pool
        self._asked_at = -limits.RTT_VALIDITY

    def due(self, stream: Stream) -> bool:
        """True if enough was consumed to be worth a frame."""
        return stream.owed >= stream.target // 2

    def grant(self, stream: Stream, now: float) -> None:
        """Turn what is owed into credit, and widen the window if it was the bottleneck."""
        if self.rtt is not None and now - stream.granted_at < 2 * self.rtt:
            growth = min(stream.target, self._max_window - stream.target, self._pool)
            if growth > 0:
                self._pool -= growth
                stream.target += growth
                stream.owed += growth
        stream.granted_at = now
        stream.window += stream.owed
        stream.credit += stream.owed
        stream.owed = 0

    def wants_rtt(self, now: float) -> bool:
        """True, once in a while, if a measurement would be of use."""
        if now - self._asked_at < limits.RTT_VALIDITY:
            return False
        self._asked_at = now
        return True

    def release(self, stream: Stream) -> None:
        """The stream is over: what it had been lent goes back."""
        self._pool += stream.target - limits.INITIAL_WINDOW
        stream.target = limits.INITIAL_WINDOW
