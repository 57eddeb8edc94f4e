"""The visitors of `bench_carry` and others. `python -m tests.benchmarks.load PORT KIND SECONDS N`

Prints one number: megabytes a second for "download" and "upload" (over one connection), requests a
second for "requests" (100 bytes each way, one at a time on each of the kept connections) and for
"new" (the same, and a new connection for every request). N is how many connections there are.
"""

from __future__ import annotations

import select
import socket
import sys
import time

REQUEST = b"G" * 99 + b"\n"
CHUNK = bytes(256 * 1024)


def visit(port: int) -> socket.socket:
    """A visitor who has been greeted."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert sock.recv(1)
    return sock


def download(port: int, seconds: float) -> float:
    """Megabytes a second to the visitor."""
    buffer = bytearray(1 << 20)
    with visit(port) as sock:
        sock.sendall(b"D")
        warm = time.monotonic() + 0.2
        while time.monotonic() < warm:
            sock.recv_into(buffer)
        begin, total = time.monotonic(), 0
        while (now := time.monotonic()) < begin + seconds:
            total += sock.recv_into(buffer)
    return total / (now - begin) / 1e6


def upload(port: int, seconds: float) -> float:
    """Megabytes a second from the visitor, until the service has read the last."""
    with visit(port) as sock:
        sock.sendall(b"U")
        begin, total = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            sock.sendall(CHUNK)
            total += len(CHUNK)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1)
        return total / (time.monotonic() - begin) / 1e6


def requests(port: int, seconds: float, connections: int) -> float:
    """Answers a second."""
    poll = select.epoll()
    socks = {sock.fileno(): sock for sock in (visit(port) for _ in range(connections))}
    left = dict.fromkeys(socks, len(REQUEST))
    for descriptor, sock in socks.items():
        poll.register(descriptor, select.EPOLLIN)
        sock.send(REQUEST)
    begin, answers = time.monotonic(), 0
    while (now := time.monotonic()) < begin + seconds:
        for descriptor, _ in poll.poll(1):
            left[descriptor] -= len(socks[descriptor].recv(len(REQUEST)))
            if not left[descriptor]:
                answers += 1
                left[descriptor] = len(REQUEST)
                socks[descriptor].send(REQUEST)
    for sock in socks.values():
        sock.close()
    return answers / (now - begin)


def anew(port: int, seconds: float, connections: int) -> float:
    """Answers a second, so many connections at a time, each for one request."""
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}

    def connect() -> None:
        sock = socket.create_connection(("127.0.0.1", port), 10)
        socks[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)

    for _ in range(connections):
        connect()
    asked: dict[int, int] = {}
    begin, answers = time.monotonic(), 0
    while (now := time.monotonic()) < begin + seconds:
        for descriptor, _ in poll.poll(1):
            sock = socks[descriptor]
            if descriptor not in asked:
                assert sock.recv(1)
                asked[descriptor] = len(REQUEST)
                sock.send(REQUEST)
                continue
            asked[descriptor] -= len(sock.recv(len(REQUEST)))
            if not asked[descriptor]:
                answers += 1
                del socks[descriptor], asked[descriptor]
                sock.close()
                connect()
    for sock in socks.values():
        sock.close()
    return answers / (now - begin)


if __name__ == "__main__":
    port, kind, seconds, connections = sys.argv[1:]
    if kind in ("requests", "new"):
        work = requests if kind == "requests" else anew
        print(work(int(port), float(seconds), int(connections)))
    else:
        print((download if kind == "download" else upload)(int(port), float(seconds)))
