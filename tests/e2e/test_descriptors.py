"""Programs that run out of descriptors: who came in stays, who comes later waits."""

from __future__ import annotations

import contextlib
import os
import resource

import pytest
import trio

from tests.e2e.rig import PATIENCE, lab, published, service, visit
from tests.rig import read_all

pytestmark = pytest.mark.e2e


def descriptors(process):
    return {int(name) for name in os.listdir(f"/proc/{process.process.pid}/fd")}


def leave(process, count):
    """Let the process open so many descriptors more."""
    used = descriptors(process)
    limit = free = 0
    while free < count or limit in used:
        free += limit not in used
        limit += 1
    _, hard = resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE, (limit, hard))


@contextlib.contextmanager
def low_limit(soft):
    """What is started in the block may open so few; it may raise that."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def say(visitor, data=b"x"):
    """Send something and hear it back."""
    await visitor.send_all(data)
    await hear(visitor, data)


async def hear(visitor, data):
    heard = b""
    with trio.fail_after(PATIENCE):
        while len(heard) < len(data):
            heard += await visitor.receive_some() or pytest.fail("it has ended")
    assert heard == data


async def finish(visitor):
    """Go, with a clean end, which frees what the connection has on both sides."""
    with trio.fail_after(PATIENCE):
        await visitor.send_eof()
        assert await read_all(visitor) == b""


class Visitors(contextlib.AsyncExitStack):
    """Whoever connects, until the end of the block at the latest."""

    async def wait(self, address):
        """One who connects and says "w", which the system takes for the server."""
        visitor = await self.enter_async_context(await visit(address))
        await visitor.send_all(b"w")
        return visitor

    async def come(self, address):
        """One who is served."""
        visitor = await self.wait(address)
        await hear(visitor, b"w")
        return visitor


def complaints(process):
    return [line for line in process.lines if line["event"] == "Cannot accept"]


async def test_more_visitors_than_the_soft_limit(tmp_path, certificate):
    """Both programs raise the limit that they were started with."""
    with low_limit(40):
        async with lab(tmp_path, certificate) as place:
            server = await place.start_server()
            client = await place.start_client({"local_port": 9})
            await published(client)
            for program in (server, client):
                soft, hard = resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE)
                assert soft == hard > 40


async def test_visitors_of_a_server_without_descriptors_wait(tmp_path, certificate, carrier):
    async with (
        lab(tmp_path, certificate, carrier) as place,
        service() as port,
        Visitors() as visitors,
    ):
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        here = [await visitors.come(address)]
        leave(server, 3)
        here += [await visitors.come(address) for _ in range(3)]

        late = [await visitors.wait(address) for _ in range(3)]
        line = await server.wait_for("Cannot accept")
        assert (line["level"], line["proxy"]) == ("warning", "proxy0")
        assert line["error"] == "Too many open files"
        for visitor in here:
            await say(visitor)

        for visitor in late:
            await finish(here.pop())
            await hear(visitor, b"w")
        for visitor in [*here, *late]:
            await say(visitor)
        await finish(here.pop())
        await visitors.come(address)

        assert len(complaints(server)) == 1
        assert "Client disconnected" not in server.events()
        assert "Connection lost" not in client.events()


async def test_clients_of_a_server_without_descriptors_wait(tmp_path, certificate):
    async with (
        lab(tmp_path, certificate) as place,
        service() as port,
        Visitors() as visitors,
    ):
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port}, name="first")
        here = [await visitors.come(address) for _ in range(4)]
        leave(server, 0)

        second = await place.start_client({"local_port": port}, name="second")
        line = await server.wait_for("Cannot accept")
        assert "proxy" not in line
        for visitor in here:
            await say(visitor)
        assert "Connected" not in second.events()

        # For the link, the port, the first visitor; and some, so that nothing else is short.
        leave(server, 10)
        await visitors.come(await published(second))
        for visitor in here:
            await say(visitor)
        assert len(complaints(server)) == 1
        assert "Connection lost" not in client.events()


async def test_visitors_of_a_client_without_descriptors_wait(tmp_path, certificate, carrier):
    """They wait as for any local service that cannot be reached, and the session goes on."""
    async with (
        lab(tmp_path, certificate, carrier) as place,
        service() as port,
        Visitors() as visitors,
    ):
        await place.start_server()
        client, [address] = await place.publish(
            {"local_port": port}, local_connect_retries=1000, local_retry_delay_ms=20
        )
        here = [await visitors.come(address)]
        leave(client, 2)
        here += [await visitors.come(address) for _ in range(2)]

        late = await visitors.wait(address)
        line = await client.wait_for("Local service unreachable")
        assert line["reason"] == "Too many open files"
        for visitor in here:
            await say(visitor)

        await finish(here.pop())
        await hear(late, b"w")
        for visitor in here:
            await say(visitor)
        assert client.events().count("Local service unreachable") == 1
        assert "Connection lost" not in client.events()
