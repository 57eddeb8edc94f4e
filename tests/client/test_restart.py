"""A server that stops and comes back, on virtual time and with everybody's delays."""

from __future__ import annotations

import pytest
import trio

from tests.rig import is_free, proxy, visit, world
from tunnel.views import ClientState


@pytest.mark.parametrize("away", [0.0, 0.4, 3.3, 20.0, 55.0])
async def test_a_client_is_back_within_two_seconds_of_the_server(certificate, autojump_clock, away):
    async with world(certificate) as tunnel:
        server = await tunnel.start_server()
        local = await tunnel.start_service()
        client = await tunnel.start_client(
            proxy(local), reconnect_delay=5.0, reconnect_max_delay=60.0
        )
        [address] = client.statistics()[0].addresses
        server.drain()
        await client.state.wait_value(ClientState.WAITING)
        assert is_free(address)
        await trio.sleep(away)
        await tunnel.start_server(port=tunnel.address.port)
        back = trio.current_time()
        await client.state.wait_value(ClientState.CONNECTED)
        assert trio.current_time() - back < 2
        assert client.statistics()[0].addresses == (address,)
        async with await visit(address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
