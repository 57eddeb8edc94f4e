"""A connection on which a byte goes and comes back again and again, to see how long it ever takes.

`python -m tests.benchmarks.scale.probe PORT ...` connects to each port. The order
`{"asking": true}` begins, `{"asking": false}` ends and is answered with the longest times, a
number of seconds for each port. They are asked in turn, so that one of them can show what the
machine itself does.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

from tests.benchmarks.scale.worker import Order, obey

PAUSE = 0.010


class Probe:
    """The connections, and the thread that asks."""

    def __init__(self, ports: list[int]) -> None:
        self._socks = [socket.create_connection(("127.0.0.1", port), 10) for port in ports]
        self._enough = threading.Event()
        self._worst: list[float] = []
        self._thread = threading.Thread()

    def obey(self, order: Order) -> Order:
        """See above."""
        if order["asking"]:
            self._enough.clear()
            self._worst = [0.0] * len(self._socks)
            self._thread = threading.Thread(target=self._ask, daemon=True)
            self._thread.start()
            return {}
        self._enough.set()
        self._thread.join()
        return {"worst": self._worst}

    def _ask(self) -> None:
        while not self._enough.wait(PAUSE):
            for number, sock in enumerate(self._socks):
                begin = time.perf_counter()
                sock.sendall(b"?")
                answer = sock.recv(1)
                took = time.perf_counter() - begin if answer else float("inf")
                self._worst[number] = max(self._worst[number], took)


if __name__ == "__main__":
    obey(Probe([int(port) for port in sys.argv[1:]]).obey)
