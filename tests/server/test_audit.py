"""What the server tells of each visitor, to whoever keeps a record."""

from __future__ import annotations

import pytest
import trio

from tests.rig import proxy, read_all, visit, world
from tunnel.events import VisitorClosed
from tunnel.model import Address


class Kept:
    """Records, and somebody who waits for them."""

    def __init__(self):
        self.records = []
        self._come = trio.Event()

    def __call__(self, event):
        if isinstance(event, VisitorClosed):
            self.records.append(event)
            self._come.set()

    async def one(self):
        with trio.fail_after(20):
            await self._come.wait()
        [record] = self.records
        return record


async def test_a_visitor_and_the_totals_of_the_proxy(certificate, carrier):
    kept = Kept()
    async with world(certificate, carrier) as place:
        port = await place.start_service()
        handle = await place.start_server()
        with place.server.events.subscribed(kept, visitors=True):
            client = await place.start_client(proxy(port))
            async with await visit(client.statistics()[0].addresses[0]) as visitor:
                source = Address(*visitor.socket.getsockname()[:2])
                await visitor.send_all(b"x" * 70_000)
                await visitor.send_eof()
                [session] = handle.statistics()
                assert session.proxies[0].counters.active == 1
                assert len(await read_all(visitor)) == 70_000
            record = await kept.one()
            counters = handle.statistics()[0].proxies[0].counters
    assert (record.proxy, record.client, record.visitor) == ("web", "tests", source)
    assert (record.sent, record.received, record.how) == (70_000, 70_000, "finished")
    assert (counters.delivered, counters.read) == (70_000, 70_000)
    assert (counters.active, counters.total) == (0, 1)


async def test_somebody_turned_away(certificate, carrier):
    kept = Kept()
    async with world(certificate, carrier) as place:
        await place.start_server()
        with place.server.events.subscribed(kept, visitors=True):
            client = await place.start_client(proxy(1, allow_from=("192.0.2.0/24",)))
            with pytest.raises((trio.BrokenResourceError, OSError)):
                async with await visit(client.statistics()[0].addresses[0]) as visitor:
                    await read_all(visitor)
            record = await kept.one()
    assert (record.how, record.connection, record.sent) == ("address not allowed", None, 0)
    assert record.visitor.host == "127.0.0.1"
