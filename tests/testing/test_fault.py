"""The link's faults, byte for byte, and what lives beside them."""

import errno
import socket
import struct

import pytest
import trio
import trio.testing

from tests.net.rig import socket_pair
from tests.rig import is_free, read_all
from tunnel.client.handler import Peer
from tunnel.errors import LinkLost, Refused
from tunnel.events import ClientConnected, ClientDisconnected
from tunnel.model import Address
from tunnel.protocol.keys import generate_key
from tunnel.testing import rig
from tunnel.testing.fault import LinkFault
from tunnel.testing.memory import MemoryServer
from tunnel.testing.thread import TrioThread
from tunnel.views import ClientState


async def echo(stream, _peer):
    async for data in stream:
        await stream.send_all(data)


@pytest.fixture
def key(_tunnel_key):
    """The key of the test's own server."""
    return _tunnel_key


@pytest.fixture
async def way(nursery):
    """A fault, and the two ends of a connection that it carries."""
    fault = LinkFault(None)
    near, client = trio.testing.memory_stream_pair()
    far, server = trio.testing.memory_stream_pair()
    nursery.start_soon(fault.carry, near, far, Address("127.0.0.1", 1))
    return fault, client, server


async def test_bytes_and_ends_go_each_way_by_themselves(way):
    _, client, server = way
    await client.send_all(b"up")
    await client.send_eof()
    assert await read_all(server) == b"up"
    await server.send_all(b"down")
    await server.send_eof()
    assert await read_all(client) == b"down"


async def test_a_delay_holds_up_every_byte_alike(way, autojump_clock):
    fault, client, server = way
    fault.delay(2.0)
    for text in (b"a", b"b", b"c"):
        await client.send_all(text)
        await trio.sleep(0.5)
    for text, due in ((b"a", 2.0), (b"b", 2.5), (b"c", 3.0)):
        assert await server.receive_some() == text
        assert trio.current_time() == pytest.approx(due)


async def test_what_comes_after_a_delay_does_not_overtake(way, autojump_clock):
    fault, client, server = way
    fault.delay(2.0)
    await client.send_all(b"a")
    await trio.testing.wait_all_tasks_blocked()
    fault.delay(0.0)
    await client.send_all(b"b")
    assert await server.receive_some() == b"a"
    assert await server.receive_some() == b"b"
    assert trio.current_time() == pytest.approx(2.0)


async def test_what_was_held_back_comes_first(way, autojump_clock):
    fault, client, server = way
    fault.stall()
    await client.send_all(b"a")
    await client.send_eof()
    with trio.move_on_after(60) as patience:
        await server.receive_some()
    assert patience.cancelled_caught
    fault.heal()
    assert await read_all(server) == b"a"


async def test_the_end_of_one_end_is_the_end_of_both():
    fault = LinkFault(None)
    near, client = trio.testing.memory_stream_pair()
    far, server = trio.testing.memory_stream_pair()
    await client.aclose()
    await server.aclose()
    await fault.carry(near, far, Address("127.0.0.1", 1))
    assert not fault._connections
    with pytest.raises(trio.ClosedResourceError):
        await near.receive_some()


async def test_a_reset_is_held_back_as_well():
    """A cable that was pulled carries no reset either: the other end has to notice by itself."""
    fault = LinkFault(None)
    near, client = tcp_pair()
    far, server = tcp_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fault.carry, near, far, Address("127.0.0.1", 1))
        await trio.testing.wait_all_tasks_blocked()
        fault.stall()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
        with trio.move_on_after(0.2) as patience:
            await server.receive_some()
        assert patience.cancelled_caught
        fault.heal()
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
        await server.aclose()
    assert not fault._connections


def tcp_pair():
    """Two ends of a connection of TCP."""
    return tuple(map(trio.SocketStream, map(trio.socket.from_stdlib_socket, socket_pair())))


# --- With a tunnel ----------------------------------------------------------------------------


async def test_a_cut_ends_both_ends_before_it_returns(tunnel_server, tunnel_client, link_fault):
    events = tunnel_server.events()
    async with tunnel_client.publish(handler=echo, host="127.0.0.1") as address:
        await link_fault.cut()
        assert tunnel_client.state.value is not ClientState.CONNECTED
        assert tunnel_server.sessions() == ()
        assert is_free(address)
        while not isinstance(event := await anext(events), ClientDisconnected):
            pass
        assert "reset" in event.reason or "goodbye" in event.reason


async def test_a_cut_of_nothing(link_fault, tunnel_server):
    await link_fault.cut()
    assert tunnel_server.sessions() == ()


async def test_a_cut_waits_for_all_clients(tunnel_server, tunnel_client, link_fault, key):
    own = {"name": "other"}
    async with rig.open_client(tunnel_server, link_fault, key, own) as other:
        await link_fault.cut()
        for link in (tunnel_client, other):
            assert link.state.value is not ClientState.CONNECTED
        for link in (tunnel_client, other):
            await link.state.wait_value(ClientState.CONNECTED)


async def test_who_comes_by_another_way_is_not_cut(tunnel_server, link_fault, key):
    async with rig.open_fault(tunnel_server) as way:
        async with rig.open_client(tunnel_server, way, key, {}) as link:
            await link_fault.cut()
            assert link.state.value is ClientState.CONNECTED
            assert len(tunnel_server.sessions()) == 1


