"""The session: pings, and how it ends."""

import pytest
import trio

from tests.interop.libraries import LIBRARIES
from tests.interop.runtime import SMALL, ask, pattern, talk
from tests.rig import read_all
from tunnel import limits

GOODBYE = "GO_AWAY stream=0 length=0"


def only(condition):
    """Some of the libraries."""
    chosen = [library for library in LIBRARIES if condition(library)]
    return pytest.mark.parametrize(
        "library", chosen, indirect=True, ids=[library.name for library in chosen]
    )


async def test_the_peer_answers_our_ping(setting):
    async with setting.meet("echo") as meeting:
        # The link measures when windows move.
        while meeting.link.rtt is None:
            await talk(await meeting.open(), 2 * limits.INITIAL_WINDOW)
        assert 0 < meeting.link.rtt < limits.KEEPALIVE_TIMEOUT


async def test_we_answer_the_peers_ping(setting, frames):
    async with setting.meet("echo") as meeting:
        if setting.library.pings:
            await meeting.peer.tell("ping")
        await ask(meeting)
    asked = [frame for way, frame in frames() if way == "in" and frame.startswith("PING|SYN")]
    answers = [frame for way, frame in frames() if way == "out" and frame.startswith("PING|ACK")]
    assert asked
    assert answers == [frame.replace("SYN", "ACK") for frame in asked]


async def test_the_peer_hears_that_we_go(setting, frames):
    async with setting.meet("echo") as meeting:
        assert await ask(meeting) == pattern(SMALL)
        meeting.link.end("we go")
        assert await meeting.ended() == "we go"
        await meeting.peer.saw("end")
    assert frames()[-1] == ("out", GOODBYE)


async def test_we_hear_that_the_peer_goes(setting, frames):
    async with setting.meet("echo") as meeting:
        assert await ask(meeting) == pattern(SMALL)
        await meeting.peer.tell("close")
        assert await meeting.ended() == "closed by the other side"
    assert (("in", GOODBYE) in frames()) == setting.library.says_goodbye


@only(lambda library: library.announces)
async def test_streams_outlive_the_announcement_of_an_end(setting):
    async with setting.meet("echo") as meeting, await meeting.open() as stream:
        await stream.send_all(b"before ")
        assert await stream.receive_some() == b"before "
        await meeting.peer.tell("goaway")
        await stream.send_all(b"after")
        await stream.send_eof()
        assert await read_all(stream) == b"after"
        assert not meeting.link.can_open()


@only(lambda library: library.has_codes)
async def test_the_peer_says_why_it_goes(setting):
    async with setting.meet("echo") as meeting:
        await meeting.peer.tell("fail")
        assert await meeting.ended() == "the other side ended the session with code 7"


@only(lambda library: not library.shows_unused_streams)
async def test_the_end_of_a_stream_that_was_never_begun(setting, frames):
    """rust-yamux says only FIN of a stream that is opened and ended at once."""
    async with setting.meet("echo") as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(meeting.peer.tell, "ask", 0)
        while ("in", f"DATA|FIN stream={setting.first_of_the_peers} length=0") not in frames():
            assert await ask(meeting) == pattern(SMALL)
        assert meeting.link.stream_count == 0
        nursery.cancel_scope.cancel()
