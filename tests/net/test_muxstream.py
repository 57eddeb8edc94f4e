"""A stream of the link as a Trio stream, beyond what Trio's own checks see."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import link_pair
from tunnel import limits
from tunnel.model import ResetCode


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
