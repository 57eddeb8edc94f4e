"""A local service that holds what is connected and echoes what it is sent.

The order `{}` starts it, and is answered with its port.
"""

from __future__ import annotations

import select
import socket
import threading

from tests.benchmarks.scale.worker import Order, obey

BURST = 256


class Service:
    """One thread, one epoll, any number of connections."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for descriptor, _ in self._epoll.poll(-1, BURST):
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._echo(descriptor)

    def _accept(self) -> None:
        for _ in range(BURST):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[connection.fileno()] = connection
            self._epoll.register(connection.fileno(), select.EPOLLIN)

    def _echo(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        try:
            data = connection.recv(4096)
            if data:
                connection.send(data)
                return
        except OSError:
            pass
        del self._connections[descriptor]
        connection.close()  # which takes it out of the epoll


def start(_order: Order) -> Order:
    """Begin to serve, beside whoever waits for orders."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    threading.Thread(target=Service(listener).run, daemon=True).start()
    return {"port": listener.getsockname()[1]}


if __name__ == "__main__":
    obey(start)
