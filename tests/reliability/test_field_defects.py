"""What is known to break other tunnels does nothing here; each test has the number of its defect.

docs/reliability.md says what each defect is, and where those are tested that are not here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket

import pytest
import trio
import trio.testing

from tests.e2e.rig import reset, service
from tests.needs import needs_ipv6
from tests.rig import echo, own_host, proxy, read_all, visit, world
from tunnel.limits import MIB
from tunnel.model import Address, PortRange
from tunnel.protocol.messages import Bound
from tunnel.views import ClientState

pytestmark = pytest.mark.timeout(120)


async def silent(stream) -> None:
    await read_all(stream)


async def talk(stream, text: bytes = b"hello") -> None:
    await stream.send_all(text)
    answer = b""
    while len(answer) < len(text):
        answer += await stream.receive_some()
    assert answer == text


@contextlib.asynccontextmanager
async def visitors(address: Address, count: int):
    streams = [await visit(address) for _ in range(count)]
    try:
        yield streams
    finally:
        for stream in streams:
            stream.socket.close()


# --- Availability -----------------------------------------------------------------------------


async def test_d01_more_than_512_visitors_at_once(certificate, carrier):
    """One more stream than the multiplexer liked ended the whole session."""
    async with world(certificate, carrier) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service()))
        async with visitors(handle.statistics()[0].addresses[0], 600) as everybody:
            for visitor in everybody:
                await talk(visitor)
            for visitor in everybody:  # they are all still there
                await talk(visitor)
        assert handle.state.value is ClientState.CONNECTED


async def test_d02_visitors_who_get_no_answer_freeze_nobody(certificate, carrier):
    """257 silent connections were enough: streams were acknowledged with the first byte back."""
    async with world(certificate, carrier) as place:
        await place.start_server()
        quiet, loud = await place.start_service(silent), await place.start_service()
        handle = await place.start_client(proxy(quiet), proxy(loud, name="loud"))
        [first], [second] = (each.addresses for each in handle.statistics())
        async with visitors(first, 400):
            async with await visit(second) as visitor:
                await talk(visitor)


async def test_d03_one_that_says_nothing_does_not_block_the_others(certificate):
    """TLS was waited for in the accept loop, without a deadline."""
    async with world(certificate) as place:
        await place.start_server()
        port = await place.start_service()
        async with visitors(place.address, 3):
            with trio.fail_after(5):
                await place.start_client(proxy(port))


async def test_d05_notices_in_the_middle_of_bulk(certificate, caplog):
    """A control message was lost when something else came in the middle of it."""
    caplog.set_level(logging.INFO, "tunnel.client")
    async with world(certificate) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service()))
        [address] = handle.statistics()[0].addresses
        [session] = place.server.sessions.values()
        async with await visit(address) as visitor, trio.open_nursery() as nursery:
            nursery.start_soon(exchange_for_ever, visitor)
            while session.statistics().proxies[0].counters.read < MIB:
                await trio.lowlevel.checkpoint()
            before = caplog.messages.count("Proxy published")
            for number in range(200):
                # (The same address again would be no news.)
                session.say(Bound(0, (Address(address.host, 10_000 + number),)))
                await trio.lowlevel.checkpoint()
            while caplog.messages.count("Proxy published") < before + 200:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert handle.state.value is ClientState.CONNECTED


async def exchange_for_ever(stream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, stream)
        while True:
            await stream.send_all(bytes(65536))


# --- Correctness ------------------------------------------------------------------------------


async def test_d06_the_end_of_the_service_reaches_the_visitor_and_the_other_way(
    certificate, carrier
):
    """Replies that end with the connection hung, and so did services that read to the end."""
    heard = []

    async def handler(stream):
        await stream.send_all(b"reply")
        await stream.send_eof()
        heard.append(await read_all(stream))

    async with world(certificate, carrier) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service(handler)))
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            assert await read_all(visitor) == b"reply"
            await visitor.send_all(b"thanks")
        while not heard:
            await trio.lowlevel.checkpoint()
        assert heard == [b"thanks"]


async def test_d07_a_visitor_who_has_said_all_gets_the_whole_answer(certificate, carrier):
    """The first end of either direction dropped the other one: half a response."""
    answer = os.urandom(4 * MIB)

    async def handler(stream):
        assert await read_all(stream) == b"GET"
        await stream.send_all(answer)

    async with world(certificate, carrier) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service(handler)))
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            await visitor.send_all(b"GET")
            await visitor.send_eof()
            assert await read_all(visitor) == answer


async def test_d09_a_rejected_proxy_is_not_listened_for(certificate):
    """When some proxies were rejected, all of them were opened."""
    async with world(certificate) as place:
        port = await place.start_service()
        with socket.create_server(("127.0.0.1", 0)) as free:
            refused = free.getsockname()[1]
        allowed = (PortRange(1, refused - 1), PortRange(refused + 1, 65535))
        await place.start_server(allow_ports=allowed)
        handle = await place.start_client(proxy(port), proxy(port, refused, name="refused"))
        good, bad = handle.statistics()
        async with await visit(good.addresses[0]) as visitor:
            await talk(visitor)
        assert bad.addresses == ()
        with pytest.raises(OSError, match="fail"):
            await visit(Address("127.0.0.1", refused))


async def test_d10_the_same_name_at_two_clients(certificate):
    """Statistics went by the proxy's name alone: one client's end deleted the other's."""
    async with world(certificate) as place:
        await place.start_server()
        port = await place.start_service()
        stays = await place.start_client(proxy(port, name="web"))
        async with trio.open_nursery() as nursery:
            everything, place.nursery = place.nursery, nursery
            goes = await place.start_client(proxy(port, name="web"))
            for handle, times in ((stays, 3), (goes, 1)):
                for _ in range(times):
                    async with await visit(handle.statistics()[0].addresses[0]) as visitor:
                        await talk(visitor)
            place.nursery = everything
            nursery.cancel_scope.cancel()
        while len(place.server.sessions) > 1:
            await trio.lowlevel.checkpoint()
        [session] = place.server.sessions.values()
        [statistics] = session.statistics().proxies
        assert statistics.name == "web"
        assert statistics.counters.total == 3


