"""A client's life on the server, over real sockets in one process."""

import logging

import pytest
import trio

from tests.rig import is_free, proxy, read_all, visit, world
from tunnel.handles import ClientState


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


async def test_ports_are_free_before_the_end_is_logged(certificate, carrier, caplog):
    caplog.set_level(logging.INFO)
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        free = []

        class Probe(logging.Handler):
            def emit(self, record):
                if record.getMessage() == "Client disconnected":
                    free.append(is_free(address))

        probe = Probe()
        logging.getLogger("tunnel.server.session").addHandler(probe)
        try:
            async with trio.open_nursery() as nursery:
                tunnel.nursery, outer = nursery, tunnel.nursery
                handle = await tunnel.start_client(proxy(service))
                address = handle.statistics()[0].addresses[0]
                assert not is_free(address)
                visitor = await visit(address)
                nursery.cancel_scope.cancel()
            tunnel.nursery = outer
            while not free:
                await trio.lowlevel.checkpoint()
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()
            await visitor.aclose()
        finally:
            logging.getLogger("tunnel.server.session").removeHandler(probe)
        assert free == [True]


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
