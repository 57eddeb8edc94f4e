"""Events that strangers can cause, which must not be able to fill a disk with their log lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from tunnel import limits
from tunnel.events import Event, EventStream
from tunnel.server.ratelimit import TokenBucket

#: Makes an event, given how many of its kind were left out before it.
Make: TypeAlias = Callable[[int], Event]


class LimitedEvents:
    """Passes events on, but of each kind only so many; the next one says how many were left out.

    Args:
      events: where to.
    """

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._buckets: dict[str, TokenBucket] = {}
        self._left_out: dict[str, int] = {}

    def emit(self, kind: str, make: Make) -> None:
        """Pass an event on, unless too many of its kind came lately.

        Args:
          kind: few and our own: no part of it may come from a stranger.
          make: makes the event, only if it is passed on.
        """
        bucket = self._buckets.get(kind)
        if bucket is None:
            rate = 1 / limits.REFUSAL_LOG_INTERVAL
            bucket = self._buckets[kind] = TokenBucket(rate, limits.REFUSAL_LOG_BURST)
        if bucket.take(trio.current_time()):
            self._events.emit(make(self._left_out.pop(kind, 0)))
        else:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
