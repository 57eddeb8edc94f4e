"""What a lost link and a killed client cost: time to serve again, time until ports are free."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.peers.peer import Peer
from tests.benchmarks.processes import free_ports
from tests.benchmarks.running import Failed, Service, own_address, tunnel
from tests.benchmarks.services import GET

#: Seconds that a tunnel may take to come back, or to let go of its ports.
PATIENCE = 30.0
#: A visitor comes this often while a tunnel comes back.
STAGGER = 0.004
MOST_VISITORS = 200


class Forwarder:
    """Joins whoever dials its port with the tunnel's server, and can cut all of it."""

    def __init__(self, host: str, port: int, target: int) -> None:
        self._listener = socket.create_server((host, port))
        self._target = (host, target)
        self._dialled = threading.Condition()
        self._times: list[float] = []
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        """Forward until `close`."""
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with self._dialled:
                    self._times.append(time.perf_counter())
                    self._socks.append(sock)
                    self._dialled.notify_all()
                self._threads.append(threading.Thread(target=_join, args=(sock, self._target)))
                self._threads[-1].start()

    def cut(self) -> float:
        """End every connection, towards both sides; returns when (`time.perf_counter`)."""
        with self._dialled:
            self._times.clear()
            now = time.perf_counter()
            for sock in self._socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._socks.clear()
        return now

    def redialled(self) -> float:
        """Wait for the first connection after the cut; returns when it came."""
        with self._dialled:
            if not self._dialled.wait_for(lambda: self._times, PATIENCE):
                raise Failed(f"the client did not dial again within {PATIENCE:.0f} s")
            return self._times[0]

    def close(self) -> None:
        """Listen no more, and cut."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()


def _join(one: socket.socket, target: tuple[str, int]) -> None:
    """Forward both ways until either side ends; both end then. Few bytes pass: it may wait."""
    with one, contextlib.suppress(OSError), socket.create_connection(target) as other:
        poll = select.poll()
        sinks = {one.fileno(): (one, other), other.fileno(): (other, one)}
        for sock in (one, other):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(sock, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                source, sink = sinks[descriptor]
                data = source.recv(1 << 18)
                if not data:
                    return
                sink.sendall(data)


@contextmanager
def forwarder(host: str, port: int, target: int) -> Iterator[Forwarder]:
    """A forwarder that runs, from one port of an address to another."""
    forwards = Forwarder(host, port, target)
    thread = threading.Thread(target=forwards.run)
    thread.start()
    try:
        yield forwards
    finally:
        forwards.close()
        thread.join()


def recover(peer: Peer, http: Service, cuts: int) -> list[tuple[float, float]]:
    """Cut the link so often; seconds from the client's next dial to a visitor's first byte.

    And, second, from the cut itself: that includes the delay that the client is configured with.
    """
    host = own_address()
    port, server_port = free_ports(2)
    found = []
    with (
        forwarder(host, port, server_port) as forwards,
        tunnel(peer, [http], host=host, server_port=server_port, through=port) as running,
    ):
        for _ in range(cuts):
            cut = forwards.cut()
            dialled = forwards.redialled()
            served = first_answer(host, running.port(http))
            found.append((served - dialled, served - cut))
    return found


def first_answer(host: str, port: int) -> float:
    """Send visitors, one after the other without waiting, until one is answered; returns when."""
    poll = selectors.DefaultSelector()
    deadline = time.perf_counter() + PATIENCE
    try:
        while (now := time.perf_counter()) < deadline:
            if len(poll.get_map()) < MOST_VISITORS:
                _visit(poll, host, port)
            while (left := now + STAGGER - time.perf_counter()) > 0:
                if any(_serve(poll, key) for key, _ in poll.select(left)):
                    return time.perf_counter()
        raise Failed(f"no visitor was served within {PATIENCE:.0f} s of the next dial")
    finally:
        for key in list(poll.get_map().values()):
            key.data.close()
        poll.close()


def _visit(poll: selectors.BaseSelector, host: str, port: int) -> None:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((host, port))
    poll.register(sock, selectors.EVENT_WRITE, sock)


def _serve(poll: selectors.BaseSelector, key: selectors.SelectorKey) -> bool:
    """Go on with a visitor; True if it was answered."""
    sock = key.data
    try:
        if key.events == selectors.EVENT_WRITE:
            sock.sendall(GET)
            poll.modify(sock, selectors.EVENT_READ, sock)
            return False
        answered = bool(sock.recv(1))
    except OSError:
        answered = False
    poll.unregister(sock)
    sock.close()
    return answered


def free(peer: Peer, http: Service, count: int) -> float:
    """Seconds from `kill -9` of the client until all its published ports can be bound again."""
    with tunnel(peer, [http] * count) as running:
        assert running.place is not None
        waiting = [published for published, _ in running.place.published]
        begin = time.perf_counter()
        for program in running.clients:
            program.kill()
        while waiting:
            while waiting and can_bind(running.host, waiting[-1]):
                waiting.pop()
            if time.perf_counter() - begin > PATIENCE:
                raise Failed(f"{len(waiting)} ports are still bound after {PATIENCE:.0f} s")
            time.sleep(0.0002)  # the machine's few cores have more to do than to be asked
        return time.perf_counter() - begin


def can_bind(host: str, port: int) -> bool:
    """True if a new listener can be bound there: SO_REUSEADDR, no SO_REUSEPORT."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen()
        except OSError:
            return False
    return True
