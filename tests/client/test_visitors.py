"""Local ports that lead to another client's proxy, with a real server and real sockets."""

import hashlib
import logging
import random

import pytest
import trio

from tests.rig import is_free, own_host, proxy, read_all, visit, world
from tunnel.client.visitors import LocalVisitor
from tunnel.handles import ClientState


def leads_to(name="db", publish_port=0):
    return LocalVisitor(name, publish_port, own_host(), 0)


async def ready(visitor):
    """Where it listens, once it does."""
    with trio.fail_after(10):
        while not visitor.addresses:
            await trio.lowlevel.checkpoint()
    return visitor.addresses[0]


@pytest.fixture(params=["hub", "relay"])
async def tunnel(request, certificate):
    async with world(certificate, request.param) as there:
        await there.start_server()
        yield there


async def test_a_guest_reaches_the_other_clients_service(tunnel):
    service = await tunnel.start_service()
    await tunnel.start_client(proxy(service, name="db"))
    visitor = leads_to()
    await tunnel.start_client(visitors=(visitor,))
    async with await visit(await ready(visitor)) as guest:
        await guest.send_all(b"question")
        await guest.send_eof()
        assert await read_all(guest) == b"question"
    while visitor.counters.active:
        await trio.lowlevel.checkpoint()
    statistics = visitor.counters.statistics()
    assert (statistics.total, statistics.delivered, statistics.read) == (1, 8, 8)


async def test_megabytes_both_ways_with_digests(tunnel):
    size = 16 << 20
    there = random.Random(1).randbytes(size)
    service = await tunnel.start_service()
    await tunnel.start_client(proxy(service, name="db"))
    visitor = leads_to()
    await tunnel.start_client(visitors=(visitor,))
    async with await visit(await ready(visitor)) as guest:

        async def send():
            await guest.send_all(there)
            await guest.send_eof()

        back = hashlib.sha256()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for piece in guest:
                back.update(piece)
    assert back.digest() == hashlib.sha256(there).digest()


async def test_many_guests(tunnel):
    service = await tunnel.start_service()
    await tunnel.start_client(proxy(service, name="db"))
    visitor = leads_to()
    await tunnel.start_client(visitors=(visitor,))
    address = await ready(visitor)

    async def one(number):
        async with await visit(address) as guest:
            await guest.send_all(str(number).encode())
            await guest.send_eof()
            assert await read_all(guest) == str(number).encode()

    for first in range(0, 200, 50):
        async with trio.open_nursery() as nursery:
            for number in range(first, first + 50):
                nursery.start_soon(one, number)


async def test_a_target_that_is_away_is_a_reset_until_it_is_back(tunnel, caplog):
    caplog.set_level(logging.WARNING)
    service = await tunnel.start_service()
    visitor = leads_to()
    visiting = await tunnel.start_client(visitors=(visitor,))
    address = await ready(visitor)
    for _ in range(5):
        async with await visit(address) as guest:
            with pytest.raises(trio.BrokenResourceError):
                await read_all(guest)
        async with trio.open_nursery() as nursery:
            lives, tunnel.nursery = tunnel.nursery, nursery
            await tunnel.start_client(proxy(service, name="db"))
            tunnel.nursery = lives
            async with await visit(address) as guest:
                await guest.send_all(b"x")
                assert await guest.receive_some() == b"x"
            nursery.cancel_scope.cancel()
        while tunnel.server.targets:
            await trio.lowlevel.checkpoint()
    assert visiting.state.value is ClientState.CONNECTED
    events = [record.getMessage() for record in caplog.records]
    assert "Visit refused" in events  # by the server, and here
    assert {record.name for record in caplog.records if record.getMessage() == "Visit refused"} == {
        "tunnel.client.visitors",
        "tunnel.server.visitors",
    }


async def test_the_local_port_is_free_when_the_session_is_over(tunnel):
    visitor = leads_to()
    async with trio.open_nursery() as nursery:
        lives, tunnel.nursery = tunnel.nursery, nursery
        await tunnel.start_client(visitors=(visitor,))
        tunnel.nursery = lives
        address = await ready(visitor)
        assert not is_free(address)
        nursery.cancel_scope.cancel()
    assert is_free(address)


async def test_a_port_that_is_taken_is_listened_on_when_it_is_free(tunnel, caplog, autojump_clock):
    caplog.set_level(logging.WARNING)
    with trio.socket.socket() as other:
        await other.bind((own_host(), 0))
        other.listen()
        host, port = other.getsockname()
        visitor = LocalVisitor("db", 0, host, port)
        await tunnel.start_client(visitors=(visitor,))
        await trio.sleep(30)
        assert not visitor.addresses
    await trio.sleep(60)
    assert visitor.addresses
    said = [record for record in caplog.records if record.getMessage() == "Visitor cannot listen"]
    assert len(said) == 1


async def test_a_proxy_for_visitors_only_has_no_port(tunnel):
    service = await tunnel.start_service()
    owner = proxy(service, 5432, name="db", visitors_only=True)
    await tunnel.start_client(owner)
    assert owner.up
    assert not owner.addresses
    assert not tunnel.server.registry._ports
    visitor = leads_to(publish_port=5432)
    await tunnel.start_client(visitors=(visitor,))
    async with await visit(await ready(visitor)) as guest:
        await guest.send_all(b"x")
        assert await guest.receive_some() == b"x"
