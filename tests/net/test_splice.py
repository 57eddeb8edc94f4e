"""Two streams joined: bytes, ends and resets pass through, and a slow reader bounds what waits."""

import hashlib
import random
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import link_pair
from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.muxstream import MuxStream
from tunnel.net.splice import splice
from tunnel.stats import Counters


class Joined:
    """A visiting client and an owner, whose servers' ends are two links of one process."""

    def __init__(self, visiting, owning):
        self.visiting, self.owning = visiting, owning
        self.counters = Counters()
        self.ended = []

    async def visit(self, **how):
        """The visitor's stream and the owner's."""
        visitor = MuxStream.open(self.visiting.client)
        self.visiting.client.flush()
        arrived = await self.visiting.server_accepted.streams.receive()
        stream_id = self.owning.server.open_stream()
        visit = CarriedConnection(
            "db", "00", self.counters, ResetCode.VISITOR_RESET, on_end=self.ended.append
        )
        here, there = self.visiting.server, self.owning.server
        splice((here, arrived.stream_id), (there, stream_id), visit, **how)
        here.flush()
        there.flush()
        return visitor, await self.owning.client_accepted.streams.receive()


@asynccontextmanager
async def joined(contexts):
    async with link_pair(contexts) as visiting, link_pair(contexts) as owning:
        both = Joined(visiting, owning)
        yield both
        await wait_all_tasks_blocked()
        for link in (visiting.server, owning.server):
            assert link.carrier.count == 0
        assert both.counters.active == 0


async def test_bytes_and_ends_pass_each_way(contexts):
    async with joined(contexts) as both:
        visitor, owner = await both.visit()
        await visitor.send_all(b"question")
        await visitor.send_eof()
        assert await owner.receive_some() == b"question"
        assert await owner.receive_some() == b""
        await owner.send_all(b"answer")  # the other direction goes on
        assert await visitor.receive_some() == b"answer"
        await owner.aclose()
        assert await visitor.receive_some() == b""
    assert both.ended == [None]
    assert attrs.astuple(both.counters.statistics()) == (0, 1, 6, 8)


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
async def test_megabytes_both_ways_at_once(contexts, size):
    source = random.Random(size)
    there, back = source.randbytes(size), source.randbytes(size)

    async def send(stream, data):
        while data:
            piece = source.randrange(1, 70_000)
            await stream.send_all(data[:piece])
            data = data[piece:]
        await stream.send_eof()

    async def receive(stream, data):
        got = hashlib.sha256()
        while piece := await stream.receive_some():
            got.update(piece)
        assert got.digest() == hashlib.sha256(data).digest()

    async with joined(contexts) as both:
        visitor, owner = await both.visit()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, visitor, there)
            nursery.start_soon(send, owner, back)
            nursery.start_soon(receive, visitor, back)
            nursery.start_soon(receive, owner, there)
    assert both.ended == [None]


@pytest.mark.parametrize("by_owner", [True, False])
async def test_a_reset_passes_with_its_reason(contexts, by_owner):
    async with joined(contexts) as both:
        ends = await both.visit()
        one, other = reversed(ends) if by_owner else ends
        one.reset(ResetCode.LOCAL_REFUSED)
        with pytest.raises(trio.BrokenResourceError, match="local refused"):
            await other.receive_some()
    assert both.ended == [ResetCode.LOCAL_REFUSED]


@pytest.mark.parametrize("of_owner", [True, False])
async def test_a_lost_link_is_a_reset_at_the_other_end(contexts, of_owner):
    async with joined(contexts) as both:
        visitor, owner = await both.visit()
        lost, other = (both.owning, visitor) if of_owner else (both.visiting, owner)
        lost.server.lose("cut")
        with pytest.raises(trio.BrokenResourceError, match="link lost"):
            await other.receive_some()
    assert both.ended == [ResetCode.LINK_LOST]


async def test_who_does_not_read_stops_the_sender_and_nobody_else(contexts):
    async with joined(contexts) as both:
        slow, _unread = await both.visit()
        quick, owner = await both.visit()
        sent = 0

        async def flood():
            nonlocal sent
            while True:
                await slow.send_all(bytes(16_384))
                sent += 16_384

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            before = -1
            while before != sent:
                before = sent
                await wait_all_tasks_blocked(0.01)
            # Two windows, and what each of the four links may queue.
            assert sent <= 2 * limits.INITIAL_WINDOW + 3 * limits.STREAM_QUEUE
            await quick.send_all(b"quick")
            assert await owner.receive_some() == b"quick"
            nursery.cancel_scope.cancel()
        slow.reset(ResetCode.CANCELLED)
        quick.reset(ResetCode.CANCELLED)


async def test_what_came_before_goes_first(contexts):
    async with joined(contexts) as both:
        visitor, owner = await both.visit(parked=b"", finished=True)
        assert await owner.receive_some() == b""
        await owner.aclose()
        assert await visitor.receive_some() == b""


async def test_a_client_visits_itself(contexts):
    async with link_pair(contexts) as pair:
        both = Joined(pair, pair)
        visitor, owner = await both.visit()
        for _ in range(3):
            await visitor.send_all(bytes(500_000))
            got = 0
            while got < 500_000:
                got += len(await owner.receive_some())
        await owner.aclose()
        await visitor.aclose()
        await wait_all_tasks_blocked()
    assert both.ended == [None] or both.ended == [ResetCode.NONE]


async def test_many_visits_leave_nothing(contexts):
    async with joined(contexts) as both:
        for number in range(200):
            visitor, owner = await both.visit()
            await visitor.send_all(str(number).encode())
            assert await owner.receive_some() == str(number).encode()
            await owner.aclose()
            await visitor.aclose()
        await wait_all_tasks_blocked()
        for link in (both.visiting.server, both.owning.server):
            assert link.stream_count == 0
    assert len(both.ended) == 200
