"""How quickly ports are freed and sessions made, and what a session weighs.

`python -m tests.benchmarks.bench_sessions` takes between one and two minutes and prints a table.
Servers and clients are real processes on loopback. Times are milliseconds, weights are KiB of
unique set size (what the process could not share): the difference that many make, divided.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import attrs
import trio

from tests.benchmarks.processes import (
    HOST,
    Process,
    Site,
    can_bind,
    free_ports,
    prepared_client,
    progress,
    quantile,
    site,
)
from tunnel.client.session import hold_session
from tunnel.client.state import Client
from tunnel.model import Address

KILLS = 30
PROXIES = 100
VISITORS = 200
CONNECTS = 40
SLOW_CONNECTS = 15
ROUND_TRIP = 0.050
LINKS = 100
LISTENERS = 500
CONNECTIONS = 2000


@attrs.frozen
class Figure:
    """A line of the table: something measured, and how it should be."""

    what: str
    value: float
    unit: str
    goal: float

    def __str__(self) -> str:
        verdict = "" if self.value <= self.goal else "  over"
        return f"{self.what:<60}{self.value:8.1f} {self.unit:<4}{self.goal:8.0f}{verdict}"


# --- Ports freed ------------------------------------------------------------------------------


def ports_freed() -> Iterator[Figure]:
    """Kill a client with proxies and visitors, and try to bind its ports until all are free."""
    freed, logged = [], []
    ports = free_ports(PROXIES)
    with site() as here:
        server = here.server()
        _, service = here.service()
        for number in range(KILLS):
            client = here.client([(port, service) for port in ports])
            with visitors(ports, VISITORS):
                binding, log = kill_and_watch(client, server, ports)
            freed.append(1000 * binding)
            logged.append(1000 * log)
            client.close()
            if number % 10 == 9:
                progress(f"killed a client {number + 1} times")
    kind = f"{PROXIES} ports, {VISITORS} visitors"
    yield Figure(f"kill -9 to all ports free, p50 ({kind})", quantile(freed, 0.5), "ms", 20)
    yield Figure(f"kill -9 to all ports free, p99 of {KILLS}", quantile(freed, 0.99), "ms", 50)
    yield Figure('kill -9 to "Client disconnected", p50', quantile(logged, 0.5), "ms", 20)
    yield Figure(
        f'kill -9 to "Client disconnected", p99 of {KILLS}', quantile(logged, 0.99), "ms", 50
    )


def kill_and_watch(client: Process, server: Process, ports: list[int]) -> tuple[float, float]:
    """Seconds from the kill until every port can be bound, and until the server has said so."""
    waiting = list(ports)
    freed = logged = 0.0
    begin = time.perf_counter()
    client.kill()
    while not (freed and logged):
        while waiting and can_bind(waiting[-1]):
            waiting.pop()
        now = time.perf_counter() - begin
        if not waiting and not freed:
            freed = now
        if not logged and server.said("Client disconnected"):
            logged = now
        time.sleep(0.0002)  # the machine's few cores have more to do than to be asked
        if now > 10:
            raise RuntimeError(f"still bound after ten seconds: {waiting}")
    return freed, logged


@contextmanager
def visitors(ports: list[int], count: int) -> Iterator[None]:
    """So many visitors, spread over the ports; each has heard the service's greeting."""
    with ExitStack() as stack:
        for first in range(0, count, 100):
            burst = [
                stack.enter_context(socket.create_connection((HOST, ports[n % len(ports)]), 10))
                for n in range(first, min(first + 100, count))
            ]
            for visitor in burst:
                assert visitor.recv(1)
        yield


# --- Sessions made ----------------------------------------------------------------------------


def sessions_made() -> Iterator[Figure]:
    """From dialling to `configured`: over loopback, and with a round trip that counts."""
    with site() as here:
        server = here.server()
        path = here.client_file([(0, 9)])
        client = prepared_client(path)
        near = trio.run(connect_often, client, server, CONNECTS)
        progress("measured how quickly a session is made")
        far = trio.run(connect_far, client, here, server)
        progress("the same over a slow network")
    yield Figure("TCP connect to configured, p50 (1 proxy)", quantile(near, 0.5), "ms", 25)
    trip = round(1000 * ROUND_TRIP)
    yield Figure(f"the same over a {trip} ms round trip, p50", quantile(far, 0.5), "ms", 300)


async def connect_often(client: Client, server: Process, count: int) -> list[float]:
    """Milliseconds from the dial to the session's being up, so many times."""
    return [await connect_once(client, server, attempt) for attempt in range(1, count + 1)]


async def connect_once(client: Client, server: Process, attempt: int) -> float:
    begin = time.perf_counter()
    took = 0.0

    def connected() -> None:
        nonlocal took
        took = time.perf_counter() - begin
        scope.cancel()

    with trio.CancelScope() as scope:
        await hold_session(client, attempt, connected)
    while not server.said("Client disconnected"):  # noqa: ASYNC110  # another process says it
        await trio.sleep(0.001)  # the event is another process's
    return 1000 * took


