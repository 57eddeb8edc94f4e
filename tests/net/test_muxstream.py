"""A stream of the link as a Trio stream, beyond what Trio's own checks see."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import link_pair, socket_pair
from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.transport import SocketTransport


async def test_a_cancelled_send_ends_in_a_reset_never_in_an_end(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.send_all, bytes(4 << 20))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await mine.aclose()
        with pytest.raises(trio.BrokenResourceError, match="cancelled"):
            while await theirs.receive_some():
                pass


async def test_closing_with_unread_bytes_is_a_reset(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        await theirs.send_all(b"unread")
        await wait_all_tasks_blocked()
        await mine.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_some()


async def test_bytes_that_come_after_closing_are_answered_with_a_reset(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        await mine.aclose()
        assert await theirs.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await theirs.send_all(b"too late")
                await wait_all_tasks_blocked()


async def test_both_ends_closed_is_no_stream_at_all(contexts):
    async with link_pair(contexts) as pair:
        for _ in range(50):
            mine, theirs = await pair.streams()
            await mine.aclose()
            assert await theirs.receive_some() == b""
            await theirs.aclose()
        await wait_all_tasks_blocked()
        assert pair.client.stream_count == pair.server.stream_count == 0
        assert not pair.client._endpoints
        assert not pair.server._endpoints


async def test_reset_tells_why(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        mine.reset(ResetCode.LOCAL_REFUSED)
        with pytest.raises(trio.BrokenResourceError, match="stream reset: local refused"):
            await theirs.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="local refused"):
            await theirs.send_all(b"x")


async def test_what_came_before_a_reset_can_still_be_read(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        await mine.send_all(b"before")
        await wait_all_tasks_blocked()
        mine.reset(ResetCode.CANCELLED)
        await wait_all_tasks_blocked()
        assert await theirs.receive_some() == b"before"
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_some()


async def test_a_lost_link_wakes_whoever_waits(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()

        async def read(stream):
            with pytest.raises(trio.BrokenResourceError, match="link lost"):
                await stream.receive_some()

        async def send(stream):
            with pytest.raises(trio.BrokenResourceError, match="link lost"):
                await stream.send_all(bytes(8 << 20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, mine)
            nursery.start_soon(send, mine)
            await wait_all_tasks_blocked()
            pair.client.lose("cut")
        assert theirs is not None


async def test_a_buffer_that_changes_after_sending_was_copied(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        data = bytearray(b"before")
        await mine.send_all(data)
        data[:] = b"after!"
        assert await theirs.receive_some() == b"before"


async def test_no_more_than_the_window_waits_for_a_reader(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.send_all, bytes(4 << 20))
            await wait_all_tasks_blocked()
            assert len(theirs.endpoint.buffer) == limits.INITIAL_WINDOW
            nursery.cancel_scope.cancel()


class Counting(SocketTransport):
    """TCP that counts how often something is sent."""

    sent = 0

    def send_nowait(self, parts):
        self.sent += 1
        return super().send_nowait(parts)


async def test_what_many_say_at_the_same_moment_goes_out_together(contexts):
    async with link_pair(contexts, transports=lambda: map(Counting, socket_pair())) as pair:
        streams = [await pair.streams() for _ in range(32)]

        async def echo(stream):
            async for data in stream:
                await stream.send_all(data)

        async with trio.open_nursery() as nursery:
            for _, theirs in streams:
                nursery.start_soon(echo, theirs)
            await wait_all_tasks_blocked()
            transports = [link._tls.transport for link in (pair.client, pair.server)]
            before = [transport.sent for transport in transports]
            async with trio.open_nursery() as asking:
                for mine, _ in streams:
                    asking.start_soon(mine.send_all, b"x")
            for mine, _ in streams:
                assert await mine.receive_some() == b"x"
            after = [transport.sent for transport in transports]
            nursery.cancel_scope.cancel()
        assert all(now - then <= 3 for now, then in zip(after, before, strict=True))


async def test_a_send_that_is_cancelled_before_it_begins_sends_nothing(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        with trio.CancelScope() as scope:
            scope.cancel()
            await mine.send_all(b"never")
        await mine.send_all(b"this")
        await mine.aclose()
        assert await theirs.receive_some() == b"this"
        assert await theirs.receive_some() == b""


async def test_credit_goes_back_though_nobody_here_says_anything(contexts):
    async with link_pair(contexts) as pair:
        mine, theirs = await pair.streams()
        size = 8 * limits.INITIAL_WINDOW
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.send_all, bytes(size))
            got = 0
            while got < size:
                got += len(await theirs.receive_some(1000))
