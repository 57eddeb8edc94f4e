"""What hashicorp/yamux tests of itself, asked of this engine: each test names its original."""

import pytest

from tests.yamux.pair import End, Pair
from tests.yamux.wire import ACK, SYN, WINDOW, client, data, go_away, hear, said, server, update
from tunnel import limits
from tunnel.errors import LocalProtocolError
from tunnel.yamux import (
    ConnectionLost,
    DataReceived,
    GoAwayReceived,
    StreamClosed,
    StreamEOF,
    StreamOpened,
    StreamReset,
    StreamsAvailable,
)

MANY = {"max_inbound_streams": 2000, "max_outbound_streams": 2000}


def test_hashicorp_close_before_ack():
    """hashicorp/yamux TestCloseBeforeAck: streams that end before they are acknowledged.

    They must not use up the backlog for good.
    """
    pair = Pair(End(client(max_unacknowledged=8)), End(server(), accepts=False))
    streams = pair.client.open(8)
    for stream_id in streams:
        pair.client.engine.send_eof(stream_id)
    assert not pair.client.engine.can_open()
    pair.run()
    assert pair.client.engine.stream_count == pair.server.engine.stream_count == 8
    for stream_id in streams:
        pair.server.engine.accept_stream(stream_id)
        pair.server.engine.send_eof(stream_id)
    pair.run()
    assert pair.client.engine.stream_count == pair.server.engine.stream_count == 0
    assert StreamsAvailable() in pair.client.events
    assert len(pair.client.open(8)) == 8


@pytest.mark.parametrize("who", ["client", "server"])
def test_hashicorp_close_before_ack_by_a_reset(who):
    """hashicorp/yamux TestCloseBeforeAck: nor must those that either end resets unacknowledged."""
    pair = Pair(End(client(max_unacknowledged=8)), End(server(), accepts=False))
    streams = pair.client.open(8)
    pair.run()
    assert not pair.client.engine.can_open()
    for stream_id in streams:
        getattr(pair, who).engine.reset_stream(stream_id)
    pair.run()
    assert StreamsAvailable() in pair.client.events
    assert len(pair.client.open(8)) == 8


def test_hashicorp_backlog_exceeded():
    """hashicorp/yamux TestBacklogExceeded: the backlog is full, and then the session ends.

    There the next open waits and then fails; here it fails at once, and nothing can be opened
    after the end either.
    """
    pair = Pair(End(client(max_outbound_streams=1000)), End(server(), accepts=False))
    for stream_id in pair.client.open(limits.FOREIGN_BACKLOG):
        pair.client.send(stream_id, b"foo")
    pair.run()
    assert len(pair.server.received) == limits.FOREIGN_BACKLOG
    assert not pair.client.engine.can_open()
    with pytest.raises(LocalProtocolError, match="no further stream"):
        pair.client.engine.open_stream()
    assert hear(pair.client.engine, b"") == [ConnectionLost(clean=True)]
    assert not pair.client.engine.can_open()
    with pytest.raises(LocalProtocolError, match="the connection is over"):
        pair.client.engine.open_stream()


def test_hashicorp_backlog_exceeded_accept():
    """hashicorp/yamux TestBacklogExceeded_Accept: five backlogs of streams, one after another.

    The opener pauses at each full backlog and goes on when the other end has accepted.
    """
    backlog = 64
    pair = Pair(End(client(max_unacknowledged=backlog, **MANY)), End(server(**MANY)))
    for _ in range(5):
        for stream_id in pair.client.open(backlog):
            pair.client.send(stream_id, b"foo")
        assert not pair.client.engine.can_open()
        pair.run()
        assert pair.client.told() == [StreamsAvailable()]
    assert pair.server.engine.stream_count == 5 * backlog
    assert set(map(bytes, pair.server.received.values())) == {b"foo"}


def test_hashicorp_half_close():
    """hashicorp/yamux TestHalfClose: an end that has sent its FIN still receives."""
    pair = Pair()
    (stream_id,) = pair.client.open()
    pair.client.send(stream_id, b"a")
    pair.run()
    pair.server.engine.send_eof(stream_id)
    pair.run()
    assert pair.client.told() == [StreamEOF(stream_id)]
    pair.client.send(stream_id, b"bcd")
    pair.run()
    pair.client.engine.send_eof(stream_id)
    pair.run()
    assert pair.server.received[stream_id] == b"abcd"
    assert pair.server.told() == [
        StreamOpened(stream_id),
        StreamEOF(stream_id),
        StreamClosed(stream_id),
    ]
    assert pair.client.told() == [StreamClosed(stream_id)]


