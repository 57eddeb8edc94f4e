"""A process that stands still (SIGSTOP) while its kernel answers; and a link that is slow."""

from __future__ import annotations

import pytest
import trio

from tests.e2e.rig import ask, is_free, visit
from tests.e2e.rig import service as local
from tests.faults.lab import fault_lab, freeze, thaw
from tests.rig import read_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

#: What a busy machine may add, in seconds.
LATE = 1.0


@pytest.fixture
def keepalive(times):
    """What everybody has in the full profile, a tenth of it in the short one."""
    return {
        "keepalive_interval": times(5.0, 0.5),
        "keepalive_timeout": times(5.0, 0.5),
    }


def detection(keepalive) -> float:
    return keepalive["keepalive_interval"] + keepalive["keepalive_timeout"]


async def test_a_frozen_server(tmp_path, certificate, carrier, keepalive):
    async with fault_lab(tmp_path, certificate, carrier) as there, local() as port:
        client = keepalive | {"connect_timeout": 1.0}
        await there.start({"local_port": port}, server=keepalive, client=client)
        began = trio.current_time()
        freeze(there.server)
        line = await there.client.wait_for("Connection lost")
        assert line["reason"] == "no sign of life"
        assert trio.current_time() - began < detection(keepalive) + LATE
        await there.client.wait_for("Connection lost")  # its kernel accepts, and nothing answers
        thaw(there.server)
        await there.server.wait_for("Client disconnected")
        await there.back()
        assert await ask(there.address) == b"hello"
        one_session(there)


async def test_a_frozen_client(tmp_path, certificate, carrier, keepalive):
    async with fault_lab(tmp_path, certificate, carrier) as there, local() as port:
        await there.start({"local_port": port}, server=keepalive, client=keepalive)
        began = trio.current_time()
        freeze(there.client)
        line = await there.server.wait_for("Client disconnected")
        assert line["reason"] == "no sign of life"
        assert trio.current_time() - began < detection(keepalive) + LATE
        assert is_free(there.address)
        thaw(there.client)
        await there.client.wait_for("Connection lost")
        await there.back()
        assert await ask(there.address) == b"hello"
        one_session(there)


def one_session(there) -> None:
    events = there.server.events()
    assert events.count("Client connected") - events.count("Client disconnected") == 1


async def test_frozen_for_less_than_that_is_nothing(tmp_path, certificate, keepalive):
    async with fault_lab(tmp_path, certificate) as there, local() as port:
        await there.start({"local_port": port}, server=keepalive, client=keepalive)
        async with await visit(there.address) as visitor:
            for process in (there.server, there.client):
                freeze(process)
                await visitor.send_all(b"hello")
                await trio.sleep(keepalive["keepalive_timeout"] / 2)
                thaw(process)
                assert await visitor.receive_some() == b"hello"
        assert "Connection lost" not in there.client.events()
        assert "Client disconnected" not in there.server.events()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_link_of_a_byte_now_and_then_is_alive(
    tmp_path, certificate, keepalive, times, busy
):
    """A ping takes half a minute on it; but any byte is life."""
    async with fault_lab(tmp_path, certificate) as there, local() as port:
        await there.start({"local_port": port}, server=keepalive, client=keepalive)
        there.proxy.drip(1, times(1.0, 0.1))
        async with trio.open_nursery() as nursery:
            if busy:
                nursery.start_soon(send_for_ever, there.address)
            await trio.sleep(times(60, 6))
            nursery.cancel_scope.cancel()
        there.proxy.drip(0, 0)
        assert await ask(there.address) == b"hello"
        assert "Connection lost" not in there.client.events()
        assert "Client disconnected" not in there.server.events()


async def send_for_ever(address) -> None:
    async with await visit(address) as visitor:
        while True:
            await visitor.send_all(bytes(1000))
            await visitor.receive_some()


@pytest.mark.parametrize("wanted", [b"d", b"u", b"b"], ids=["download", "upload", "both"])
async def test_a_saturated_slow_link_is_alive(tmp_path, certificate, keepalive, times, wanted):
    """128 kbit/s and 2 s of round trip; ten times that in the short profile, and a tenth."""

    async def handler(stream):
        wanted = await stream.receive_some(1)
        async with trio.open_nursery() as nursery:
            if wanted in b"db":
                nursery.start_soon(send_zeros, stream)
            if wanted in b"ub":
                nursery.start_soon(read_all, stream)

    async with fault_lab(tmp_path, certificate) as there, local(handler) as port:
        there.queue = 65536
        await there.start({"local_port": port}, server=keepalive, client=keepalive)
        there.proxy.delay(times(1.0, 0.1))
        there.proxy.drip(times(1600, 3200), times(0.1, 0.02))
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                visitor = await visit(there.address)
                await visitor.send_all(wanted)
                nursery.start_soon(handler_of_visitor, visitor, wanted)
            await trio.sleep(times(60, 6))
            assert "Connection lost" not in there.client.events()
            assert "Client disconnected" not in there.server.events()
            there.proxy.drip(0, 0)
            nursery.cancel_scope.cancel()


async def handler_of_visitor(visitor, wanted) -> None:
    async with visitor, trio.open_nursery() as nursery:
        if wanted in b"db":
            nursery.start_soon(read_all, visitor)
        if wanted in b"ub":
            nursery.start_soon(send_zeros, visitor)


async def send_zeros(stream) -> None:
    try:
        while True:
            await stream.send_all(bytes(16384))
    except trio.BrokenResourceError:
        pass
