"""A client's life on the server, over real sockets in one process."""

import logging

import pytest
import trio

from tests.rig import is_free, own_host, proxy, read_all, visit, world
from tunnel import limits
from tunnel.events import ClientDisconnected, ProxyWithdrawn
from tunnel.views import ClientState


async def test_publish_and_visit(certificate, carrier, caplog):
    caplog.set_level(logging.DEBUG)
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(service))
        [published] = handle.statistics()
        async with await visit(published.addresses[0]) as visitor:
            await visitor.send_all(b"hello")
            await visitor.send_eof()
            assert await read_all(visitor) == b"hello"


async def test_a_client_comes_back_and_gets_its_ports(certificate, carrier):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(service))
        address = handle.statistics()[0].addresses[0]
        for _ in range(20):
            [session] = tunnel.server.sessions.values()
            session.link.lose("the test cuts it")
            await handle.state.wait_transition(ClientState.CONNECTED)
            assert handle.statistics()[0].addresses[0] == address
            async with await visit(address) as visitor:
                await visitor.send_all(b"x")
                assert await visitor.receive_some() == b"x"


class Disconnected(logging.Handler):
    """Looks at ports in the very moment in which `Client disconnected` is logged."""

    def __init__(self):
        super().__init__()
        self.addresses = []
        self.free = []
        self.logger = logging.getLogger("tunnel.server")

    def emit(self, record):
        if record.getMessage() == "Client disconnected":
            self.free.append(all(map(is_free, self.addresses)))

    def __enter__(self):
        self.logger.addHandler(self)
        self.logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *_):
        self.logger.removeHandler(self)
        self.logger.setLevel(logging.NOTSET)


async def test_a_hundred_ports_with_two_hundred_visitors_are_free_before_it_is_logged(
    certificate, carrier
):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        host = own_host()
        proxies = [proxy(service, name=f"p{n}", publish_addr=host) for n in range(100)]
        handle = await tunnel.start_client(*proxies, reconnect_delay=3600.0)
        addresses = [one.addresses[0] for one in handle.statistics()]
        visitors = []
        for address in addresses * 2:
            visitors.append(await visit(address))
            await visitors[-1].send_all(b"x")
            assert await visitors[-1].receive_some() == b"x"
        [session] = tunnel.server.sessions.values()
        assert session.link.carrier.count == 200
        with Disconnected() as probe:
            probe.addresses = addresses
            session.link.lose("cut")
            await handle.state.wait_value(ClientState.WAITING)
            for visitor in visitors:
                with pytest.raises(trio.BrokenResourceError):
                    await visitor.receive_some()
                await visitor.aclose()
        assert probe.free == [True]


async def test_nothing_of_a_session_is_known_when_its_end_is_told(certificate):
    """Subscribers may look at the server: it must say what they are told."""
    async with world(certificate) as tunnel:
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(1), reconnect_delay=3600.0)
        [address] = handle.statistics()[0].addresses
        server, seen = tunnel.server, []

        def look(event):
            if isinstance(event, ClientDisconnected | ProxyWithdrawn):
                known = (*server.sessions, *server.registry._ports, *server.registry._proxies)
                seen.append((type(event), event.client, is_free(address), known))

        [session] = server.sessions.values()
        with server.events.subscribed(look):
            session.link.lose("cut")
            await handle.state.wait_value(ClientState.WAITING)
            await session.registration.gone.wait()
        assert seen == [
            (ProxyWithdrawn, "tests", True, ()),
            (ClientDisconnected, "tests", True, ()),
        ]
        assert not server.registry._sessions


async def test_two_hundred_times_in_a_row(certificate, carrier):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        host = own_host()
        proxies = [proxy(service, name=f"p{n}", publish_addr=host) for n in range(3)]
        handle = await tunnel.start_client(*proxies)
        addresses = [one.addresses[0] for one in handle.statistics()]
        with Disconnected() as probe:
            probe.addresses = addresses
            for _ in range(200):
                async with await visit(addresses[0]) as visitor:
                    await visitor.send_all(b"x")
                    assert await visitor.receive_some() == b"x"
                    [session] = tunnel.server.sessions.values()
                    session.link.lose("cut")
                    await handle.state.wait_transition(ClientState.CONNECTED)
                    assert [one.addresses[0] for one in handle.statistics()] == addresses
        assert probe.free == [True] * 200


async def test_a_link_that_has_used_every_stream_number_gives_way_to_a_new_one(certificate):
    async with world(certificate) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(service))
        address = handle.statistics()[0].addresses[0]
        [session] = tunnel.server.sessions.values()
        session.link._engine._table._next_id = limits.MAX_STREAM_ID - 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.state.wait_transition, ClientState.CONNECTED)
            async with await visit(address) as visitor:
                with pytest.raises(trio.BrokenResourceError):
                    await read_all(visitor)
        async with await visit(address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
