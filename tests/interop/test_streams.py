"""Streams: their bytes, their ends, their number, and who holds whom up."""

import pytest
import trio

from tests.interop.runtime import (
    SMALL,
    answer,
    ask,
    digest,
    digest_of_pattern,
    parked,
    pattern,
    read_digest,
    reset_code,
    send_pattern,
    source,
    talk,
)
from tests.rig import read_all
from tunnel import limits
from tunnel.model import ResetCode

BIG = 64 * 1024 * 1024
MANY = 200
WINDOW = limits.INITIAL_WINDOW

both_wires = pytest.mark.parametrize("wire", ["tls", "tcp"])


# --- Bytes ----------------------------------------------------------------------------------


@both_wires
async def test_the_peer_echoes(setting):
    async with setting.meet("echo") as meeting:
        assert await ask(meeting) == pattern(SMALL)


@both_wires
async def test_we_echo(setting):
    async with setting.meet() as meeting:
        await meeting.peer.tell("echo", 1, SMALL, 1)


async def test_much_to_the_peer(setting):
    async with setting.meet("answer") as meeting:
        assert (await ask(meeting, BIG)).decode() == digest_of_pattern(BIG)


async def test_much_from_the_peer(setting):
    async with setting.meet(f"source:{BIG}") as meeting:
        async with await meeting.open() as stream:
            assert await read_digest(stream) == (BIG, digest_of_pattern(BIG))
            await stream.send_eof()


async def test_much_to_the_peer_on_its_stream(setting):
    async with setting.meet(serve=source(BIG)) as meeting:
        assert await meeting.peer.tell("ask", 1) == f"{BIG} {digest_of_pattern(BIG)}"


async def test_much_from_the_peer_on_its_stream(setting):
    async with setting.meet(serve=answer) as meeting:
        expected = digest_of_pattern(BIG).encode()
        assert await meeting.peer.tell("ask", BIG) == f"{len(expected)} {digest(expected)}"


@both_wires
async def test_much_both_ways(setting):
    async with setting.meet("echo") as meeting:
        assert await talk(await meeting.open(), BIG) == (BIG, digest_of_pattern(BIG))


async def test_much_both_ways_on_the_peers_stream(setting):
    async with setting.meet() as meeting:
        await meeting.peer.tell("echo", 1, BIG, 1)


# --- Ends -----------------------------------------------------------------------------------


async def test_the_peer_answers_long_after_our_end(setting):
    async with setting.meet("hold") as meeting, await meeting.open() as stream:
        await send_pattern(stream, SMALL)
        await meeting.peer.tell("echo", 1, SMALL, 1)
        await meeting.peer.tell("release")
        assert (await read_all(stream)).decode() == digest_of_pattern(SMALL)


async def test_we_answer_long_after_the_peers_end(setting):
    ended, released = trio.Event(), trio.Event()

    async def answer_late(stream):
        async with stream:
            assert await read_all(stream) == pattern(SMALL)
            ended.set()
            await released.wait()
            await send_pattern(stream, SMALL)

    async with setting.meet(serve=answer_late) as meeting, trio.open_nursery() as nursery:

        async def wait_for_answer():
            assert await meeting.peer.tell("ask", SMALL) == f"{SMALL} {digest_of_pattern(SMALL)}"

        nursery.start_soon(wait_for_answer)
        await ended.wait()
        assert await ask(meeting) == pattern(SMALL)
        released.set()


async def test_the_peer_resets_our_stream(setting):
    async with setting.meet("reset") as meeting:
        stream = await meeting.open()
        await stream.send_all(b"?")
        assert await reset_code(stream) == 0
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"?")
        await meeting.peer.tell("echo", 1, SMALL, 1)


async def test_the_peer_resets_its_own_stream(setting):
    codes, found = trio.open_memory_channel(1)

    async def observe(stream):
        await stream.receive_some(1)
        await stream.send_all(b"!")
        codes.send_nowait(await reset_code(stream))

    async with setting.meet("reset", serve=observe) as meeting:
        await meeting.peer.tell("reset")
        assert await found.receive() == 0
        assert meeting.link.stream_count == 0


