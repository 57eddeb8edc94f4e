"""Waits until ports answer. `python -m tests.benchmarks.probe HOST PORT=HEX...`

HEX is what is said to the service behind that port. The port answers when a byte comes back; with
nothing to say, when the connection is accepted. A program of its own, so that it can be run where
the visitors are (`ip netns exec`). It tries for ever: whoever started it ends it.
"""

from __future__ import annotations

import socket
import sys
import time


def answers(host: str, port: int, hello: bytes) -> bool:
    """Whether the port answered just now."""
    try:
        with socket.create_connection((host, port), 1) as sock:
            sock.sendall(hello)
            return not hello or bool(sock.recv(1))
    except OSError:
        return False


def main(host: str, *ports: str) -> None:
    """Return when every port has answered once."""
    for text in ports:
        port, _, hello = text.partition("=")
        while not answers(host, int(port), bytes.fromhex(hello)):
            time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
