"""Events that wait for the caller, in the order in which they happened."""

from __future__ import annotations

from collections import deque

from tunnel.yamux.events import Event
from tunnel.yamux.stream import Stream


class EventQueue:
    """Short: bytes are parsed only while it is empty, so most of it is what the caller caused."""

    __slots__ = ("_closed", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Stream | None, Event]] = deque()
        self._closed = False

    def put(self, event: Event, stream: Stream | None = None) -> None:
        """Something happened, to `stream` if it is about one."""
        if not self._closed:
            self.waiting.append((stream, event))

    def get(self) -> Event | None:
        """The next event. Of a stream that the caller has reset nothing is told any more."""
        while self.waiting:
            stream, event = self.waiting.popleft()
            if stream is None or not stream.disowned:
                return event
        return None

    def find(self, stream_id: int) -> Stream | None:
        """The stream of that number, over or not, if something is still to be told of it."""
        for stream, _ in self.waiting:
            if stream is not None and stream.stream_id == stream_id and not stream.disowned:
                return stream
        return None

    def close(self) -> None:
        """The connection is over: what waits is still told, and nothing after it."""
        self._closed = True
