"""The link's life: signs of life, goodbyes, and whom it never waits for."""

import os
import socket
import struct
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import (
    OWN,
    Accepting,
    link_pair,
    memory_transports,
    socket_pair,
    socket_transports,
    tls_pair,
)
from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.link import Link
from tunnel.net.muxstream import MuxStream
from tunnel.net.transport import SocketTransport, StreamTransport
from tunnel.stats import Counters
from tunnel.yamux import Role

KEEPALIVE = attrs.evolve(OWN, keepalive_interval=5.0, keepalive_timeout=3.0)


def frame(kind, flags, stream_id, length, body=b""):
    return struct.pack("!BBHII", 0, kind, flags, stream_id, length) + body


DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class Single:
    """One link, whose peer is the test itself, on the other end of the TLS connection."""

    def __init__(self, link, peer, accepted):
        self.link = link
        self.peer = peer
        self.accepted = accepted
        self.reason = None
        self.ended_at = None
        self.done = trio.Event()

    async def run(self):
        self.reason = (await self.link.run()).text
        self.ended_at = trio.current_time()
        self.done.set()

    async def frames(self, count=1):
        """The next frames that the link sends, without their payload."""
        data, frames = b"", []
        while len(frames) < count:
            data += await self.peer.receive_some()
            while len(data) >= 12:
                _, kind, flags, stream_id, length = struct.unpack_from("!BBHII", data)
                size = 12 + (length if kind == DATA else 0)
                if len(data) < size:
                    break
                frames.append((kind, flags, stream_id, length))
                data = data[size:]
        return frames