async def test_d10_a_port_of_another_name_is_refused_at_once(certificate):
    """The same port under another name was accepted, and then fought for."""
    async with world(certificate) as place:
        await place.start_server()
        port = await place.start_service()
        first = await place.start_client(proxy(port, name="one"))
        [address] = first.statistics()[0].addresses
        second = await place.start_client(proxy(port, address.port, name="another"))
        assert second.statistics()[0].addresses == ()
        async with await visit(address) as visitor:
            await talk(visitor)


async def test_d11_one_port_on_two_addresses(certificate):
    """Visitors were dispatched by the port alone."""

    def says(text):
        async def handler(stream):
            await stream.send_all(text)

        return handler

    one, other = own_host(), own_host()
    async with world(certificate) as place:
        await place.start_server()
        first = proxy(await place.start_service(says(b"first")), publish_addr=one)
        handle = await place.start_client(first)
        port = handle.statistics()[0].addresses[0].port
        second = proxy(
            await place.start_service(says(b"second")), port, name="other", publish_addr=other
        )
        await place.start_client(second)
        for host, text in ((one, b"first"), (other, b"second")):
            async with await visit(Address(host, port)) as visitor:
                assert await read_all(visitor) == text


async def test_d15_a_service_that_fails_in_the_middle_is_not_tried_again(certificate, carrier):
    """The rest of the stream went to a new connection, which had not seen its beginning."""
    connections = []

    async def handler(stream):
        connections.append(await stream.receive_some(5))
        reset(stream)

    async with world(certificate, carrier) as place:
        await place.start_server()
        port = await place.start_service(handler)
        handle = await place.start_client(proxy(port, retries=3, retry_delay=0.0))
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            await visitor.send_all(b"begin")
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await visitor.send_all(b"and on")
                    await trio.lowlevel.checkpoint()
        assert connections == [b"begin"]


