"""One visitor of `tests.benchmarks.service`. `... visitor KIND HOST PORT WARM SECONDS`

Kinds: "download" and "upload" move bytes as fast as they can; "kept" sends small requests on one
connection, "anew" each on a new one, and both pause a little in between, as people do. After WARM
seconds it measures for SECONDS, and prints JSON: megabits a second, or the seconds of each request.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from collections.abc import Callable

REQUEST = b"G" * 99 + b"\n"
CHUNK = bytes(64 * 1024)
#: Seconds between a reply and the next request. Random, so that it falls in step with nothing.
PAUSES = (0.002, 0.012)
PATIENCE = 20.0


def main(kind: str, host: str, port: str, warm: str, seconds: str) -> None:
    """Visit, and print what came of it."""
    address = (host, int(port))
    work = {"download": download, "upload": upload, "kept": kept, "anew": anew}[kind]
    print(json.dumps(work(address, float(warm), float(seconds))))


def visit(address: tuple[str, int]) -> socket.socket:
    """A connection that has not been greeted yet."""
    sock = socket.create_connection(address, PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def download(address: tuple[str, int], warm: float, seconds: float) -> float:
    """Megabits a second that arrive here, after `warm`."""
    buffer = bytearray(256 * 1024)
    with visit(address) as sock:
        sock.sendall(b"D")
        end = time.monotonic() + warm
        while time.monotonic() < end:
            sock.recv_into(buffer)
        begin, total = time.monotonic(), 0
        while (now := time.monotonic()) < begin + seconds:
            total += sock.recv_into(buffer)
    return total * 8e-6 / (now - begin)


def upload(address: tuple[str, int], warm: float, seconds: float) -> float:
    """Megabits a second that the service has read, `warm` and what waits at the end included."""
    with visit(address) as sock:
        receive(sock, 1)
        sock.sendall(b"U")
        begin, total = time.monotonic(), 0
        while time.monotonic() < begin + warm + seconds:
            sock.sendall(CHUNK)
            total += len(CHUNK)
        sock.shutdown(socket.SHUT_WR)
        receive(sock, 1)
        return total * 8e-6 / (time.monotonic() - begin)


def kept(address: tuple[str, int], warm: float, seconds: float) -> list[float]:
    """How long requests take on a connection that is there already."""
    with visit(address) as sock:
        receive(sock, 1)

        def ask() -> None:
            sock.sendall(REQUEST)
            receive(sock, len(REQUEST))

        return timed(ask, warm, seconds)


def anew(address: tuple[str, int], warm: float, seconds: float) -> list[float]:
    """How long it takes to connect, to be greeted, and to get one reply."""

    def ask() -> None:
        with visit(address) as sock:
            sock.sendall(REQUEST)
            receive(sock, 1 + len(REQUEST))

    return timed(ask, warm, seconds)


def timed(ask: Callable[[], None], warm: float, seconds: float) -> list[float]:
    """The seconds of each `ask` that began after `warm`."""
    chance = random.Random(1)
    begin = time.monotonic() + warm
    durations: list[float] = []
    while (before := time.monotonic()) < begin + seconds:
        ask()
        if before >= begin:
            durations.append(time.monotonic() - before)
        time.sleep(chance.uniform(*PAUSES))
    return durations


def receive(sock: socket.socket, size: int) -> None:
    """Read exactly `size` bytes."""
    while size:
        data = sock.recv(size)
        assert data, "the connection ended"
        size -= len(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