async def connect_far(client: Client, here: Site, server: Process) -> list[float]:
    """The same through a relay that delays."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        port = listener.socket.getsockname()[1]

        async def relay(near: trio.SocketStream) -> None:
            far = await trio.open_tcp_stream(HOST, here.server_port)
            async with near, far, trio.open_nursery() as pumps:
                # The kernel shook hands at once: the client owes that round trip.
                pumps.start_soon(delay, near, far, ROUND_TRIP)
                pumps.start_soon(delay, far, near, 0.0)

        nursery.start_soon(trio.serve_listeners, relay, [listener])
        dial = attrs.evolve(client.settings.dial, servers=(Address(HOST, port),))
        slow = attrs.evolve(client, settings=attrs.evolve(client.settings, dial=dial))
        times = await connect_often(slow, server, SLOW_CONNECTS)
        nursery.cancel_scope.cancel()
    return times


async def delay(source: trio.SocketStream, sink: trio.SocketStream, debt: float) -> None:
    """Hand on what comes half a round trip later; the first bytes later still."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](100)

    async def hand_on() -> None:
        async with receive:
            async for due, data in receive:
                await trio.sleep_until(due)
                await sink.send_all(data)
        await sink.send_eof()

    begin = trio.current_time() + debt
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_on)
            async with send:
                async for data in source:
                    now = max(begin, trio.current_time())
                    await send.send((now + ROUND_TRIP / 2, bytes(data)))
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the session is over


# --- What things weigh ------------------------------------------------------------------------


@attrs.frozen
class Scales:
    """The processes whose memory is compared."""

    server: Process
    client: Process

    def weigh(self, count: int, load: Callable[[], None]) -> tuple[float, float]:
        """KiB that each of `count` things costs the server, and the client."""
        before = self.server.memory(), self.client.memory()
        load()
        time.sleep(0.3)  # what was allocated in passing is given back
        after = self.server.memory(), self.client.memory()
        server, client = (
            (now - then) / 1024 / count for then, now in zip(before, after, strict=True)
        )
        return server, client


def weights() -> Iterator[Figure]:
    """A link, a listener, an idle connection: on both sides."""
    with site() as here:
        server = here.server()
        client = here.run("-m", "tests.benchmarks.links", str(here.client_file([(0, 9)])))
        scales = Scales(server, client)

        def more(links: int, proxies: int) -> None:
            client.tell(f"{links} {proxies}")
            client.wait_for("done")

        more(20, 1)  # what comes only once has come
        one = scales.weigh(LINKS, lambda: more(LINKS, 1))
        progress(f"weighed {LINKS} links")
        many = scales.weigh(LISTENERS, lambda: more(2, LISTENERS // 2))
        progress(f"weighed {LISTENERS} listeners")
    # The two links that came with the listeners, and the listener that came with each link.
    listener = [
        (all_of - 2 / LISTENERS * link) / (1 - 2 / LISTENERS)
        for link, all_of in zip(one, many, strict=True)
    ]
    link = [both - own for both, own in zip(one, listener, strict=True)]
    yield from both_sides("a link", link, 16)
    yield from both_sides("a listener (a proxy)", listener, 8)
    yield from both_sides("an idle connection", connection_weights(), 4)


def connection_weights() -> tuple[float, float]:
    """What a visitor who says nothing costs."""
    (port,) = free_ports(1)
    with site() as here:
        server = here.server()
        _, service = here.service()
        scales = Scales(server, here.client([(port, service)]))
        with ExitStack() as stack:
            stack.enter_context(visitors([port], 300))

            def load() -> None:
                stack.enter_context(visitors([port], CONNECTIONS))

            weights = scales.weigh(CONNECTIONS, load)
    progress(f"weighed {CONNECTIONS} connections")
    return weights


def both_sides(
    what: str, sizes: list[float] | tuple[float, float], goal: float
) -> Iterator[Figure]:
    """Two lines of the table."""
    for side, size in zip(("server", "client"), sizes, strict=True):
        yield Figure(f"memory of {what}, {side}", size, "KiB", goal)


def main() -> None:
    """Measure and print all, or the parts that the command line names."""
    parts = {"ports": ports_freed, "connect": sessions_made, "memory": weights}
    figures = [figure for name in sys.argv[1:] or parts for figure in parts[name]()]
    print(f"{'':<60}{'is':>8} {'':<4}{'goal':>8}")
    for figure in figures:
        print(figure)
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg()[:2])
    print(f"({os.cpu_count()} cores; processes that wanted one, last minute and last five: {busy})")


if __name__ == "__main__":
    main()
