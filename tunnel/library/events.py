"""The events of a server, for `async for`: each caller gets a queue of its own."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator

import trio

from tunnel import limits
from tunnel.events import SERVER_EVENTS, Event, ServerEvent


class Events(AsyncIterator[ServerEvent]):
    """Everything that happens from now on. Cancelling the wait for the next one loses nothing.

    Of events that are not taken, the newest `limits.MAX_EVENTS` are kept; `lost` counts the others.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[ServerEvent] = deque()
        self._more = trio.Event()

    def put(self, event: ServerEvent) -> None:
        """Queue an event for whoever iterates."""
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


class EventQueues:
    """The queues that were asked for. One that the program has dropped is forgotten."""

    def __init__(self) -> None:
        self._queues: weakref.WeakSet[Events] = weakref.WeakSet()

    def open(self) -> Events:
        """A new queue, which is empty."""
        events = Events()
        self._queues.add(events)
        return events

    def put(self, event: Event) -> None:
        """Subscribe this to a server's `EventStream`: queues get those of `SERVER_EVENTS`."""
        if isinstance(event, SERVER_EVENTS):
            for events in tuple(self._queues):
                events.put(event)
