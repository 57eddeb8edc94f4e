"""A server that has no descriptor left says so once, and goes on when it has some again."""

import errno
import select
import socket

import pytest
import trio

from tests.rig import proxy, visit, world
from tunnel import limits
from tunnel.net import listen


@pytest.fixture
def shortage(monkeypatch):
    """Turned on, nothing can be accepted by that module."""
    monkeypatch.setattr(limits, "ACCEPT_PAUSE", 0.001)

    class Switch:
        on = False
        refused = 0
        lasted = trio.Event()

        def install(self, module):
            really = module.accept_burst

            def accept_burst(sock):
                if self.on:
                    self.refused += 1
                    if self.refused == 5:
                        self.lasted.set()
                    raise OSError(errno.EMFILE, "Too many open files")
                yield from really(sock)

            monkeypatch.setattr(module, "accept_burst", accept_burst)

    return Switch()


def complaints(caplog):
    return [record for record in caplog.records if record.getMessage() == "Cannot accept"]


async def test_for_clients(certificate, shortage, caplog):
    shortage.install(listen)
    async with world(certificate) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        shortage.on = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tunnel.start_client, proxy(service))
            await shortage.lasted.wait()
            shortage.on = False
        assert len(complaints(caplog)) == 1


async def test_for_visitors(certificate, carrier, shortage, caplog):
    shortage.install(listen)
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(service))
        shortage.on = True
        async with await visit(handle.statistics()[0].addresses[0]) as visitor:
            await visitor.send_all(b"x")
            await shortage.lasted.wait()
            shortage.on = False
            assert await visitor.receive_some() == b"x"
        [complaint] = complaints(caplog)
        assert complaint.proxy == "web"


async def test_for_visitors_of_many_proxies(certificate, shortage, caplog):
    """They share one line of the log, and all are served when it is over."""
    shortage.install(listen)
    async with world(certificate) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(*(proxy(service, name=f"p{n}") for n in range(10)))
        shortage.on = True
        visitors = [await visit(published.addresses[0]) for published in handle.statistics()]
        await shortage.lasted.wait()
        shortage.on = False
        for visitor in visitors:
            async with visitor:
                await visitor.send_all(b"x")
                assert await visitor.receive_some() == b"x"
        assert len(complaints(caplog)) == 1


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_visitor_who_takes_the_last_descriptor(certificate, monkeypatch, side):
    """A link's first visitor needs one for the epoll as well: he is reset, and that is all."""
    really = select.epoll
    made = []

    def epoll():
        made.append(side)
        if len(made) == ("server", "client").index(side) + 1:  # the server's comes first
            raise OSError(errno.EMFILE, "Too many open files")
        return really()

    async with world(certificate, "hub") as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(service))
        address = handle.statistics()[0].addresses[0]
        monkeypatch.setattr(select, "epoll", epoll)
        # (Without waiting, or the reset could come while Trio still connects.)
        with socket.create_connection((address.host, address.port)) as visitor:
            visitor.setblocking(False)
            await trio.lowlevel.wait_readable(visitor)
            with pytest.raises(ConnectionResetError):
                visitor.recv(1)
        async with await visit(address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
        [session] = tunnel.server.sessions.values()
        assert session.link.carrier.count == session.link.stream_count - 1 == 1
