"""A server that has no descriptor left says so once, and goes on when it has some again."""

import errno

import pytest
import trio

from tests.rig import proxy, visit, world
from tunnel import limits
from tunnel.server import listener, run


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
    shortage.install(run)
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
    shortage.install(listener)
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