async def test_a_server_that_has_gone(tunnel_client, tunnel_server, link_fault):
    tunnel_server.drain()
    await tunnel_client.state.wait_value(ClientState.WAITING)
    async with await trio.open_tcp_stream("127.0.0.1", link_fault.address.port) as stream:
        with pytest.raises(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
            raise trio.BrokenResourceError  # an end will do


# --- In memory --------------------------------------------------------------------------------


async def test_it_is_in_memory(tunnel_server, tunnel_client, autojump_clock):
    assert isinstance(tunnel_server, MemoryServer)
    assert tunnel_server.addresses == ()
    assert tunnel_server.join is None


async def test_visitors_are_seen_and_counted(
    tunnel_server, tunnel_client, tunnel_visit, autojump_clock
):
    peers: list[Peer] = []

    async def handler(stream, peer):
        peers.append(peer)
        await echo(stream, peer)

    async with tunnel_client.publish(handler=handler, name="it") as address:
        async with tunnel_visit(address) as visitor:
            await visitor.send_all(b"hello")
            assert await visitor.receive_some() == b"hello"
            [session] = tunnel_server.sessions()
            assert session.connections == 1
            await visitor.send_eof()
            assert await visitor.receive_some() == b""
        [session] = tunnel_server.sessions()
        counters = session.proxies[0].counters
        assert (counters.total, counters.active) == (1, 0)
        assert (counters.read, counters.delivered) == (5, 5)
    assert [(peer.address.host, peer.destination) for peer in peers] == [("127.0.0.1", address)]


async def test_who_may_not_come_is_turned_away(
    tunnel_server, tunnel_client, tunnel_visit, autojump_clock
):
    networks = ("192.0.2.0/24",)
    async with tunnel_client.publish(handler=echo, allow_from=networks) as address:
        with pytest.raises(trio.BrokenResourceError, match="not allowed"):
            async with tunnel_visit(address):
                raise AssertionError("not reached")


async def test_what_is_not_published_refuses(tunnel_client, tunnel_visit, autojump_clock):
    with pytest.raises(ConnectionRefusedError) as caught:
        async with tunnel_visit(Address("127.0.0.1", 1)):
            raise AssertionError("not reached")
    assert caught.value.errno == errno.ECONNREFUSED


async def test_a_handler_that_raises_is_a_reset(tunnel_client, tunnel_visit, autojump_clock):
    async def handler(stream, peer):
        raise ValueError("theirs")

    async with tunnel_client.publish(handler=handler) as address:
        async with tunnel_visit(address) as visitor:
            with pytest.raises(trio.BrokenResourceError, match="local reset"):
                await visitor.receive_some()


async def test_a_wrong_key_is_refused(tunnel_server, link_fault, autojump_clock):
    with pytest.raises(Refused) as caught:
        async with rig.open_client(tunnel_server, link_fault, generate_key(b"x" * 32), {}):
            raise AssertionError("not reached")
    assert caught.value.code == "authentication"


@pytest.fixture
def tunnel_client_config(request):
    return getattr(request, "param", {})


@pytest.mark.parametrize("tunnel_client_config", [{"pin": ("sha256:" + "a" * 64,)}], indirect=True)
async def test_the_certificate_is_looked_at(
    tunnel_server, link_fault, key, tunnel_client_config, autojump_clock
):
    opened = rig.open_client(tunnel_server, link_fault, key, tunnel_client_config)
    with pytest.raises(LinkLost, match="is not the server that the pin names"):
        async with opened:
            raise AssertionError("not reached")


async def test_clients_come_back_after_their_delay(tunnel_client, link_fault, autojump_clock):
    for _ in range(20):
        started = trio.current_time()
        await link_fault.cut()
        await tunnel_client.state.wait_value(ClientState.CONNECTED)
        assert 4 < trio.current_time() - started < 6


async def test_a_cut_waits_for_a_client_whose_server_gave_up_already(
    tunnel_server, link_fault, key, autojump_clock
):
    patient = {"keepalive_interval": 60.0, "keepalive_timeout": 60.0}
    async with rig.open_client(tunnel_server, link_fault, key, patient) as link:
        events = tunnel_server.events()
        link_fault.stall()
        assert isinstance(await anext(events), ClientDisconnected)
        assert link.state.value is ClientState.CONNECTED
        await link_fault.cut()
        assert link.state.value is not ClientState.CONNECTED


async def test_away_for_as_long_as_it_is_told(
    tunnel_client, tunnel_server, link_fault, autojump_clock
):
    link_fault.stall()
    await link_fault.cut()
    with trio.move_on_after(600):
        await tunnel_client.state.wait_value(ClientState.CONNECTED)
        raise AssertionError("it cannot be")
    link_fault.heal()
    events = tunnel_server.events()
    await tunnel_client.state.wait_value(ClientState.CONNECTED)
    while not isinstance(await anext(events), ClientConnected):
        pass


# --- In a thread ------------------------------------------------------------------------------


def test_what_fails_in_the_thread_is_raised_where_it_ends():
    async def fail(task_status):
        task_status.started()
        raise ValueError("theirs")

    with pytest.raises(ValueError, match="theirs"):
        with TrioThread() as thread:
            thread.run(thread._nursery.start, fail)
            thread._thread.join()


def test_what_cannot_be_opened_in_the_thread_is_raised_at_once():
    with TrioThread() as thread:
        with pytest.raises(Refused):
            with thread.opened(rig.open_server(generate_key(b"k" * 32), {})) as server:
                with thread.opened(rig.open_fault(server)) as fault:
                    wrong = generate_key(b"w" * 32)
                    with thread.opened(rig.open_client(server, fault, wrong, {})):
                        raise AssertionError("not reached")


def test_waiting_has_an_end(monkeypatch):
    monkeypatch.setattr("tunnel.limits.TEST_TIMEOUT", 0.01)
    with TrioThread() as thread:
        with pytest.raises(TimeoutError):
            thread.run(trio.sleep_forever)
