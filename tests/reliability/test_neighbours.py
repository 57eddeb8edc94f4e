"""Visitors and services that behave badly harm their own connection and no other.

A probe asks over a connection of its own all the time: it never waits a second, and never fails.
"""

from __future__ import annotations

import contextlib
import socket
from contextlib import asynccontextmanager

import pytest
import trio

from tests.e2e.rig import ask, reset, visit
from tests.e2e.rig import service as local
from tests.faults.lab import Probe, crowd, fault_lab
from tests.faults.proxy import FaultProxy
from tests.rig import echo
from tunnel.limits import MIB

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

#: The longest that a neighbour may wait for an answer, in seconds.
LONGEST = 1.0


@asynccontextmanager
async def neighbours(tmp_path, certificate, carrier, port):
    """Two proxies, one to `port`, one to an echo that a probe talks to all the while."""
    async with fault_lab(tmp_path, certificate, carrier) as there, local() as quiet:
        address, other = await there.start({"local_port": port}, {"local_port": quiet})
        probe = Probe(other)
        async with trio.open_nursery() as nursery:
            await nursery.start(probe.run)
            there.address = address
            yield there
            await probe.wait_answers(10)  # it is still there
            nursery.cancel_scope.cancel()
        print(f"the probe waited {1000 * probe.longest:.0f} ms at most, {probe.answers} answers")
        assert probe.longest < LONGEST
        assert "Connection lost" not in there.client.events()


async def zeros(stream):
    try:
        while True:
            await stream.send_all(bytes(65536))
    except trio.BrokenResourceError:
        pass


async def test_slow_visitors(tmp_path, certificate, carrier, times):
    async with local(zeros) as port, neighbours(tmp_path, certificate, carrier, port) as there:
        async with crowd(there.address, 20) as visitors:
            for _ in range(times(100, 20)):
                for visitor in visitors:
                    assert await visitor.receive_some(100)
                await trio.sleep(0.1)


async def test_a_slow_local_service(tmp_path, certificate, carrier, times):
    async def handler(stream):
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(1000):
                await stream.receive_some(100)
                await trio.sleep(0.1)

    async with local(handler) as port, neighbours(tmp_path, certificate, carrier, port) as there:
        async with crowd(there.address, 20) as visitors, trio.open_nursery() as nursery:
            for visitor in visitors:
                nursery.start_soon(zeros, visitor)
            await trio.sleep(times(10, 2))
            nursery.cancel_scope.cancel()


async def test_visitors_that_vanish_without_a_word(tmp_path, certificate, carrier, times):
    """Behind a network that stopped carrying for them, with a download under way."""
    async with local(zeros) as port, neighbours(tmp_path, certificate, carrier, port) as there:
        server, client = there.server.memory, there.client.memory
        network = FaultProxy(there.address)
        through = await there.place.nursery.start(network.run)
        async with crowd(through, 20) as visitors:
            for visitor in visitors:
                await visitor.receive_some()
            network.stall()
            await trio.sleep(times(10, 2))
            network.reset()
        # A window, a queue and what Python makes of them for each, at both ends.
        print(f"for 20: {(there.server.memory - server) / MIB:.0f} MiB at the server,", end=" ")
        print(f"{(there.client.memory - client) / MIB:.0f} MiB at the client")
        assert there.server.memory - server < 128 * MIB
        assert there.client.memory - client < 128 * MIB


async def test_a_service_that_accepts_and_never_answers(tmp_path, certificate, carrier, times):
    async def handler(_stream):
        await trio.sleep_forever()

    async with local(handler) as port, neighbours(tmp_path, certificate, carrier, port) as there:
        async with crowd(there.address, 300, says=b"hello?"):
            await trio.sleep(times(10, 2))


async def test_a_service_that_does_not_even_accept(tmp_path, certificate, carrier, times):
    """Its kernel's queue is full: the handshake is dropped, and each attempt waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):  # this one fills the queue
            async with neighbours(tmp_path, certificate, carrier, address[1]) as there:
                async with crowd(there.address, 100, says=b"hello?"):
                    await trio.sleep(times(10, 2))


async def test_a_service_that_is_restarted_in_the_middle(tmp_path, certificate, carrier):
    async def handler(stream):
        if await stream.receive_some(1) == b"r":
            reset(stream)
        await echo(stream)

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with neighbours(tmp_path, certificate, carrier, port) as there:
        async with trio.open_nursery() as first:
            first.start_soon(trio.serve_listeners, handler, [listener])
            visitor = await visit(there.address)
            await visitor.send_all(b"xin the middle")
            assert await visitor.receive_some() == b"in the middle"
            first.cancel_scope.cancel()  # its connections and its listener are closed
        assert await visitor.receive_some() in (b"", b"\0")  # an end of the service is an end
        await visitor.aclose()
        with pytest.raises(trio.BrokenResourceError):  # nobody is there: a reset
            await ask(there.address)
        async with trio.open_nursery() as second:
            await second.start(_listen_again, handler, port)
            assert await ask(there.address, b"xagain") == b"again"
            second.cancel_scope.cancel()


async def _listen_again(handler, port, *, task_status):
    await trio.serve_tcp(handler, port, host="127.0.0.1", task_status=task_status)


async def test_visitors_that_reset(tmp_path, certificate, carrier, times):
    async with local(zeros) as port, neighbours(tmp_path, certificate, carrier, port) as there:
        for _ in range(times(1000, 100)):
            visitor = await visit(there.address)
            await visitor.receive_some(1)
            reset(visitor)
