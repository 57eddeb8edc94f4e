"""The hub's corners: what epoll may report, and what one connection must not do to another."""

import errno
import select
import socket
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import OWN, Accepting, link_pair, socket_pair, socket_transports
from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.transport import reset_on_close
from tunnel.stats import Counters


class Carried:
    """Sockets on the server's hub; the client's ends of their streams are Trio streams."""

    def __init__(self, pair):
        self.pair = pair
        self.hub = pair.server.carrier
        self.counters = Counters()
        self.outside = []

    async def connect(self):
        """The outer end of an adopted socket, and the peer's stream for it."""
        outside, inside = socket_pair()
        self.outside.append(outside)
        stream_id = self.pair.server.open_stream()
        visit = CarriedConnection("web", "00", self.counters, ResetCode.VISITOR_RESET)
        self.hub.adopt(inside, stream_id, visit)
        self.pair.server.flush()
        return outside, await self.pair.client_accepted.streams.receive()

    def endpoint(self, outside):
        """The hub's own object for that connection."""
        [found] = [
            endpoint
            for endpoint in self.hub._sockets.values()
            if endpoint._sock.getpeername() == outside.getsockname()
        ]
        return found

    def count_turns(self, monkeypatch):
        """How often the hub wakes from now on, as a list that grows."""
        turns = []
        really = self.hub._serve

        def serve():
            turns.append(trio.current_time())
            really()

        monkeypatch.setattr(self.hub, "_serve", serve)
        return turns


@asynccontextmanager
async def carried(contexts, settings=OWN):
    async with link_pair(
        contexts, transports=socket_transports, carrier="hub", settings=settings
    ) as pair:
        through = Carried(pair)
        try:
            yield through
        finally:
            for sock in through.outside:
                sock.close()
    assert through.counters.active == 0


async def until_full(stream, outside_full):
    """Send into the stream until its peer's socket and window take no more."""
    sent = 0

    async def flood():
        nonlocal sent
        while True:
            await stream.send_all(bytes(65536))
            sent += 65536

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        before = -1
        while before != sent or not outside_full():
            before = sent
            await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()


async def test_a_visitor_who_is_not_read_costs_no_turns(contexts, monkeypatch):
    """The peer has no window left: the socket stays readable, and nobody looks."""
    async with carried(contexts) as through:
        outside, stream = await through.connect()
        outside.setblocking(False)
        endpoint = through.endpoint(outside)
        while endpoint._mask:
            try:
                outside.send(bytes(65536))
            except BlockingIOError:
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        turns = through.count_turns(monkeypatch)
        await wait_all_tasks_blocked(0.02)
        assert turns == []
        await stream.receive_some()  # and when there is room again, it goes on
        while not turns:
            await stream.receive_some()


async def until_paused(through, outside):
    """Send until the hub looks at the socket no more, and little waits in the kernel."""
    endpoint, sent = through.endpoint(outside), 0
    while endpoint._mask:
        sent += outside.send(bytes(4096))
        await wait_all_tasks_blocked()
    return sent


async def test_a_reset_while_the_hub_looks_away_is_noticed(contexts):
    async with carried(contexts) as through:
        outside, _ = await through.connect()
        await until_paused(through, outside)
        reset_on_close(outside)
        outside.close()
        with trio.fail_after(5):
            await through.hub.wait_idle()


async def test_a_hangup_while_nobody_may_read_does_not_spin(contexts, monkeypatch):
    async with carried(contexts) as through:
        outside, stream = await through.connect()
        sent = await until_paused(through, outside)
        # Both directions of the connection end, with bytes that nobody may read yet.
        await stream.send_eof()
        await wait_all_tasks_blocked()
        outside.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        turns = through.count_turns(monkeypatch)
        await wait_all_tasks_blocked(0.02)
        assert len(turns) <= 1
        received = 0
        while data := await stream.receive_some():
            received += len(data)
        assert received == sent  # nothing was lost over it
        await through.hub.wait_idle()


async def test_an_error_ends_that_connection_only(contexts):
    async with carried(contexts) as through:
        broken, broken_stream = await through.connect()
        whole, whole_stream = await through.connect()
        reset_on_close(broken)
        broken.close()
        with pytest.raises(trio.BrokenResourceError, match="visitor reset"):
            await broken_stream.receive_some()
        assert through.hub.count == 1
        await whole_stream.send_all(b"x")
        await trio.lowlevel.wait_readable(whole)
        assert whole.recv(1) == b"x"


async def test_a_reset_while_nobody_may_read_is_noticed(contexts):
    async with carried(contexts) as through:
        outside, stream = await through.connect()
        await until_full(stream, lambda: through.endpoint(outside)._parked is not None)
        reset_on_close(outside)
        outside.close()
        with pytest.raises(trio.BrokenResourceError, match="visitor reset"):
            while True:
                await stream.receive_some()
        assert through.hub.count == 0


async def test_events_of_a_socket_that_was_closed_in_the_same_turn(contexts, monkeypatch):
    """The first of two that are ready closes the second: its event must find nobody."""
    async with carried(contexts) as through:
        first, _ = await through.connect()
        second, _ = await through.connect()
        one, other = through.endpoint(first), through.endpoint(second)
        descriptors = [one._sock.fileno(), other._sock.fileno()]

        class Both:
            def poll(self, _timeout, _most):
                return [(descriptor, select.EPOLLIN) for descriptor in descriptors]

            def __getattr__(self, name, really=through.hub._epoll):
                return getattr(really, name)

        def ready(_self, _events):
            other.fail(ResetCode.VISITOR_RESET)

        monkeypatch.setattr(type(one), "ready", ready)
        really, through.hub._epoll = through.hub._epoll, Both()
        through.hub._serve()
        through.hub._epoll = really
        monkeypatch.undo()
        assert through.hub.count == 1
        assert other._sock.fileno() == -1