@asynccontextmanager
async def single(contexts, role=Role.SERVER, *, settings=OWN, transports=memory_transports, **more):
    client, server = await tls_pair(contexts, transports)
    own, peer = (client, server) if role is Role.CLIENT else (server, client)
    accepted = Accepting()
    one = Single(Link(own, role, settings, accepted, **more), peer, accepted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await one.link.running.wait()
        yield one
        nursery.cancel_scope.cancel()
    peer.abort()


ROLES = pytest.mark.parametrize("role", [Role.SERVER, Role.CLIENT])

# --- Signs of life ----------------------------------------------------------------------------


@ROLES
async def test_a_vanished_peer_is_noticed_after_interval_and_timeout(
    contexts, role, autojump_clock
):
    async with single(contexts, role, settings=KEEPALIVE) as one:
        began = trio.current_time()
        assert await one.frames() == [(PING, SYN, 0, 1)]
        assert trio.current_time() - began == pytest.approx(5.0)
        await one.done.wait()
        assert one.reason == "no sign of life"
        assert one.ended_at - began == pytest.approx(8.0)


@ROLES
async def test_whatever_comes_starts_the_wait_anew(contexts, role, autojump_clock):
    async with single(contexts, role, settings=KEEPALIVE) as one:
        began = trio.current_time()
        await trio.sleep(4.0)
        await one.peer.send_all(frame(PING, SYN, 0, 9))
        await one.done.wait()
        assert one.ended_at - began == pytest.approx(4.0 + 8.0)


@ROLES
async def test_two_links_keep_each_other_alive(contexts, role, autojump_clock):
    async with link_pair(contexts, settings=KEEPALIVE) as pair:
        await trio.sleep(1000)
        assert pair.client.carrying
        assert pair.server.carrying
        assert pair.client.rtt is not None


async def test_a_silent_peer_does_not_answer(contexts, autojump_clock):
    async with single(contexts, Role.SERVER, settings=OWN) as one:
        began = trio.current_time()
        assert not await one.link.answers()
        assert trio.current_time() - began == pytest.approx(2.0)


async def test_a_living_peer_answers_at_once(contexts, autojump_clock):
    async with link_pair(contexts, settings=OWN) as pair:
        began = trio.current_time()
        assert await pair.server.answers()
        assert await pair.server.answers()  # and whenever it is asked
        assert trio.current_time() == began


async def test_half_a_record_is_an_answer(contexts, autojump_clock):
    async with single(contexts, Role.SERVER, settings=OWN) as one:
        one.peer._ssl.write(frame(PING, ACK, 0, 77))
        record = one.peer._outgoing.read()

        async def trickle():
            await trio.sleep(1.0)
            await one.peer.transport._stream.send_all(record[:1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await one.link.answers()


async def test_a_link_that_ends_while_it_is_asked_does_not_answer(contexts, autojump_clock):
    async with single(contexts, Role.SERVER, settings=OWN) as one:

        async def cut():
            await trio.sleep(1.0)
            one.link.lose("cut")

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            assert not await one.link.answers()
        assert trio.current_time() - began == pytest.approx(1.0)
        assert not await one.link.answers()


async def test_a_link_that_does_not_run_yet_is_not_taken_for_dead(contexts):
    client, _server = await tls_pair(contexts)
    assert await Link(client, Role.CLIENT, OWN, lambda *_: None).answers()
    client.abort()


@ROLES
async def test_a_peer_that_only_trickles_lives(contexts, role, autojump_clock):
    """One TLS record, a byte every four seconds: the engine hears nothing, the link does."""
    async with single(contexts, role, settings=KEEPALIVE) as one:
        transport = one.peer.transport
        one.peer._ssl.write(frame(PING, ACK, 0, 77))
        record = one.peer._outgoing.read()
        began = trio.current_time()
        for number in record[:-1]:
            await trio.sleep(4.0)
            assert one.link.carrying
            await transport._stream.send_all(bytes([number]))
        await one.done.wait()
        assert one.reason == "no sign of life"
        assert one.ended_at - began == pytest.approx(4.0 * (len(record) - 1) + 8.0)


# --- The end ----------------------------------------------------------------------------------


@ROLES
async def test_a_protocol_error_is_told_to_the_peer(contexts, role):
    for transports in (memory_transports, socket_transports):
        async with single(contexts, role, transports=transports) as one:
            await one.peer.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await one.frames() == [(GO_AWAY, 0, 0, 1)]
            await one.done.wait()
            assert one.reason.startswith("protocol error: ")


async def test_a_protocol_error_in_the_first_bytes(contexts):
    async with single(contexts, Role.CLIENT, early=b"GET / HTTP/1.1\r\n\r\n") as one:
        assert await one.frames() == [(GO_AWAY, 0, 0, 1)]
        await one.done.wait()
        assert one.reason.startswith("protocol error: ")


async def test_bytes_that_came_with_the_handshake_come_first(contexts):
    early = frame(WINDOW, SYN, 2, 0) + frame(DATA, 0, 2, 5, b"hello")
    async with single(contexts, Role.CLIENT, early=early) as one:
        stream = await one.accepted.streams.receive()
        await one.peer.send_all(frame(DATA, 0, 2, 6, b" world"))
        data = b""
        while len(data) < 11:
            data += await stream.receive_some()
        assert data == b"hello world"


@ROLES
async def test_what_the_peer_says_at_its_end(contexts, role):
    async with single(contexts, role) as one:
        await one.peer.send_all(frame(GO_AWAY, 0, 0, 2))
        await one.done.wait()
        assert one.reason == "the other side ended the session with code 2"
    async with single(contexts, role) as one:
        await one.peer.send_all(frame(GO_AWAY, 0, 0, 0))
        await one.peer.aclose()
        await one.done.wait()
        assert one.reason == "closed by the other side"
    async with single(contexts, role) as one:
        await one.peer.send_all(frame(DATA, SYN, 1 if role is Role.SERVER else 2, 5, b"hel"))
        await one.peer.aclose()
        await one.done.wait()
        assert one.reason == "cut in the middle of a frame"
    async with single(contexts, role) as one:
        one.peer.abort()
        await one.done.wait()
        assert one.reason == "closed without a goodbye"


async def test_the_first_reason_counts(contexts):
    async with single(contexts) as one:
        one.link.lose("first")
        one.link.end("second")
        await one.done.wait()
        assert one.reason == "first"


async def test_lost_before_it_runs(contexts):
    client, server = await tls_pair(contexts)
    link = Link(server, Role.SERVER, OWN, Accepting())
    stream = MuxStream.open(link)
    link.lose("too late")
    assert (await link.run()).text == "too late"
    assert link.running.is_set()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    client.abort()


async def test_a_link_that_never_runs_holds_nothing(contexts):
    client, server = await tls_pair(contexts)
    before = len(os.listdir("/proc/self/fd"))
    link = Link(server, Role.SERVER, OWN, Accepting(), carrier="hub")
    assert len(os.listdir("/proc/self/fd")) == before
    assert link.carrier.count == 0
    client.abort()
    server.abort()


@pytest.mark.parametrize("how", ["cancel", "end"])
async def test_a_goodbye(contexts, how):
    async with single(contexts, transports=socket_transports) as one:
        stream = MuxStream.open(one.link)
        await stream.send_all(b"hello")
        assert await one.frames(2) == [(WINDOW, SYN, 2, 0), (DATA, 0, 2, 5)]
        if how == "end":
            one.link.end("enough")
            await one.done.wait()
            assert one.reason == "enough"
        else:
            one.link._scope.cancel()
        assert (await one.frames(1))[-1] == (GO_AWAY, 0, 0, 0)
        assert await one.peer.receive_some() == b""  # and TLS's own goodbye


async def test_a_cancelled_run_says_goodbye(contexts):
    client, server = await tls_pair(contexts, socket_transports)
    link = Link(server, Role.SERVER, OWN, Accepting())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await link.running.wait()
        nursery.cancel_scope.cancel()
    assert await client.receive_some() == frame(GO_AWAY, 0, 0, 0)
    assert await client.receive_some() == b""
    client.abort()


async def test_a_goodbye_does_not_wait_for_a_peer_that_does_not_read(contexts, autojump_clock):
    client, server = await tls_pair(contexts, lockstep_transports)
    link = Link(server, Role.SERVER, OWN, Accepting())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await link.running.wait()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(limits.GOODBYE)
    client.abort()


def lockstep_transports():
    one, other = trio.testing.lockstep_stream_pair()
    return StreamTransport(one), StreamTransport(other)


async def test_after_the_end_nothing_raises_but_the_documented(contexts):
    """Whoever was about to send when the link was lost still calls it."""
    async with link_pair(contexts, transports=socket_transports) as pair:
        mine, theirs = await pair.streams()
        await mine.send_all(b"unread")
        pair.client.lose("cut")
        await wait_all_tasks_blocked()
        link = pair.client
        link.reset(link.open_stream(), ResetCode.LOCAL_REFUSED)
        link.flush()
        for stream in (mine, theirs):
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            await stream.aclose()


@pytest.mark.parametrize("carrier", ["hub", "relay"])
async def test_a_visitor_who_comes_when_the_link_is_lost(contexts, carrier):
    async with link_pair(contexts, transports=socket_transports, carrier=carrier) as pair:
        link = pair.server
        link.lose("cut")
        await wait_all_tasks_blocked()
        outside, inside = socket_pair()
        counters = Counters()
        link.carrier.adopt(
            inside,
            link.open_stream(),
            CarriedConnection("web", "00", counters, ResetCode.VISITOR_RESET),
        )
        link.flush()
        assert inside.fileno() == -1
        assert link.carrier.count == counters.total == 0
        with pytest.raises(ConnectionResetError):
            outside.recv(1)
        outside.close()


# --- Streams ----------------------------------------------------------------------------------


async def test_whoever_waits_for_a_stream_gets_one_in_turn(contexts):
    """At the peer's limit: each stream that ends lets one in, and nobody is forgotten."""
    settings = attrs.evolve(OWN, max_outbound_streams=2)
    async with link_pair(contexts, settings=settings) as pair:
        streams = [await pair.streams() for _ in range(2)]
        assert not pair.client.can_open()
        opened = []

        async def visitor(number):
            await pair.client.wait_can_open()
            opened.append(MuxStream.open(pair.client))
            pair.client.flush()

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(visitor, number)
            await wait_all_tasks_blocked()
            assert opened == []
            for count in (1, 2):
                mine, _ = streams.pop()
                mine.reset(ResetCode.CANCELLED)
                await wait_all_tasks_blocked()
                assert len(opened) == count
            opened[0].reset(ResetCode.CANCELLED)
        assert len(opened) == 3


async def test_the_reader_waits_for_nobody(contexts):
    """A stream that nobody reads is full; pings and other streams go on."""
    async with link_pair(contexts, transports=socket_transports) as pair:
        full, unread = await pair.streams()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(full.send_all, bytes(8 << 20))
            while len(unread.endpoint.buffer) < limits.INITIAL_WINDOW:
                await trio.lowlevel.checkpoint()
            quick, other = await pair.streams()
            for _ in range(10):
                await quick.send_all(b"ping")
                assert await other.receive_some() == b"ping"
            assert len(unread.endpoint.buffer) == limits.INITIAL_WINDOW
            nursery.cancel_scope.cancel()


def small_sockets():
    """Sockets whose kernel buffers take little: the writer has to work."""
    one, other = socket_pair()
    for sock in (one, other):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return SocketTransport(one), SocketTransport(other)


async def test_bulk_through_a_kernel_that_takes_little(contexts):
    async with link_pair(contexts, transports=small_sockets) as pair:
        mine, theirs = await pair.streams()
        size = 1 << 20
        received = bytearray()

        async def receive(stream, into):
            async for data in stream:
                into += data

        back = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, theirs, received)
            nursery.start_soon(receive, mine, back)
            for start in range(0, size, 65536):
                piece = bytes([start >> 16]) * 65536
                await mine.send_all(piece)
                await theirs.send_all(piece)
            await mine.send_eof()
            await theirs.send_eof()
        assert received == back
        assert len(received) == size
        assert [received[start] for start in range(0, size, 65536)] == list(range(16))


async def test_a_link_that_cannot_send_reads_on_and_does_not_spin(contexts, monkeypatch):
    """What came in before may say why; the writer sleeps meanwhile."""
    async with single(contexts, transports=socket_transports) as one:
        turns = 0
        really = one.link._tls.send_nowait

        def broken(data):
            raise trio.BrokenResourceError("Broken pipe")

        def send_nowait(*parts):
            nonlocal turns
            turns += 1
            return really(*parts)

        monkeypatch.setattr(one.link._tls.transport, "send_nowait", broken)
        monkeypatch.setattr(one.link._tls, "send_nowait", send_nowait)
        stream = MuxStream.open(one.link)
        one.link.flush()
        await stream.send_all(b"never sent")
        await wait_all_tasks_blocked()
        assert turns <= 2
        assert one.link.carrying
        await one.peer.send_all(frame(GO_AWAY, 0, 0, 2))
        await one.done.wait()
        assert one.reason == "the other side ended the session with code 2"


async def test_a_stream_that_is_not_wanted_is_refused(contexts):
    async with link_pair(contexts, accept=lambda _link, _stream_id: None) as pair:
        stream = MuxStream.open(pair.server)
        pair.server.flush()
        with pytest.raises(trio.BrokenResourceError, match="limit"):
            await stream.receive_some()


async def test_the_pace_is_looked_at_though_the_kernel_takes_everything(contexts, monkeypatch):
    """What one stream's window lets out may all fit into the kernel, and wait there."""
    async with link_pair(contexts, transports=socket_transports) as pair:
        looks = []
        monkeypatch.setattr(pair.client._pace, "look", lambda now: not looks.append(now))
        monkeypatch.setattr(pair.client._pace, "batch", 4096)
        stream = MuxStream.open(pair.client)
        await stream.send_all(b"x")
        await wait_all_tasks_blocked()
        assert looks
        assert not pair.client._tls.blocked
        assert pair.client._engine.frame_size == 4096
