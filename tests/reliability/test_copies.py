"""Two clients that are one by their configuration, side by side for long: nobody evicts another.

Server and clients are in one process, on virtual time.
"""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import trio
import trio.testing

from tests.rig import own_host, proxy, visit, world
from tests.server.rig import Place
from tests.server.test_takeover_rules import authenticated
from tunnel.client.run import run_client
from tunnel.client.session import hold_session
from tunnel.errors import Refused
from tunnel.model import Address
from tunnel.net.framed import next_event
from tunnel.views import ClientState

pytestmark = [pytest.mark.timeout(1800)]

PORT = 20001
HOUR = 3600.0
CLIENT_ID = "c" * 32


class Events(logging.Handler):
    """Counts what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def emit(self, record) -> None:
        self.count[record.getMessage()] += 1


@pytest.fixture
def events():
    """How often each line was logged."""
    logger, handler = logging.getLogger("tunnel"), Events()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.count
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


class Copies:
    """A server, and clients with one configuration."""

    def __init__(self, tunnel, service) -> None:
        self.tunnel = tunnel
        self.service = service
        self.address = Address(own_host(), PORT)

    async def start(self, client_id=CLIENT_ID):
        """One more copy; returns its handle, and what ends it."""
        wanted = proxy(self.service, PORT, publish_addr=self.address.host)
        delays = {"reconnect_delay": 5.0, "reconnect_max_delay": 5.0}
        client = self.tunnel.client(wanted, client_id=client_id, **delays)
        scope = trio.CancelScope()

        async def run(*, task_status):
            with scope:
                await run_client(client, task_status=task_status)

        return await self.tunnel.nursery.start(run), scope

    async def ask(self) -> bytes:
        """A visitor's question and its answer."""
        async with await visit(self.address) as visitor:
            await visitor.send_all(b"x")
            return await visitor.receive_some()


async def is_published(handle) -> None:
    with trio.fail_after(120):
        while not handle.statistics()[0].addresses:  # noqa: ASYNC110
            await trio.sleep(0.5)


# A copied state directory has the same id; a container that lost its state makes a new one.
@pytest.mark.parametrize("other_id", [CLIENT_ID, "d" * 32], ids=["one id", "two ids"])
async def test_side_by_side_for_hours(certificate, other_id, times, autojump_clock, events):
    async with world(certificate) as tunnel:
        copies = Copies(tunnel, await tunnel.start_service())
        await tunnel.start_server()
        first, end = await copies.start()
        await first.state.wait_value(ClientState.CONNECTED)
        copy, _ = await copies.start(other_id)
        for _ in range(times(24 * 3, 1)):
            for _ in range(20):
                await trio.sleep(HOUR / 60)
                assert first.state.value is ClientState.CONNECTED
                assert first.statistics()[0].addresses == (copies.address,)
                assert not copy.statistics()[0].addresses
            assert await copies.ask() == b"x"
        assert not events["Session taken over"]
        assert not events["Connection lost"]
        assert not events["Client disconnected"]
        # It is told again and again, at its own pace; or it is connected, and waits for the port.
        hours = times(24 * 3, 1) / 3
        told = events["Refused"] / 2  # by both ends
        if other_id == CLIENT_ID:
            assert 0 < told <= hours * HOUR / 5
        else:
            assert not told
        end.cancel()
        await is_published(copy)
        assert await copies.ask() == b"x"
        assert not events["Session taken over"]
        print(dict(events))


async def test_a_place_that_is_lost_changes_hands_once(
    certificate, times, chance, autojump_clock, events
):
    """Each time the one that has it is cut off, either may be next; who is there then stays."""
    async with world(certificate) as tunnel:
        copies = Copies(tunnel, await tunnel.start_service())
        await tunnel.start_server()
        handles = [(await copies.start())[0] for _ in range(2)]
        cuts = times(500, 10)
        for _ in range(cuts):
            await trio.sleep(chance.uniform(1, 120))
            [session] = tunnel.server.sessions.values()
            assert sum(handle.state.value is ClientState.CONNECTED for handle in handles) == 1
            assert await copies.ask() == b"x"
            session.link.lose("cut by the test")
            await session.registration.gone.wait()
            with trio.fail_after(60):
                while not tunnel.server.sessions:  # noqa: ASYNC110
                    await trio.sleep(0.5)
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert events["Client disconnected"] == cuts
        assert events["Client connected"] == cuts + 1
        assert not events["Session taken over"]


async def test_delayed_older_attempts_change_nothing(
    certificate, times, chance, autojump_clock, events
):
    """They were on their way for long, and come when a later one of the same process is served."""
    async with world(certificate) as tunnel:
        await tunnel.start_server()
        there = Place(tunnel, None)
        wanted = proxy(await tunnel.start_service())
        client = tunnel.client(wanted, client_id=CLIENT_ID)
        connected = trio.Event()
        tunnel.nursery.start_soon(hold_session, client, 1000, connected.set)
        await connected.wait()
        own = {"client_id": CLIENT_ID, "instance_id": client.instance_id}
        for _ in range(times(500, 50)):
            stream, handshake = await authenticated(there, attempt=chance.randrange(1, 1001), **own)
            await trio.sleep(chance.choice([0.0, 5.0]))
            await stream.send_all(handshake.configure(()))
            with pytest.raises(Refused) as caught:
                await next_event(handshake, stream)
            assert caught.value.code == "already_connected"
            await stream.aclose()
        [session] = tunnel.server.sessions.values()
        assert session.registration.attempt == 1000
        assert wanted.addresses
        assert not events["Session taken over"]
        assert not events["Client disconnected"]
