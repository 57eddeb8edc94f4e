"""The local service of the benchmarks. `python -m tests.benchmarks.service PORT`

It greets every visitor with one byte. What the visitor then says decides: "G" and any block that
ends in a newline is answered with as many bytes (requests on a kept connection); "D" gets bytes
until the visitor goes; "U" is read until its end and answered with one byte.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading

CHUNK = bytes(256 * 1024)
GREETING = b"!"


class Service:
    """One thread serves requests; each bulk transfer gets a thread of its own."""

    def __init__(self, port: int) -> None:
        self._ready = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._listener.setblocking(False)
        self._ready.register(self._listener, selectors.EVENT_READ, self._accept)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for key, _ in self._ready.select():
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(GREETING)
        self._ready.register(sock, selectors.EVENT_READ, self._read)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
            if data[:1] == b"G":
                sock.send(data)
                return
        except OSError:
            data = b""
        self._ready.unregister(sock)
        if data[:1] in (b"D", b"U"):
            sock.setblocking(True)
            work = download if data[:1] == b"D" else upload
            threading.Thread(target=work, args=(sock,), daemon=True).start()
        else:
            sock.close()


def download(sock: socket.socket) -> None:
    """Send until nobody wants it."""
    with sock:
        try:
            while True:
                sock.sendall(CHUNK)
        except OSError:
            pass


def upload(sock: socket.socket) -> None:
    """Read to the end."""
    buffer = bytearray(256 * 1024)
    with sock:
        try:
            while sock.recv_into(buffer):
                pass
            sock.send(b".")
        except OSError:
            pass


if __name__ == "__main__":
    service = Service(int(sys.argv[1]))
    print("ready", file=sys.stderr, flush=True)
    service.run()
