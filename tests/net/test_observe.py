"""Looking at links and connections: where each of them waits, and that looking changes nothing."""

from __future__ import annotations

import functools

import pytest
import trio

from tests.rig import proxy, read_all, visit, world
from tunnel import limits
from tunnel.net.observe import observe_connections, observe_link
from tunnel.views import Waits

BIG = 32 * limits.MIB


async def settle(look):
    """What `look` gives once it is something."""
    with trio.fail_after(20):
        while not (found := look()):
            await trio.lowlevel.checkpoint()
    return found


class Pair:
    """A server and a client with one proxy, and what both see of it."""

    async def start(self, place, handler):
        port = await place.start_service(handler)
        await place.start_server()
        client = place.client(proxy(port))
        await place.nursery.start(functools.partial(_run, client))
        await settle(lambda: client.session and client.proxies[0].addresses)
        self.client = client
        [self.session] = place.server.sessions.values()
        self.address = client.proxies[0].addresses[0]

    def server(self):
        return observe_connections([("office", self.session.link)], is_server=True)

    def local(self):
        return observe_connections([("office", self.client.session.link)], is_server=False)


async def _run(client, *, task_status):
    from tunnel.client.run import run_client

    await run_client(client, task_status=task_status)


@pytest.fixture
async def pair():
    return Pair()


async def deaf(stream):
    """A local service that reads nothing."""
    await trio.sleep_forever()


async def chatty(stream):
    """A local service that sends as long as it may."""
    await stream.send_all(bytes(BIG))


async def asked(stream):
    """A local service that sends as long as it may once it is asked."""
    await stream.receive_some()
    await stream.send_all(bytes(BIG))


async def test_a_quiet_connection_waits_for_nothing(certificate, pair):
    async with world(certificate) as place:
        await pair.start(place, deaf)
        visitor = await visit(pair.address)
        await visitor.send_all(b"hello")
        seen = await settle(lambda: pair.server().shown)
        [(client, one)] = seen
        assert (client, one.proxy, one.visitor) == ("office", "web", "127.0.0.1")
        assert (one.waits, one.parked, one.queued) == (None, 0, 0)
        [(_, same)] = await settle(lambda: pair.local().shown)
        assert same.connection == one.connection
        assert same.visitor is None
        await visitor.aclose()


async def test_a_visitor_who_does_not_read(certificate, pair):
    async with world(certificate) as place:
        await pair.start(place, chatty)
        visitor = await visit(pair.address)
        await settle(lambda: pair.server().waits[Waits.VISITOR])
        [(_, one)] = pair.server().shown
        assert one.waits is Waits.VISITOR
        assert one.parked > 0
        # The client has sent what it may; what it waits for is at the other end.
        await settle(lambda: pair.local().waits[Waits.WINDOW])
        assert len(await read_all(visitor)) == BIG  # nobody was disturbed by being looked at
        await visitor.aclose()


async def test_a_local_service_that_does_not_read(certificate, pair):
    async with world(certificate) as place:
        await pair.start(place, deaf)
        visitor = await visit(pair.address)
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(visitor.send_all, bytes(BIG))
                await settle(lambda: pair.local().waits[Waits.LOCAL])
                await settle(lambda: pair.server().waits[Waits.WINDOW])
                nursery.cancel_scope.cancel()
        [(_, one)] = pair.local().shown
        assert one.waits is Waits.LOCAL
        await visitor.aclose()


async def test_a_link_that_carries_no_more(certificate, pair, monkeypatch):
    async with world(certificate) as place:
        await pair.start(place, deaf)
        link = pair.session.link
        visitor = await visit(pair.address)
        await settle(lambda: pair.server().shown)
        # The kernel takes nothing of what this end sends from now on.
        monkeypatch.setattr(link._tls.transport, "send_nowait", lambda _parts: 0)
        monkeypatch.setattr(link._tls.transport, "wait_writable", trio.sleep_forever)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(visitor.send_all, bytes(BIG))
                await settle(lambda: pair.server().waits[Waits.LINK])
                nursery.cancel_scope.cancel()
        assert observe_link(link).blocked
        assert observe_link(link).queued > 0
        await visitor.aclose()


async def polite(stream):
    """A local service that says two hundred bytes, and listens."""
    await stream.send_all(b"a" * 200)
    await trio.sleep_forever()


async def test_the_bytes_of_one_connection(certificate, pair):
    async with world(certificate) as place:
        await pair.start(place, polite)
        visitor = await visit(pair.address)
        await visitor.send_all(b"x" * 1000)
        carried = [(200, 1000), (1000, 200)]  # into and out of the socket, on either side

        def now():
            views = [end().shown for end in (pair.server, pair.local)]
            return [(one.delivered, one.read) for shown in views for _, one in shown]

        await settle(lambda: now() == carried)
        await visitor.aclose()


async def test_only_so_many_are_shown_and_all_are_counted(certificate, pair):
    async with world(certificate) as place:
        await pair.start(place, deaf)
        visitors = [await visit(pair.address) for _ in range(5)]
        await settle(lambda: pair.server().total == 5)
        view = observe_connections([("office", pair.session.link)], is_server=True, most=3)
        assert (view.total, len(view.shown)) == (5, 3)
        for visitor in visitors:
            await visitor.aclose()


async def test_those_that_wait_come_first(certificate, pair):
    async with world(certificate) as place:
        await pair.start(place, asked)
        other = await visit(pair.address)
        await settle(lambda: pair.server().total)
        slow = await visit(pair.address)
        await slow.send_all(b"go")
        await settle(lambda: pair.server().waits[Waits.VISITOR])
        [(_, first)] = observe_connections(
            [("office", pair.session.link)], is_server=True, most=1
        ).shown
        assert first.waits is Waits.VISITOR
        await slow.aclose()
        await other.aclose()


async def test_with_two_tasks_a_connection_is_counted(certificate, pair):
    async with world(certificate, "relay") as place:
        await pair.start(place, deaf)
        visitor = await visit(pair.address)
        await settle(lambda: pair.server().total == 1)
        assert pair.server().shown == ()
        await visitor.aclose()


async def test_a_link_now(certificate, pair):
    async with world(certificate) as place:
        await pair.start(place, deaf)
        visitor = await visit(pair.address)
        await settle(lambda: pair.server().total)
        link = pair.session.link
        assert await link.answers()
        await settle(lambda: observe_link(link).rtt)
        view = observe_link(link)
        assert (view.streams, view.connections, view.queued) == (2, 1, 0)
        assert 0 < view.rtt < 10
        await visitor.aclose()
