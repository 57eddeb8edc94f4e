"""Resets and half-closes, where one direction has ended already: the same for both carriers."""

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import link_pair, socket_pair, socket_transports
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.transport import reset_on_close
from tunnel.stats import Counters


@pytest.fixture(params=["hub", "relay"])
def carrier(request):
    return request.param


async def connect(pair, counters):
    """The outer end of a socket that the server carries, and the peer's stream for it."""
    outside, inside = socket_pair()
    visit = CarriedConnection("web", "00", counters, ResetCode.VISITOR_RESET)
    pair.server.carrier.adopt(inside, pair.server.open_stream(), visit)
    pair.server.flush()
    return outside, await pair.client_accepted.streams.receive()


async def test_a_reset_after_the_peers_end_reaches_the_socket(contexts, carrier):
    """The socket says nothing and waits: only the reset can tell it that nobody is there."""
    counters = Counters()
    async with link_pair(contexts, transports=socket_transports, carrier=carrier) as pair:
        outside, stream = await connect(pair, counters)
        await stream.send_eof()
        await trio.lowlevel.wait_readable(outside)
        assert outside.recv(1) == b""
        stream.reset(ResetCode.CANCELLED)
        with trio.fail_after(5):
            await pair.server.carrier.wait_idle()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            outside.send(b"x")
            await wait_all_tasks_blocked()
            outside.send(b"x")
        outside.close()
    assert counters.active == 0


async def test_a_reset_by_the_socket_after_its_own_end_reaches_the_peer(contexts, carrier):
    counters = Counters()
    async with link_pair(contexts, transports=socket_transports, carrier=carrier) as pair:
        outside, stream = await connect(pair, counters)
        outside.shutdown(socket.SHUT_WR)
        assert await stream.receive_some() == b""
        reset_on_close(outside)
        outside.close()
        with trio.fail_after(5):
            with pytest.raises(trio.BrokenResourceError, match="visitor reset"):
                while True:
                    await stream.send_all(bytes(1000))
            await pair.server.carrier.wait_idle()
    assert counters.active == 0


async def test_a_visitor_for_whom_the_link_is_too_late_has_not_begun_but_ended(contexts, carrier):
    told, counters = [], Counters()
    async with link_pair(contexts, transports=socket_transports, carrier=carrier) as pair:
        stream_id = pair.server.open_stream()
        pair.server.lose("cut")
        await wait_all_tasks_blocked()
        outside, inside = socket_pair()
        visit = CarriedConnection(
            "web", "00", counters, ResetCode.VISITOR_RESET, on_end=told.append
        )
        pair.server.carrier.adopt(inside, stream_id, visit)
        with pytest.raises(ConnectionResetError):
            outside.recv(1)
        outside.close()
    assert told == [ResetCode.LINK_LOST]
    assert (counters.active, counters.total) == (0, 0)
