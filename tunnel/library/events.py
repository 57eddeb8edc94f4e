"""What happens, for whoever asks, one thing after the other."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator

import trio

from tunnel import limits
from tunnel.events import ServerEvent


class Events(AsyncIterator[ServerEvent]):
    """Everything that happens from now on. Cancelling the wait for the next one loses nothing.

    Of what nobody takes, the newest `limits.MAX_EVENTS` are kept; `lost` counts the others.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[ServerEvent] = deque()
        self._more = trio.Event()

    def put(self, event: ServerEvent) -> None:
        """It has happened."""
        if len(self._waiting) == limits.MAX_EVENTS:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(event)
        self._more.set()

    async def __anext__(self) -> ServerEvent:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._more = trio.Event()
            await self._more.wait()
        return self._waiting.popleft()


class Audience:
    """Those who ask; who is not there any more is forgotten."""

    def __init__(self) -> None:
        self._events: weakref.WeakSet[Events] = weakref.WeakSet()

    def join(self) -> Events:
        """One more, with events of his own."""
        events = Events()
        self._events.add(events)
        return events

    def tell(self, event: ServerEvent) -> None:
        """Tell all of them."""
        for events in tuple(self._events):
            events.put(event)
