"""The Yamux engine by itself: an echo server and a client over plain blocking sockets.

Everything here is I/O and time; the protocol is all in `tunnel.yamux`. Try it:

    python docs/examples/yamux_echo.py serve 127.0.0.1 4711 &
    echo hello | python docs/examples/yamux_echo.py ask 127.0.0.1 4711
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterator

from tunnel.yamux import (
    CLOSED,
    NEED_DATA,
    Connection,
    DataReceived,
    Event,
    Role,
    RoomAvailable,
    StreamEOF,
    StreamOpened,
    StreamReset,
)


class Session:
    """One engine, one socket, one thread."""

    def __init__(self, sock: socket.socket, role: Role) -> None:
        self.sock = sock
        self.engine = Connection(role, now=time.monotonic())

    def events(self) -> Iterator[Event]:
        """What happens, as it happens, until the connection is over."""
        self.flush()
        while True:
            event = self.engine.next_event()
            if event is CLOSED:
                return
            if event is NEED_DATA:
                self.flush()
                self.receive()
            else:
                yield event

    def receive(self) -> None:
        """Wait for bytes, or until the engine wants to look at the clock."""
        deadline = self.engine.next_deadline()
        patience = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([self.sock], [], [], patience)
        if readable:
            self.engine.receive_data(self.sock.recv(65536), time.monotonic())
        else:
            self.engine.on_timer(time.monotonic())

    def flush(self) -> None:
        """Put on the wire whatever is due."""
        while parts := self.engine.data_to_send(time.monotonic()):
            self.sock.sendall(b"".join(parts))


class Echo:
    """Sends back what each stream brings, as fast as its peer takes it and no faster."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.waiting: dict[int, bytearray] = {}
        self.ended: set[int] = set()

    def run(self) -> None:
        """Serve until the connection is over."""
        engine = self.session.engine
        for event in self.session.events():
            match event:
                case StreamOpened(stream_id):
                    engine.accept_stream(stream_id)
                    self.waiting[stream_id] = bytearray()
                case DataReceived(stream_id, data):
                    self.waiting[stream_id] += data  # a copy: the view is only lent
                    self.send(stream_id)
                case RoomAvailable(stream_id):
                    self.send(stream_id)
                case StreamEOF(stream_id):
                    self.ended.add(stream_id)
                    self.send(stream_id)
                case StreamReset(stream_id):
                    self.waiting.pop(stream_id, None)
                    self.ended.discard(stream_id)

    def send(self, stream_id: int) -> None:
        """Send what there is room for; only that is granted to the peer again."""
        engine, waiting = self.session.engine, self.waiting[stream_id]
        while waiting and (room := engine.room(stream_id)):
            piece = bytes(waiting[:room])
            engine.send_data(stream_id, piece)
            engine.consumed(stream_id, len(piece), time.monotonic())
            del waiting[: len(piece)]
        if not waiting and stream_id in self.ended:
            self.ended.discard(stream_id)
            del self.waiting[stream_id]
            engine.send_eof(stream_id)


def ask(session: Session, question: bytes) -> bytes:
    """Send a question over a stream of its own; return all that comes back."""
    engine = session.engine
    stream_id = engine.open_stream()
    rest, ended, answer = memoryview(question), False, bytearray()

    def send() -> None:
        nonlocal rest, ended
        while rest and (room := engine.room(stream_id)):
            engine.send_data(stream_id, rest[:room])
            rest = rest[room:]
        if not rest and not ended:
            ended = True
            engine.send_eof(stream_id)

    send()
    for event in session.events():
        match event:
            case RoomAvailable():
                send()
            case DataReceived(_, data):
                answer += data
                engine.consumed(stream_id, len(data), time.monotonic())
            case StreamEOF():
                break
            case StreamReset(_, code):
                raise ConnectionResetError(f"stream reset, code {code}")
    return bytes(answer)


def main(command: str, host: str, port: str) -> None:
    """Serve one connection after the other, or ask what stands on standard input."""
    if command == "serve":
        with socket.create_server((host, int(port))) as listener:
            print("listening on", listener.getsockname()[1], flush=True)
            while True:
                sock, _ = listener.accept()
                with sock:
                    Echo(Session(sock, Role.SERVER)).run()
    else:
        with socket.create_connection((host, int(port))) as sock:
            answer = ask(Session(sock, Role.CLIENT), sys.stdin.buffer.read())
            sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
