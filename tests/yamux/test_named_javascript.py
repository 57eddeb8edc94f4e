"""What ChainSafe/js-libp2p-yamux tests of itself: each test names its original."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.yamux.pair import End, Pair
from tests.yamux.wire import (
    ACK,
    SYN,
    accepted,
    client,
    data,
    go_away,
    hear,
    ping,
    said,
    server,
    told,
    update,
)
from tunnel.errors import LocalProtocolError
from tunnel.yamux import CLOSED, DataReceived, GoAwayReceived, PongReceived, StreamOpened

FRAMES = [
    ping(1),
    update(3, 1, SYN),
    data(1, bytes(range(100))),
    ping(100, ACK),
    update(99, 1000),
    data(1, bytes(200)),
    data(1, b"end"),
    go_away(),
]


def cut(wire, sizes):
    """The wire in pieces of these sizes, over and over."""
    start = 0
    while start < len(wire):
        for size in sizes:
            yield wire[start : start + size]
            start += size


def decoded(pieces):
    """What an engine makes of the pieces: events and answers, with data joined."""
    engine = server()
    accepted(engine, 1)
    events = [event for piece in pieces if piece for event in hear(engine, piece)]
    body = b"".join(event.data for event in events if isinstance(event, DataReceived))
    return [event for event in events if not isinstance(event, DataReceived)], body, said(engine)


EXPECTED = (
    [StreamOpened(3), GoAwayReceived(0)],
    bytes(range(100)) + bytes(200) + b"end",
    ["PING|ACK 0 1"],
)


@pytest.mark.parametrize("size", [1, 2, 5, 11, 12, 13, 24, 1000])
def test_javascript_decode_chunked_by_partial_and_multiple_frames(size):
    """js-libp2p-yamux decode.spec: frames cut into equal chunks, smaller and larger than one."""
    assert decoded(cut(b"".join(FRAMES), [size])) == EXPECTED


def test_javascript_decode_chunked_by_frame():
    """js-libp2p-yamux decode.spec: each chunk is one frame."""
    assert decoded(FRAMES) == EXPECTED


@given(sizes=st.lists(st.integers(1, 150), min_size=1, max_size=20))
def test_javascript_decode_chunked_chaoticly(sizes):
    """js-libp2p-yamux decode.spec: frames in chunks of any sizes."""
    assert decoded(cut(b"".join(FRAMES), sizes)) == EXPECTED


def test_javascript_decode_while_another_decode_is_in_progress():
    """js-libp2p-yamux decode.spec: the next frame before the last one was read.

    There it is an error. Here chunks that come too early wait in order, and a body is told as it
    comes: nobody has to wait for the rest of a frame.
    """
    engine = server()
    accepted(engine, 1)
    for piece in cut(data(1, b"first") + data(1, b"second"), [8]):
        engine.receive_data(piece, 0.0)
    assert b"".join(event.data for event in told(engine)) == b"firstsecond"
    assert hear(engine, data(1, b"third")[:14]) == [DataReceived(1, memoryview(b"th"))]


def test_javascript_repeated_close():
    """js-libp2p-yamux muxer.spec "test repeated close": one go-away, however often."""
    engine = client()
    for _ in range(3):
        engine.close()
    assert said(engine) == ["GO_AWAY 0 0"]
    engine.close()
    assert said(engine) == []


def test_javascript_go_away():
    """js-libp2p-yamux muxer.spec "test go away": no stream after one's own close."""
    engine = client()
    engine.close()
    with pytest.raises(LocalProtocolError, match="the connection is over"):
        engine.open_stream()


def test_javascript_multiple_simultaneous_pings():
    """js-libp2p-yamux muxer.spec "test ping", "test multiple simultaneous pings": one on the wire.

    All who ask are answered by the same round trip.
    """
    pair = Pair(hop=0.02)
    for end in (pair.client, pair.server):
        for _ in range(3):
            end.engine.ping()
        pair.run()
        assert end.told() == [PongReceived(pytest.approx(0.04))]
        end.engine.ping()
        assert said(end.engine) == ["PING|SYN 0 2"]


def test_javascript_keep_alive():
    """js-libp2p-yamux muxer.spec "test keep alive": a ping after each silence, and no more."""
    pair = Pair(End(client(keepalive_interval=5.0)))
    pair.sleep(1000.0)
    assert pair.client.told() == [PongReceived(0.0)] * 200


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_javascript_close_with_active_streams(frames):
    """js-libp2p-yamux muxer.spec: closing with active streams, and a stream's abort during it."""
    pair = Pair()
    streams = pair.client.open(3)
    for stream_id in streams:
        pair.client.engine.send_data(stream_id, bytes(100))
    said(pair.client.engine, max_bytes=12 * frames)
    pair.client.engine.close()
    pair.client.engine.reset_stream(streams[0])
    with pytest.raises(LocalProtocolError, match="the connection is over"):
        pair.client.engine.open_stream()
    assert said(pair.client.engine)[-1] == "GO_AWAY 0 0"
    assert pair.client.engine.next_event() is CLOSED
