"""A process with too few descriptors or too little memory goes on serving."""

from __future__ import annotations

import contextlib

import pytest
import trio

from tests.e2e.rig import ask, visit
from tests.e2e.rig import service as local
from tests.faults.lab import crowd, descriptors, fault_lab, limit_descriptors, limit_memory
from tests.rig import read_all
from tunnel.limits import MIB, WINDOW_POOL
from tunnel.model import Address

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.mark.parametrize("victim", ["server", "client"])
async def test_no_descriptor_left(tmp_path, certificate, carrier, victim):
    """Visitors beyond it wait or are reset; those that are served go on, and then all is well."""
    async with fault_lab(tmp_path, certificate, carrier) as there, local() as port:
        await there.start({"local_port": port})
        process = {"server": there.server, "client": there.client}[victim]
        async with await visit(there.address) as early:
            await early.send_all(b"x")
            assert await early.receive_some() == b"x"
            limit_descriptors(process, descriptors(process) + 20)
            async with crowd(there.address, 60, says=b"x") as everybody:
                await one_is_served(everybody)
                await early.send_all(b"still served")
                assert await early.receive_some() == b"still served"
            with trio.fail_after(10):
                while True:
                    with contextlib.suppress(trio.BrokenResourceError):
                        if await ask(there.address) == b"hello":
                            break
        assert "Connection lost" not in there.client.events()


async def test_no_descriptor_left_for_the_first_visitors(tmp_path, certificate, carrier):
    """Whatever is opened only when the first one comes cannot be opened either."""
    async with fault_lab(tmp_path, certificate, carrier) as there, local() as port:
        await there.start({"local_port": port})
        before = descriptors(there.client)
        for more in range(4):
            limit_descriptors(there.client, before + more)
            async with crowd(there.address, 20) as everybody:
                await most_are_reset(everybody, 20 - more)
        limit_descriptors(there.client, 1000)
        assert await ask(there.address) == b"hello"
        assert "Connection lost" not in there.client.events()


async def most_are_reset(visitors, least: int) -> None:
    resets, done = 0, trio.Event()

    async def listen(visitor):
        nonlocal resets
        try:
            await visitor.send_all(b"x")
            await read_all(visitor)
        except trio.BrokenResourceError:
            resets += 1
            if resets >= least:
                done.set()

    async with trio.open_nursery() as nursery:
        for visitor in visitors:
            nursery.start_soon(listen, visitor)
        with trio.fail_after(20):
            await done.wait()
        nursery.cancel_scope.cancel()


async def one_is_served(visitors) -> None:
    served = trio.Event()

    async def listen(visitor):
        with contextlib.suppress(trio.BrokenResourceError):
            if await visitor.receive_some():
                served.set()

    async with trio.open_nursery() as nursery:
        for visitor in visitors:
            nursery.start_soon(listen, visitor)
        with trio.fail_after(10):
            await served.wait()
        nursery.cancel_scope.cancel()


async def test_strangers_when_no_descriptor_is_left(tmp_path, certificate):
    """The client that is connected does not notice, and another connects when they are gone."""
    async with fault_lab(tmp_path, certificate) as there, local() as port:
        await there.start({"local_port": port})
        limit_descriptors(there.server, descriptors(there.server) + 20)
        async with crowd(Address(there.place.host, there.place.server_port), 60):
            await there.server.wait_for("Cannot accept")
        assert await ask(there.address) == b"hello"
        _, [other] = await there.place.publish({"local_port": port}, name="other")
        assert await ask(other) == b"hello"
        assert "Connection lost" not in there.client.events()


async def test_a_ceiling_on_memory_that_slow_visitors_do_not_reach(
    tmp_path, certificate, carrier, times
):
    """A hundred who read nothing, of endless downloads: windows and queues are all they cost."""

    async def endless(stream):
        if await stream.receive_some(1) == b"q":
            await stream.send_all(b"quick")
            return
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(65536))

    async with fault_lab(tmp_path, certificate, carrier) as there, local(endless) as port:
        await there.start({"local_port": port})
        # 256 KiB for each, what windows may grow by, and what Python makes of it.
        for process in (there.server, there.client):
            limit_memory(process, 25 * MIB + WINDOW_POOL + 64 * MIB)
        async with crowd(there.address, 100, says=b"s"):
            await trio.sleep(times(20, 3))
            async with await visit(there.address) as visitor:
                await visitor.send_all(b"q")
                assert await read_all(visitor) == b"quick"
        assert "Connection lost" not in there.client.events()
        assert "MemoryError" not in repr(there.server.lines + there.client.lines)
