"""Hub and relay carry sockets over a link: the same promises, the same tests."""

from __future__ import annotations

import hashlib
import random
import socket
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import OWN, Accepting, link_pair, socket_pair, socket_transports
from tests.rig import read_all
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection, make_carrier
from tunnel.net.link import Link
from tunnel.net.muxstream import MuxStream
from tunnel.stats import Counters

CARRIERS = ["hub", "relay"]


class Tunnel:
    """Visitors on one side of a link, local services on the other, all connected by sockets."""

    def __init__(self, pair, adopted):
        self.pair = pair
        self.counters = Counters()
        self.local_counters = Counters()
        self._adopted = adopted
        self.outside = []

    async def connect(self):
        """A visitor's stream and the local service's stream for it."""
        server = self.pair.server
        stream_id = server.open_stream()
        outside, inside = socket_pair()
        visit = CarriedConnection("web", "00", self.counters, ResetCode.VISITOR_RESET)
        server.carrier.adopt(inside, stream_id, visit)
        server.flush()
        local = await self._adopted.receive()
        self.outside += [outside, local]
        return as_stream(outside), as_stream(local)


def as_stream(sock: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


@asynccontextmanager
async def tunnel(contexts, carrier, settings=OWN):
    send, receive = trio.open_memory_channel(1000)
    local_counters = Counters()

    def accept(link: Link, stream_id: int):
        outside, inside = socket_pair()
        visit = CarriedConnection("web", "00", local_counters, ResetCode.LOCAL_RESET)
        link.carrier.adopt(inside, stream_id, visit)
        send.send_nowait(outside)
        return link._endpoints[stream_id]

    async with link_pair(
        contexts, transports=socket_transports, carrier=carrier, settings=settings, accept=accept
    ) as pair:
        through = Tunnel(pair, receive)
        through.local_counters = local_counters
        try:
            yield through
        finally:
            for sock in through.outside:
                sock.close()


@pytest.fixture(params=CARRIERS)
def carrier(request):
    return request.param


async def test_bytes_both_ways(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        visitor, local = await through.connect()
        await visitor.send_all(b"question")
        assert await local.receive_some() == b"question"
        await local.send_all(b"answer")
        assert await visitor.receive_some() == b"answer"
        assert through.counters.statistics().read == 8
        assert through.counters.statistics().delivered == 6
        assert through.local_counters.statistics().active == 1


async def test_half_close_each_way_on_its_own(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        visitor, local = await through.connect()
        await visitor.send_all(b"question")
        await visitor.send_eof()
        assert await read_all(local) == b"question"
        await local.send_all(b"late answer")
        await local.send_eof()
        assert await read_all(visitor) == b"late answer"
        await through.pair.server.carrier.wait_idle()
        await through.pair.client.carrier.wait_idle()
        assert through.counters.active == through.local_counters.active == 0


async def test_reset_by_the_visitor_resets_the_local_service(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        visitor, local = await through.connect()
        await visitor.send_all(b"x")
        await local.receive_some()
        reset(visitor)
        with pytest.raises(trio.BrokenResourceError):
            await local.receive_some()


async def test_reset_by_the_local_service_resets_the_visitor(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        visitor, local = await through.connect()
        await local.send_all(b"half an answer")
        assert await visitor.receive_some() == b"half an answer"
        reset(local)
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()


def reset(stream: trio.SocketStream) -> None:
    import struct

    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def test_a_lost_link_is_a_reset_never_an_end(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        visitor, local = await through.connect()
        await local.send_all(b"half an answer")
        assert await visitor.receive_some() == b"half an answer"
        through.pair.client.lose("cut")
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await local.receive_some()


async def test_a_lost_link_after_one_direction_ended_is_still_a_reset(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        visitor, local = await through.connect()
        await visitor.send_eof()
        assert await read_all(local) == b""
        through.pair.server.lose("cut")
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()


async def test_all_sockets_are_closed_when_the_link_has_ended(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        for _ in range(20):
            await through.connect()
        assert through.pair.server.carrier.count == 20
    assert through.pair.server.carrier.count == 0
    assert through.pair.client.carrier.count == 0
    assert through.counters.active == through.local_counters.active == 0


async def test_a_mebibyte_both_ways_at_once_arrives_intact(contexts, carrier):
    data = random.Random(5).randbytes(1 << 20)

    async with tunnel(contexts, carrier) as through:
        visitor, local = await through.connect()
        digests = {}

        async def send(stream):
            await stream.send_all(data)
            await stream.send_eof()

        async def receive(name, stream):
            digests[name] = hashlib.sha256(await read_all(stream)).digest()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, visitor)
            nursery.start_soon(send, local)
            nursery.start_soon(receive, "visitor", visitor)
            nursery.start_soon(receive, "local", local)
        expected = hashlib.sha256(data).digest()
        assert digests == {"visitor": expected, "local": expected}


async def test_a_visitor_that_does_not_read_stops_only_its_own_sender(contexts, carrier):
    async with tunnel(contexts, carrier) as through:
        _unread, slow_local = await through.connect()
        visitor, local = await through.connect()
        sent = 0

        async def flood():
            nonlocal sent
            while True:
                await slow_local.send_all(bytes(65536))
                sent += 65536

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            before = -1
            while before != sent:  # until it is stuck: windows and kernel buffers are full
                before = sent
                for _ in range(20):
                    await visitor.send_all(b"ping")
                    assert await local.receive_some() == b"ping"
                await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert sent < 64 << 20


async def test_what_was_parked_before_the_socket_was_there_comes_first(contexts, carrier):
    accepted = Accepting()

    async with link_pair(
        contexts, transports=socket_transports, carrier=carrier, accept=accepted
    ) as pair:
        stream = MuxStream.open(pair.server)
        pair.server.flush()
        dialling = await accepted.streams.receive()
        outside, inside = socket_pair()
        visit = CarriedConnection("web", "00", Counters(), ResetCode.LOCAL_RESET)
        await stream.send_all(b"first ")
        await stream.send_eof()
        while not dialling.endpoint.ended:
            await wait_all_tasks_blocked()
        pair.client.carrier.adopt(
            inside, dialling.stream_id, visit, parked=dialling.endpoint.buffer, finished=True
        )
        local = as_stream(outside)
        assert await read_all(local) == b"first "
        await local.send_all(b"answer")
        await local.send_eof()
        assert await read_all(stream) == b"answer"
        await local.aclose()


async def test_small_pieces_and_many_streams(contexts, carrier):
    async with tunnel(contexts, carrier) as through:

        async def talk(number: int) -> None:
            visitor, local = await through.connect()
            for size in (1, 7, 100, 5000):
                message = bytes([number]) * size
                await visitor.send_all(message)
                got = b""
                while len(got) < size:
                    got += await local.receive_some()
                assert got[0] == got[-1]
                await local.send_all(got[:1])
                assert await visitor.receive_some() == got[:1]
            await visitor.aclose()
            assert await local.receive_some() == b""
            await local.aclose()

        for number in range(30):
            await talk(number)
        await through.pair.server.carrier.wait_idle()


def test_an_unknown_carrier_is_an_error_that_names_the_remedy():
    with pytest.raises(ValueError, match="'hub' or 'relay'"):
        make_carrier(None, "carrier pigeon")
