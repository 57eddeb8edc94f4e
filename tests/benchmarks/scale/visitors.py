"""Visitors: those who come and stay, those who come one after the other, and those who hurry.

Each of them connects, sends one byte, and has been served when one byte has come back. Orders:

`{"do": "stay", "ports": [...], "count": n}`: so many more, who then keep still.
`{"do": "come", "ports": [...], "count": n}`: one after the other; answered with seconds each.
`{"do": "hurry", "ports": [...], "count": n, "seconds": s}`: so many at once, each followed by
another as soon as it has gone, for so long; answered with seconds each and in all.
`{"do": "leave"}`: those who stay go.

They take the ports in turn, and come from many addresses, as strangers do.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing

from tests.benchmarks.scale.worker import Order, obey

BYTE = b"?"
#: Linux: the port is chosen when it is known to whom the connection goes.
_IP_BIND_ADDRESS_NO_PORT = 24
#: Those who come to stay, of each process.
AT_ONCE = 16
#: Seconds for one visitor to be served.
PATIENCE = 20.0

_numbers = itertools.count()
_staying: list[socket.socket] = []


class Visitor:
    """One connection, from its beginning to the first byte that comes back."""

    def __init__(self, port: int) -> None:
        self.began = time.perf_counter()
        self.sock = _socket()
        self._asked = False
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", port))

    def go_on(self) -> bool:
        """The socket is ready: True if it has been served now."""
        if not self._asked:
            self.sock.send(BYTE)  # raises if it could not connect
            self._asked = True
            return False
        if self.sock.recv(1) != BYTE:
            raise ConnectionError("ended without an answer")
        return True


def _socket() -> socket.socket:
    sock = socket.socket()
    number = next(_numbers)
    host = f"127.{10 + os.getpid() % 100}.{number % 250}.{1 + number // 250 % 250}"
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((host, 0))
    return sock


def served(ports: Iterator[int], at_once: int) -> Iterator[Visitor]:
    """Visitors as they are served, so many on their way at any time, until `ports` ends.

    Raises:
      OSError: one was not served.
    """
    epoll = select.epoll()
    coming: dict[int, Visitor] = {}

    def invite() -> None:
        for port in itertools.islice(ports, at_once - len(coming)):
            visitor = Visitor(port)
            coming[visitor.sock.fileno()] = visitor
            epoll.register(visitor.sock.fileno(), select.EPOLLOUT)

    with closing(epoll):
        invite()
        while coming:
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise TimeoutError(f"{len(coming)} visitors are not served")
            for descriptor, _ in ready:
                visitor = coming[descriptor]
                if visitor.go_on():
                    epoll.unregister(descriptor)
                    del coming[descriptor]
                    yield visitor
                else:
                    epoll.modify(descriptor, select.EPOLLIN)
            invite()


def stay(order: Order) -> Order:
    """See above."""
    begin = time.perf_counter()
    ports = itertools.islice(itertools.cycle(order["ports"]), order["count"])
    _staying.extend(visitor.sock for visitor in served(ports, AT_ONCE))
    return {"seconds": time.perf_counter() - begin}


def come(order: Order, at_once: int = 1) -> Order:
    """See above."""
    ports = itertools.islice(itertools.cycle(order["ports"]), order["count"])
    return {"each": list(_times(served(ports, at_once)))}


def hurry(order: Order) -> Order:
    """See above."""
    begin = time.perf_counter()
    end = begin + order["seconds"]
    ports = itertools.takewhile(
        lambda _: time.perf_counter() < end, itertools.cycle(order["ports"])
    )
    each = list(_times(served(ports, order["count"])))
    return {"each": each, "seconds": time.perf_counter() - begin}


def _times(visitors: Iterator[Visitor]) -> Iterator[float]:
    for visitor in visitors:
        yield time.perf_counter() - visitor.began
        visitor.sock.close()


def leave(_order: Order) -> Order:
    """See above."""
    for sock in _staying:
        sock.close()
    _staying.clear()
    return {}


WORK = {"stay": stay, "come": come, "hurry": hurry, "leave": leave}

if __name__ == "__main__":
    obey(lambda order: WORK[order["do"]](order))