async def test_d16_no_visitor_gets_what_was_meant_for_another(certificate, carrier):
    """Connections to the service were used again, with the rest of a response still in them."""
    served = []

    async def handler(stream):
        question = await stream.receive_some()
        served.append(question)
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"for " + question + bytes(MIB))

    async with world(certificate, carrier) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service(handler)))
        [address] = handle.statistics()[0].addresses
        for number in range(20):
            async with await visit(address) as visitor:
                await visitor.send_all(b"%02d" % number)
                assert (await visitor.receive_some(6))[:6] == b"for %02d" % number
                # ... and away in the middle of the answer
        assert served == [b"%02d" % number for number in range(20)]


async def test_d19_no_retries_is_one_try(certificate):
    """Zero retries were a crash."""
    async with service() as port:
        pass
    async with world(certificate) as place:
        await place.start_server()
        handle = await place.start_client(proxy(port, retries=0))
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()
        assert handle.state.value is ClientState.CONNECTED


@needs_ipv6
async def test_d19_ipv6(certificate):
    """Addresses were pasted together with their ports, which IPv6 does not like."""
    async with world(certificate) as place:
        await place.start_server()
        port = await place.start_service()
        handle = await place.start_client(proxy(port, publish_addr="::1"))
        [address] = handle.statistics()[0].addresses
        assert address.host == "::1"
        async with await visit(address) as visitor:
            await talk(visitor)


# --- Resources --------------------------------------------------------------------------------


async def test_d25_reconnects_leave_no_task_and_no_descriptor(certificate, carrier):
    """Each reconnect leaked a task for every proxy."""
    async with world(certificate, carrier) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service()))

        def resources():
            return (
                trio.lowlevel.current_statistics().tasks_living,
                len(os.listdir("/proc/self/fd")),
            )

        before = None
        for _ in range(50):
            async with await visit(handle.statistics()[0].addresses[0]) as visitor:
                await talk(visitor)
            await trio.testing.wait_all_tasks_blocked(0.01)
            before = before or resources()
            assert resources() == before
            [session] = place.server.sessions.values()
            session.link.lose("cut by the test")
            await handle.state.wait_transition()
            await handle.state.wait_value(ClientState.CONNECTED)


async def test_d26_no_connection_to_the_service_without_a_visitor(certificate):
    """Two idle connections were opened for every proxy at every reconnect."""
    came = []

    async def handler(stream):
        came.append(stream)
        await echo(stream)

    async with world(certificate) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service(handler)))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert came == []
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            await talk(visitor)
        assert len(came) == 1


async def test_d27_bytes_are_counted_while_they_flow(certificate, carrier):
    """Counters moved only when a connection ended."""
    async with world(certificate, carrier) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service()))
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            await talk(visitor, b"five!")
            [session] = place.server.sessions.values()
            for counters in (
                session.statistics().proxies[0].counters,
                handle.statistics()[0].counters,
            ):
                assert counters.active == 1
                assert (counters.delivered, counters.read) == (5, 5)


async def test_d29_a_key_stroke_is_not_held_back(certificate, carrier):
    """No socket had TCP_NODELAY: many small writes each way wait for no acknowledgement."""
    async with world(certificate, carrier) as place:
        await place.start_server()
        handle = await place.start_client(proxy(await place.start_service()))
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            visitor.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = trio.current_time()
            for _ in range(50):
                await visitor.send_all(b"a")
                await visitor.send_all(b"b")  # Nagle would keep this until "a" is acknowledged
                answer = b""
                while len(answer) < 2:
                    answer += await visitor.receive_some()
        # With Nagle at any of four sockets each of the fifty takes a delayed ACK, 40 ms.
        assert trio.current_time() - began < 50 * 0.04
