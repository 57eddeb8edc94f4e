"""Two engines joined by bytes, and a caller at each who does what most callers do."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.yamux.wire import client, hear, server, told
from tunnel.yamux import DataReceived, StreamOpened


class End:
    """An engine whose caller accepts every stream and reads what comes, unless told otherwise."""

    def __init__(self, engine, *, accepts=True, reads=True):
        self.engine = engine
        self.accepts = accepts
        self.reads = reads
        #: What was told, but for data.
        self.events = []
        self.received = defaultdict(bytearray)
        self.unread = Counter()
        self._unsent = {}

    def open(self, count=1):
        return [self.engine.open_stream() for _ in range(count)]

    def send(self, stream_id, data):
        """Send all of it, as soon as there is room."""
        self._unsent[stream_id] = memoryview(data)

    def read(self, stream_id, size, now=0.0):
        self.unread[stream_id] -= size
        self.engine.consumed(stream_id, size, now)

    def refill(self):
        """Use the room that there is."""
        for stream_id, data in list(self._unsent.items()):
            size = min(self.engine.room(stream_id), len(data))
            if size:
                self.engine.send_data(stream_id, data[:size])
                self._unsent[stream_id] = data[size:]
            if size == len(data):
                del self._unsent[stream_id]

    def say(self, now, max_bytes):
        """What goes on the wire; room for more, or an end, may be told at once."""
        self.refill()
        wire = b"".join(self.engine.data_to_send(now, max_bytes))
        self._take_events(told(self.engine), now)
        return wire

    def hear(self, wire, now):
        self._take_events(hear(self.engine, wire, now=now), now)

    def _take_events(self, events, now):
        for event in events:
            if isinstance(event, DataReceived):
                self._take_data(event.stream_id, event.data, now)
            else:
                self.events.append(event)
                if self.accepts and isinstance(event, StreamOpened):
                    self.engine.accept_stream(event.stream_id)

    def _take_data(self, stream_id, data, now):
        self.received[stream_id] += data
        self.unread[stream_id] += len(data)
        if self.reads:
            self.read(stream_id, len(data), now)

    def told(self):
        """What was told since the last time, but for data."""
        events, self.events = self.events, []
        return events


class Pair:
    """A link that carries `batch` bytes at a time, each time in `hop` seconds."""

    def __init__(self, client_end=None, server_end=None, *, hop=0.0, batch=1 << 30):
        self.client = client_end or End(client())
        self.server = server_end or End(server())
        self.hop = hop
        self.batch = batch
        self.now = 0.0

    def run(self):
        """Until neither end has anything to say."""
        while self._carry(self.client, self.server) + self._carry(self.server, self.client):
            pass

    def _carry(self, sender, receiver):
        wire = sender.say(self.now, self.batch)
        if wire:
            self.now += self.hop
            receiver.hear(wire, self.now)
        return len(wire)

    def sleep(self, seconds):
        """Time passes; both ends do what is due, when it is due."""
        until = self.now + seconds
        engines = (self.client.engine, self.server.engine)
        while (due := self._next_deadline(engines)) is not None and due <= until:
            self.now = max(self.now, due)
            for engine in engines:
                engine.on_timer(self.now)
            self.run()
        self.now = until

    @staticmethod
    def _next_deadline(engines):
        deadlines = (engine.next_deadline() for engine in engines)
        return min((when for when in deadlines if when is not None), default=None)
