"""The visitors of `bench_carry`. `python -m tests.benchmarks.load PORT KIND SECONDS CONNECTIONS`

Prints one number: megabytes a second for "download" and "upload" (over one connection), requests a
second for "requests" (100 bytes each way, one at a time on each of the kept connections).
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
    return answers / (now - begin)


if __name__ == "__main__":
    port, kind, seconds, connections = sys.argv[1:]
    if kind == "requests":
        print(requests(int(port), float(seconds), int(connections)))
    else:
        print((download if kind == "download" else upload)(int(port), float(seconds)))