async def test_we_reset_our_own_stream(setting):
    async with setting.meet("echo") as meeting:
        stream = await meeting.open()
        await stream.send_all(b"?")
        assert await stream.receive_some() == b"?"
        stream.reset(ResetCode.CANCELLED)
        await meeting.peer.saw(setting.library.sees_reset_as("error", "done"))
        assert await ask(meeting) == pattern(SMALL)


async def test_we_reset_the_peers_stream(setting):
    async def refuse(stream):
        await stream.receive_some()
        stream.reset(ResetCode.CANCELLED)

    async with setting.meet("echo", serve=refuse) as meeting:
        assert await meeting.peer.tell("wait") == setting.library.sees_reset_as("reset", "end")
        assert await ask(meeting) == pattern(SMALL)


# --- Many -----------------------------------------------------------------------------------


async def test_a_thousand_streams_of_ours_in_turn(setting):
    async with setting.meet("echo") as meeting:
        for _ in range(1000):
            assert await ask(meeting, 100) == pattern(100)
        assert meeting.link.stream_count == 0


async def test_a_thousand_streams_of_the_peers_in_turn(setting):
    async with setting.meet() as meeting:
        await meeting.peer.tell("echo", 1000, 100, 1)


async def test_two_hundred_streams_of_ours_at_once(setting):
    async with setting.meet("echo") as meeting:
        streams = [await meeting.open() for _ in range(MANY)]
        for stream in streams:
            await stream.send_all(pattern(SMALL))
        assert meeting.link.stream_count == MANY
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(end_and_compare, stream)
        assert meeting.link.stream_count == 0


async def end_and_compare(stream):
    async with stream:
        await stream.send_eof()
        assert await read_all(stream) == pattern(SMALL)


async def test_two_hundred_streams_of_the_peers_at_once(setting):
    async with setting.meet() as meeting:
        await meeting.peer.tell("echo", MANY, SMALL, MANY)


# --- Who holds whom up ----------------------------------------------------------------------


async def test_a_peer_that_does_not_read_stops_us_at_its_window(setting):
    size = 4 * WINDOW
    async with setting.meet("hold") as meeting, await meeting.open() as stream:
        await stream.send_all(pattern(WINDOW))
        await meeting.peer.tell("echo", 1, size, 1)  # the others go on
        assert meeting.link.room(stream.stream_id) == 0
        await meeting.peer.tell("release")
        await stream.send_all(pattern(size)[WINDOW:])
        await stream.send_eof()
        assert (await read_all(stream)).decode() == digest_of_pattern(size)


async def test_the_peer_stops_at_our_window(setting):
    size = 4 * WINDOW
    opened, released = trio.open_memory_channel(1), trio.Event()

    async def hold(stream):
        opened[0].send_nowait(stream)
        await released.wait()
        await answer(stream)

    async with setting.meet("echo", serve=hold) as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(meeting.peer.tell, "ask", size)
        stream = await opened[1].receive()
        await parked(stream, WINDOW)
        assert await talk(await meeting.open(), size) == (size, digest_of_pattern(size))
        assert len(stream.endpoint.buffer) == WINDOW
        released.set()


# --- Nothing at all -------------------------------------------------------------------------


async def test_our_stream_that_is_never_used(setting):
    async with setting.meet("echo") as meeting:
        async with await meeting.open() as unused:
            assert await ask(meeting) == pattern(SMALL)
            assert meeting.link.stream_count == 1
            await unused.send_eof()
            assert await read_all(unused) == b""
        assert meeting.link.stream_count == 0


async def test_a_stream_of_the_peers_that_is_never_used(setting, frames):
    shown = setting.library.shows_unused_streams
    async with setting.meet() as meeting:
        await meeting.peer.tell("unused")
        await meeting.peer.tell("echo", 1, SMALL, 1)
        assert meeting.link.stream_count == shown
        assert await ask(meeting) == pattern(SMALL)
    # Without an acknowledgement hashicorp's opener ends the session after 75 seconds.
    acknowledged = ("out", f"WINDOW_UPDATE|ACK stream={setting.first_of_the_peers} length=0")
    assert frames().count(acknowledged) == shown
