"""Sessions that meet on a real server: ghosts, clones, and ports that wait for each other."""

import secrets
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rig import is_free, proxy, read_all, visit, world
from tunnel.client.run import run_client
from tunnel.client.session import hold_session
from tunnel.views import ClientState


async def test_a_half_open_session_is_taken_over_and_its_port_with_it(certificate, carrier):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        client = tunnel.client(proxy(service))
        handle = await tunnel.nursery.start(run_client, client)
        await handle.state.wait_value(ClientState.CONNECTED)
        [session] = tunnel.server.sessions.values()
        [published] = handle.statistics()
        address = published.addresses[0]
        visitor = await visit(address)
        await visitor.send_all(b"x")
        await visitor.receive_some()

        # The same process again, while the server believes that the first session lives.
        client.proxies[0].preferred_port = address.port
        again = tunnel.client(proxy(service, address.port), client_id=client.client_id)
        again.instance_id = client.instance_id
        connected = trio.Event()

        async def come():
            await hold_session(again, 99, connected.set)

        tunnel.nursery.start_soon(come)
        await connected.wait()
        assert session.registration.gone.is_set()
        assert again.proxies[0].addresses == (address,)
        with pytest.raises(trio.BrokenResourceError):
            await read_all(visitor)
        await visitor.aclose()
        async with await visit(address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"


async def test_a_clone_is_refused_and_told_why_and_the_first_goes_on(certificate, caplog):
    async with world(certificate) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        client_id = secrets.token_hex(16)
        first = await tunnel.start_client(proxy(service), client_id=client_id)
        clone = tunnel.client(proxy(service), client_id=client_id, reconnect_delay=60.0)
        handle = await tunnel.nursery.start(run_client, clone)
        await handle.state.wait_value(ClientState.WAITING)
        [refusal] = [
            record
            for record in caplog.records
            if record.name == "tunnel.client" and record.getMessage() == "Refused"
        ]
        assert refusal.code == "already_connected"
        assert "127.0.0.1" in refusal.reason
        assert "client_id of its own" in refusal.reason
        assert first.state.value is ClientState.CONNECTED
        async with await visit(first.statistics()[0].addresses[0]) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"


async def test_a_busy_port_is_published_when_its_holder_goes_and_the_client_is_told(
    certificate, carrier
):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        async with trio.open_nursery() as nursery:
            tunnel.nursery, outer = nursery, tunnel.nursery
            holder = await tunnel.start_client(proxy(service))
            [address] = holder.statistics()[0].addresses
            tunnel.nursery = outer
            waiting = await tunnel.start_client(
                proxy(service, address.port), proxy(service, name="other")
            )
            blocked, other = waiting.statistics()
            assert blocked.addresses == ()
            assert other.addresses
            nursery.cancel_scope.cancel()
        with trio.fail_after(1.5):  # sooner than the first of the timed tries
            while not waiting.statistics()[0].addresses:
                await trio.lowlevel.checkpoint()
        assert waiting.statistics()[0].addresses == (address,)
        async with await visit(address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"


async def test_ports_held_elsewhere_do_not_disturb_the_other_proxies(certificate):
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        async with world(certificate) as tunnel:
            service = await tunnel.start_service()
            await tunnel.start_server()
            port = foreign.getsockname()[1]
            handle = await tunnel.start_client(
                proxy(service, port, name="blocked"),
                proxy(service, tunnel.address.port, name="reserved"),
                proxy(service, name="fine"),
            )
            assert [bool(one.addresses) for one in handle.statistics()] == [False, False, True]


async def test_a_stopping_server_frees_ports_at_once_and_lets_visitors_finish(certificate, carrier):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        handle = await tunnel.start_server(shutdown_grace=30.0)
        client = await tunnel.start_client(proxy(service))
        [address] = client.statistics()[0].addresses
        visitor = await visit(address)
        await visitor.send_all(b"x")
        await visitor.receive_some()
        handle.drain()
        await wait_all_tasks_blocked()
        while not is_free(address):
            await trio.lowlevel.checkpoint()
        await visitor.send_all(b"y")
        assert await visitor.receive_some() == b"y"
        await visitor.send_eof()
        assert await read_all(visitor) == b""
        await client.state.wait_value(lambda state: state is not ClientState.CONNECTED)
        await visitor.aclose()
