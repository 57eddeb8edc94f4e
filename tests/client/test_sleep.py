"""A client whose machine slept: it asks at once whether the server is still there."""

from __future__ import annotations

import pytest
import trio

from tests.e2e.rig import Wire
from tests.rig import proxy, visit, world
from tunnel import limits
from tunnel.client.dial import Dialler
from tunnel.model import Address
from tunnel.net.clock import SleepDetector
from tunnel.views import ClientState


@pytest.fixture
def sleep(monkeypatch):
    """Has the machine sleep for an hour, as its clocks tell it."""
    readings = {"asleep": 0.0}

    def detector():
        return SleepDetector(lambda: readings["asleep"])

    monkeypatch.setattr("tunnel.client.state.SleepDetector", detector)
    monkeypatch.setattr("tunnel.client.run.SleepDetector", detector)

    def sleep():
        readings["asleep"] += 3600

    return sleep


async def test_a_link_that_died_meanwhile_is_noticed_and_replaced(
    certificate, sleep, autojump_clock
):
    """With a keepalive that would take ten minutes, and a delay of five."""
    async with world(certificate) as tunnel:
        await tunnel.start_server()
        wire = Wire(tunnel.address)
        await tunnel.nursery.start(wire.run)
        through = Address("127.0.0.1", wire.port)
        tunnel.dial = Dialler((through,), tunnel.context, frozenset(), str, 10.0)
        client = await tunnel.start_client(
            proxy(await tunnel.start_service()),
            keepalive_interval=600,
            reconnect_delay=300,
            reconnect_max_delay=300,
        )
        await trio.testing.wait_all_tasks_blocked()
        wire.freeze()
        sleep()
        woke = trio.current_time()
        await client.state.wait_value(ClientState.WAITING)
        await client.state.wait_value(ClientState.CONNECTED)
        # Noticed, asked; and once more asked, by the server, whether the former one is alive.
        assert (
            trio.current_time() - woke <= limits.SUSPEND_POLL_INTERVAL + 2 * limits.PROBE_SHORTEST
        )


async def test_a_link_that_lives_is_kept(certificate, sleep, autojump_clock):
    async with world(certificate) as tunnel:
        await tunnel.start_server()
        client = await tunnel.start_client(proxy(await tunnel.start_service()))
        [session] = tunnel.server.sessions
        for _ in range(3):
            sleep()
            await trio.sleep(60)
        assert list(tunnel.server.sessions) == [session]
        async with await visit(client.statistics()[0].addresses[0]) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