def test_hashicorp_half_close_session_shutdown():
    """hashicorp/yamux TestHalfCloseSessionShutdown: a whole window, then FIN, then the session.

    Every byte and the end of the stream are told before the end of the session, to a caller who
    has read nothing so far. There the go-away is not sent at all; here it comes behind the rest.
    """
    pair = Pair(server_end=End(server(), reads=False), batch=4096)
    body = bytes(range(256)) * (WINDOW // 256)
    (stream_id,) = pair.client.open()
    pair.client.send(stream_id, body)
    pair.client.refill()
    pair.client.engine.send_eof(stream_id)
    pair.client.engine.close()
    pair.run()
    assert pair.server.received[stream_id] == body
    assert pair.server.told() == [StreamOpened(stream_id), StreamEOF(stream_id), GoAwayReceived(0)]
    pair.server.read(stream_id, WINDOW)
    assert said(pair.server.engine) == []  # no credit for an end that has sent its FIN


def test_hashicorp_large_window():
    """hashicorp/yamux TestLargeWindow: a peer of twice the window takes twice as much unread.

    The peer says so with its ACK. How much of it waits here is the caller's setting.
    """
    engine = client(send_queue=4 * WINDOW)
    stream_id = engine.open_stream()
    said(engine)
    assert engine.room(stream_id) == WINDOW
    hear(engine, update(stream_id, WINDOW, ACK))
    assert engine.room(stream_id) == 2 * WINDOW
    engine.send_data(stream_id, bytes(2 * WINDOW + 1))
    lengths = [int(frame.split()[2]) for frame in said(engine)]
    assert sum(lengths) == 2 * WINDOW
    assert engine.room(stream_id) == 0


def test_hashicorp_send_data_very_large():
    """hashicorp/yamux TestSendData_VeryLarge: many streams, each far more than its window."""
    pair = Pair(hop=0.01, batch=limits.BATCH)
    block = bytes(n * n % 251 for n in range(251))
    bodies = {
        stream_id: block[stream_id:] + block * (4 * WINDOW // len(block))
        for stream_id in pair.client.open(16)
    }
    for stream_id, body in bodies.items():
        pair.client.send(stream_id, body)
    pair.run()
    assert {key: bytes(value) for key, value in pair.server.received.items()} == bodies
    assert pair.client.engine.pending == 0


def test_hashicorp_many_streams_ping_pong():
    """hashicorp/yamux TestManyStreams_PingPong: small questions and answers on 1000 streams."""
    pair = Pair(End(client(max_unacknowledged=2000, **MANY)), End(server(**MANY)))
    streams = pair.client.open(1000)
    for _ in range(5):
        for stream_id in streams:
            pair.client.send(stream_id, b"ping")
        pair.run()
        for stream_id in streams:
            pair.server.send(stream_id, b"pong")
        pair.run()
    assert all(pair.server.received[n] == b"ping" * 5 for n in streams)
    assert all(pair.client.received[n] == b"pong" * 5 for n in streams)


def test_hashicorp_session_window_update_write_during_read():
    """hashicorp/yamux TestSession_WindowUpdateWriteDuringRead: credit that cannot be sent.

    There the read fails, since it has to write; here reading never waits for the wire. However
    often the caller reads meanwhile, what is owed goes out as one frame once the link moves.
    """
    engine = client()
    stream_id = engine.open_stream()
    said(engine)
    for _ in range(2):
        assert hear(engine, data(stream_id, bytes(WINDOW // 2)))
        engine.consumed(stream_id, WINDOW // 2, 0.0)
    assert len(engine._outbox._control) == 1
    assert said(engine) == ["PING|SYN 0 1", f"UPDATE {stream_id} {WINDOW}"]


@pytest.mark.parametrize("read", [WINDOW // 2 - 1, WINDOW // 2, WINDOW // 2 + 1])
def test_hashicorp_session_partial_read_window_update(read):
    """hashicorp/yamux TestSession_PartialReadWindowUpdate: half a window read is granted again."""
    pair = Pair(End(client(), reads=False))
    (stream_id,) = pair.client.open()
    pair.run()
    assert pair.server.engine.room(stream_id) == WINDOW
    pair.server.send(stream_id, bytes(WINDOW))
    pair.run()
    assert pair.server.engine.room(stream_id) == 0
    pair.client.read(stream_id, read)
    pair.run()
    assert pair.server.engine.room(stream_id) == (read if read >= WINDOW // 2 else 0)


def test_hashicorp_close_close_timeout():
    """hashicorp/yamux TestClose_closeTimeout: closed here, never by the other end.

    Only a caller who reads no more starts the time; half-closed alone, a stream may live on.
    """
    pair = Pair(End(client(close_linger=60.0)))
    quitter, listener = pair.client.open(2)
    for stream_id in (quitter, listener):
        pair.client.engine.send_eof(stream_id)
    pair.client.engine.stop_reading(quitter, pair.now)
    pair.run()
    pair.server.told()
    pair.sleep(59.0)
    assert pair.client.engine.stream_count == pair.server.engine.stream_count == 2
    pair.sleep(1.0)
    assert pair.client.told() == [StreamReset(quitter, 0)]
    assert pair.server.told() == [StreamReset(quitter, 0)]
    pair.sleep(1e6)
    assert pair.client.engine.stream_count == pair.server.engine.stream_count == 1


def test_hashicorp_open_stream_timeout():
    """hashicorp/yamux TestOpenStreamTimeout: a stream that is never acknowledged.

    There it ends the whole session after 75 s. Here a stream that nobody accepts harms nobody
    else: a peer that still answers pings is not dead, and its ACK may come with its first data.
    """
    pair = Pair(
        End(client(keepalive_interval=5.0)),
        End(server(keepalive_interval=5.0), accepts=False),
    )
    (stream_id,) = pair.client.open()
    pair.run()
    pair.client.told()
    pair.sleep(3600.0)
    assert not any(isinstance(event, StreamReset) for event in pair.client.told())
    assert pair.client.engine.stream_count == 1
    assert pair.client.engine.can_open()
    pair.server.engine.accept_stream(stream_id)
    pair.server.send(stream_id, b"late")
    pair.run()
    assert pair.client.received[stream_id] == b"late"


def test_hashicorp_open_stream_timeout_of_a_peer_that_is_gone():
    """hashicorp/yamux TestOpenStreamTimeout: keepalive is what ends a session that is dead."""
    engine = client(keepalive_interval=5.0, keepalive_timeout=5.0)
    engine.open_stream()
    said(engine)
    engine.on_timer(5.0)
    said(engine, 5.0)
    engine.on_timer(10.0)
    assert not engine.can_open()
    assert engine.next_deadline() is None


def test_hashicorp_go_away():
    """hashicorp/yamux TestGoAway: after the peer's go-away nothing new, but what lives goes on."""
    engine = client()
    stream_id = engine.open_stream()
    said(engine)
    assert hear(engine, go_away()) == [GoAwayReceived(0)]
    assert not engine.can_open()
    with pytest.raises(LocalProtocolError, match="no further stream"):
        engine.open_stream()
    engine.send_data(stream_id, b"still")
    assert said(engine) == [f"DATA {stream_id} 5"]
    body = memoryview(b"here")
    assert hear(engine, data(stream_id, b"here")) == [DataReceived(stream_id, body)]
    # Nor anything of the peer's: it has said that it goes.
    assert hear(engine, update(2, flags=SYN)) == []
    assert said(engine) == ["UPDATE|RST 2 0"]


def test_hashicorp_go_away_of_two_engines():
    """hashicorp/yamux TestGoAway: this engine's go-away is the last thing that it says.

    There it only stops new streams; `start_drain` does that here, without a word on the wire.
    """
    pair = Pair()
    pair.server.engine.start_drain()
    refused, _ = pair.client.open(2)
    pair.run()
    assert StreamReset(refused, 0) in pair.client.told()
    pair.server.engine.close()
    pair.run()
    assert pair.client.told() == [GoAwayReceived(0)]
    assert not pair.client.engine.can_open()
    assert said(pair.server.engine) == []
