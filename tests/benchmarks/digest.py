"""A bulk transfer whose digest is made at both ends. `python -m tests.benchmarks.digest PORT`

The visitor says which way and how much (`job`); whoever sends closes with the SHA-256 of what it
sent or, upwards, gets that of what arrived. No half-close is needed: not every tunnel has it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
import threading

JOB = struct.Struct("!4sQ")
CHUNK = 64 * 1024
SIZE = hashlib.sha256().digest_size


class Corrupt(Exception):
    """What arrived is not what was sent."""


def job(way: str, size: int) -> bytes:
    """What a visitor says first; "up" is from the visitor to the service."""
    return JOB.pack(way.encode(), size)


def check(host: str, port: int, way: str, size: int) -> str:
    """Transfer so many bytes; returns the digest. Raises `Corrupt`, or OSError."""
    with socket.create_connection((host, port), 30) as sock:
        sock.sendall(job(way, size))
        mine = send(sock, size) if way == "up" else receive(sock, size)
        theirs = _exactly(sock, SIZE)
    if mine != theirs:
        raise Corrupt(f"{size} bytes {way}: {mine.hex()} here, {theirs.hex()} at the service")
    return mine.hex()


def send(sock: socket.socket, size: int) -> bytes:
    """Send so many bytes, no two chunks alike; returns their digest."""
    digest = hashlib.sha256()
    chunk = bytearray(os.urandom(CHUNK))
    for start in range(0, size, CHUNK):
        struct.pack_into("!Q", chunk, 0, start)
        part = memoryview(chunk)[: size - start]
        digest.update(part)
        sock.sendall(part)
    return digest.digest()


def receive(sock: socket.socket, size: int) -> bytes:
    """Receive so many bytes; returns their digest."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(4 * CHUNK))
    while size:
        count = sock.recv_into(buffer[: min(size, len(buffer))])
        if not count:
            raise Corrupt(f"the connection ended {size} bytes early")
        digest.update(buffer[:count])
        size -= count
    return digest.digest()


def serve(sock: socket.socket) -> None:
    """Do one job."""
    with sock:
        try:
            way, size = JOB.unpack(_exactly(sock, JOB.size))
            up = way.rstrip(b"\0") == b"up"
            sock.sendall(receive(sock, size) if up else send(sock, size))
        except (Corrupt, OSError):
            pass  # the visitor knows


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise Corrupt("the connection ended before the digest came")
        data += more
    return data


def main(port: str) -> None:
    """Serve for ever."""
    with socket.create_server(("127.0.0.1", int(port)), backlog=128) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
