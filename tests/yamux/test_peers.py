"""Conversations as other implementations hold them: what they send, in the form that they send it.

Each peer opens a stream, asks, is answered and ends; then it is asked on a stream that we open.
Whatever its habits, every byte arrives and every stream ends cleanly.
"""

import attrs
import pytest

from tests.yamux.wire import (
    ACK,
    DATA,
    FIN,
    HEADER,
    PING,
    SYN,
    UPDATE,
    WINDOW,
    data,
    hear,
    ping,
    said,
    server,
    update,
)
from tunnel.yamux import DataReceived, StreamClosed, StreamEOF, StreamOpened


@attrs.frozen
class Peer:
    """Frames of a peer that asks on stream 1 and answers on stream 2."""

    greeting: list[bytes]
    ask: list[bytes]
    hears_answer: list[bytes]
    answer: list[bytes]
    afterwards: list[bytes] = attrs.field(factory=list)


PEERS = {
    # A larger window with SYN and ACK; header and body apart; credit even after its own FIN.
    "hashicorp": Peer(
        greeting=[],
        ask=[
            update(1, 6 * 2**20 - WINDOW, SYN),
            HEADER.pack(0, DATA, 0, 1, 3),
            b"ask",
            update(1, flags=FIN),
        ],
        hears_answer=[update(1, 3 * 2**20)],
        answer=[update(2, 6 * 2**20 - WINDOW, ACK), data(2, b"reply"), update(2, flags=FIN)],
    ),
    # A ping before anything else.
    "go-libp2p": Peer(
        greeting=[ping(0)],
        ask=[update(1, flags=SYN), data(1, b"ask"), update(1, flags=FIN)],
        hears_answer=[],
        answer=[update(2, flags=ACK), data(2, b"reply"), update(2, flags=FIN)],
    ),
    # SYN and ACK only with the first data, FIN on empty data; a stream that was never used ends
    # without having begun, and numbers come in any order.
    "rust": Peer(
        greeting=[data(9, b"", FIN), update(5, flags=SYN), update(5, flags=FIN)],
        ask=[data(1, b"ask", SYN), data(1, b"", FIN)],
        hears_answer=[update(1, WINDOW // 2)],
        answer=[data(2, b"reply", ACK), data(2, b"", FIN)],
    ),
    # ACK together with FIN or never alone; credit for every frame.
    "javascript": Peer(
        greeting=[],
        ask=[update(1, flags=SYN), data(1, b"ask"), update(1, flags=FIN)],
        hears_answer=[update(1, 6)],
        answer=[update(2, 5), data(2, b"reply"), update(2, flags=ACK | FIN)],
        afterwards=[update(2, 3)],
    ),
    # ACK before anybody has looked; credit after every read; a ping in the middle.
    "python": Peer(
        greeting=[],
        ask=[update(1, flags=SYN), data(1, b"a"), ping(1), data(1, b"sk"), update(1, flags=FIN)],
        hears_answer=[update(1, 3), update(1, 3)],
        answer=[update(2, flags=ACK), update(2, 5), data(2, b"reply"), update(2, flags=FIN)],
    ),
}


def received(events, stream_id):
    pieces = [e for e in events if isinstance(e, DataReceived) and e.stream_id == stream_id]
    return b"".join(piece.data for piece in pieces)


def without_pongs(frames):
    return [frame for frame in frames if not frame.startswith("PING|ACK")]


@pytest.mark.parametrize("in_one_piece", [True, False])
@pytest.mark.parametrize("name", PEERS)
def test_a_conversation(name, in_one_piece):
    peer = PEERS[name]
    engine = server(useless_frames_per_second=3)

    def listen(frames):
        wire = b"".join(frames)
        pieces = [wire] if in_one_piece else [wire[n : n + 1] for n in range(len(wire))]
        return [event for piece in pieces if piece for event in hear(engine, piece)]

    for event in listen(peer.greeting):
        if isinstance(event, StreamOpened):
            engine.reset_stream(event.stream_id)
    said(engine)

    asked = listen(peer.ask)
    assert asked[0] == StreamOpened(1)
    assert received(asked, 1) == b"ask"
    assert asked[-1] == StreamEOF(1)
    engine.accept_stream(1)
    engine.send_data(1, b"answer")
    engine.consumed(1, 3, 0.0)
    assert without_pongs(said(engine)) == ["UPDATE|ACK 1 0", "DATA 1 6"]
    assert listen(peer.hears_answer) == []
    engine.send_eof(1)
    assert said(engine) == ["UPDATE|FIN 1 0"]
    assert engine.next_event() == StreamClosed(1)

    assert engine.open_stream() == 2
    engine.send_data(2, b"query")
    engine.send_eof(2)
    assert said(engine) == ["UPDATE|SYN 2 0", "DATA 2 5", "UPDATE|FIN 2 0"]
    answered = listen(peer.answer)
    assert received(answered, 2) == b"reply"
    assert answered[-2:] == [StreamEOF(2), StreamClosed(2)]
    assert listen(peer.afterwards) == []
    assert engine.stream_count == 0


def test_a_peer_that_announces_gigabytes_for_a_stream_that_is_over_costs_no_memory():
    engine = server()
    hear(engine, HEADER.pack(0, DATA, 0, 77, 2**32 - 1))
    for _ in range(10):
        assert hear(engine, bytes(2**16)) == []
    assert engine._inbox.parser.at_boundary


def test_a_peer_that_sends_its_whole_window_as_one_frame():
    engine = server()
    hear(engine, update(1, flags=SYN))
    engine.accept_stream(1)
    events = hear(engine, data(1, bytes(WINDOW), FIN))
    assert len(received(events, 1)) == WINDOW
    assert events[-1] == StreamEOF(1)


def test_pings_are_answered_in_the_one_form_that_all_take():
    engine = server()
    hear(engine, HEADER.pack(0, PING, SYN, 0, 5), HEADER.pack(0, UPDATE, SYN, 1, 0))
    engine.accept_stream(1)
    assert b"".join(engine.data_to_send(0.0)[:1]) == HEADER.pack(0, PING, ACK, 0, 5)