async def test_a_descriptor_that_is_used_again_belongs_to_the_new_connection(contexts):
    async with carried(contexts) as through:
        seen = set()
        for number in range(10):
            outside, stream = await through.connect()
            seen.add(through.endpoint(outside)._sock.fileno())
            outside.sendall(bytes([number]))
            assert await stream.receive_some() == bytes([number])
            stream.reset(ResetCode.CANCELLED)
            while through.hub.count:
                await trio.lowlevel.checkpoint()
            outside.close()
        assert len(seen) < 10


async def test_what_the_socket_does_not_take_is_parked_within_the_window(contexts):
    settings = attrs.evolve(OWN, max_window=limits.INITIAL_WINDOW)
    async with carried(contexts, settings) as through:
        outside, stream = await through.connect()
        endpoint = through.endpoint(outside)
        await until_full(stream, lambda: endpoint._parked is not None)
        assert len(endpoint._parked) <= limits.INITIAL_WINDOW


async def test_the_end_comes_behind_what_is_parked(contexts):
    async with carried(contexts) as through:
        outside, stream = await through.connect()
        endpoint = through.endpoint(outside)
        outside.setblocking(False)
        data = bytes(range(256)) * 40_000
        received = bytearray()

        async def send():
            await stream.send_all(data)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while endpoint._parked is None:
                await trio.lowlevel.checkpoint()
            while True:
                await trio.lowlevel.wait_readable(outside)
                piece = outside.recv(65536)
                if not piece:
                    break
                received += piece
        assert received == data


async def test_a_hub_ends_with_its_link_and_resets_all(contexts):
    accepted = Accepting()
    async with link_pair(
        contexts, transports=socket_transports, carrier="hub", accept=accepted
    ) as pair:
        through = Carried(pair)
        outside = []
        for _ in range(5):
            one, inside = socket_pair()
            visit = CarriedConnection("web", "00", through.counters, ResetCode.VISITOR_RESET)
            through.hub.adopt(inside, pair.server.open_stream(), visit)
            outside.append(one)
        pair.server.lose("cut")
        await wait_all_tasks_blocked()
        assert through.hub.count == through.counters.active == 0
        assert through.counters.total == 5
        for one in outside:
            with pytest.raises(ConnectionResetError):
                one.recv(1)
            one.close()


async def test_what_waits_for_a_full_link_is_not_overwritten(contexts, monkeypatch):
    """All sockets are read into one buffer; what the link cannot take yet has to leave it."""
    async with carried(contexts) as through:
        visitors = [await through.connect() for _ in range(3)]
        transport, room = through.pair.server._tls.transport, trio.Event()
        really = transport.send_some

        async def send_some(data):
            await room.wait()
            return await really(data)

        with monkeypatch.context() as patch:
            patch.setattr(transport, "send_nowait", lambda _: 0)
            patch.setattr(transport, "send_some", send_some)
            for turn in range(4):
                for number, (outside, _) in enumerate(visitors):
                    outside.send(bytes([65 + number]) * (1000 + turn))
                    await wait_all_tasks_blocked()
        room.set()
        for number, (_, stream) in enumerate(visitors):
            expected = bytes([65 + number]) * sum(1000 + turn for turn in range(4))
            received = b""
            while len(received) < len(expected):
                received += await stream.receive_some()
            assert received == expected


async def test_the_last_bytes_and_the_end_are_one_turn(contexts, monkeypatch):
    async with carried(contexts) as hub:
        outside, stream = await hub.connect()
        await wait_all_tasks_blocked()
        turns = hub.count_turns(monkeypatch)
        outside.sendall(b"the last")
        outside.shutdown(socket.SHUT_WR)
        assert await stream.receive_some() == b"the last"
        assert await stream.receive_some() == b""
        assert len(turns) == 1


async def test_a_look_takes_what_a_new_socket_has_brought(contexts):
    async with carried(contexts) as hub:
        outside, stream = await hub.connect()
        outside.sendall(b"hello")
        hub.hub.look()
        hub.pair.server.flush()
        await trio.lowlevel.checkpoint()
        with pytest.raises(BlockingIOError):
            hub.endpoint(outside)._sock.recv(1)
        assert await stream.receive_some() == b"hello"


async def test_a_look_before_the_first_socket_sees_nothing(contexts):
    async with carried(contexts) as hub:
        hub.hub.look()
        assert hub.hub._epoll is None


async def test_a_visitor_whom_the_system_has_no_room_for_is_told_of(contexts, monkeypatch):
    told, counters = [], Counters()

    def no_descriptor():
        raise OSError(errno.EMFILE, "Too many open files")

    async with link_pair(contexts, transports=socket_transports, carrier="hub") as pair:
        outside, inside = socket_pair()
        visit = CarriedConnection(
            "web", "00", counters, ResetCode.VISITOR_RESET, on_end=told.append
        )
        with monkeypatch.context() as patch:
            patch.setattr(select, "epoll", no_descriptor)
            pair.server.carrier.adopt(inside, pair.server.open_stream(), visit)
        with pytest.raises(ConnectionResetError):
            outside.recv(1)
        outside.close()
    assert told == [ResetCode.LIMIT]
    assert (counters.active, counters.total) == (0, 0)
