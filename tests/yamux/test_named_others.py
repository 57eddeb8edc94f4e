"""What libp2p's Yamux in Go and in Rust test of themselves: each test names its original."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.yamux.pair import End, Pair
from tests.yamux.wire import (
    ACK,
    DATA,
    HEADER,
    SYN,
    WINDOW,
    client,
    data,
    hear,
    opened,
    said,
    server,
    update,
)
from tunnel import limits
from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.yamux import (
    CLOSED,
    ConnectionLost,
    GoAwayReceived,
    StreamClosed,
    StreamEOF,
    StreamOpened,
    StreamReset,
    StreamsAvailable,
)

# --- Go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [client, server])
def test_go_client_client_and_server_server(role):
    """libp2p/go-yamux TestClientClient, TestServerServer: both ends think that they dialled.

    JavaScript asks the same ("test client<->client", "test server<->server").
    """
    first, second = role(), role()
    first.open_stream()
    with pytest.raises(RemoteProtocolError, match="whose number is ours"):
        hear(second, b"".join(first.data_to_send(0.0)))
    assert hear(first, b"".join(second.data_to_send(0.0))) == [GoAwayReceived(1)]
    assert first.next_event() is second.next_event() is CLOSED
    assert said(first) == said(second) == []


def test_go_close_read():
    """libp2p/go-yamux TestCloseRead: a caller who reads no more is given nothing any more.

    There what still comes is dropped without a word, and its writer goes on until the window is
    full; here it resets the stream, so that the writer knows.
    """
    pair = Pair()
    (stream_id,) = pair.client.open()
    pair.run()
    pair.server.engine.stop_reading(stream_id, pair.now)
    pair.client.send(stream_id, b"a")
    pair.run()
    assert not pair.server.received
    assert StreamReset(stream_id, 0) in pair.client.events
    assert pair.client.engine.room(stream_id) == 0
    assert pair.server.engine.stream_count == pair.client.engine.stream_count == 0


@pytest.mark.parametrize("stream_id", [1, 3, 99])
def test_go_window_overflow(stream_id):
    """libp2p/go-yamux TestWindowOverflow: twice the window in one frame ends the session.

    JavaScript asks the same (stream.spec "window overflow"). The header alone is enough.
    """
    engine = server()
    assert hear(engine, data(stream_id, flags=SYN)) == [StreamOpened(stream_id)]
    with pytest.raises(RemoteProtocolError, match="were granted"):
        hear(engine, HEADER.pack(0, DATA, 0, stream_id, 2 * WINDOW))
    assert said(engine) == ["GO_AWAY 0 1"]
    assert engine.next_event() is CLOSED


@pytest.mark.parametrize("client_window", [WINDOW, WINDOW + 1, 5 * WINDOW])
@pytest.mark.parametrize("server_window", [WINDOW, 2 * WINDOW - 1, 3 * WINDOW])
def test_go_initial_stream_window(client_window, server_window):
    """libp2p/go-yamux TestInitialStreamWindow: no pair of window sizes makes a transfer stall.

    There each end chooses its first window; here it is fixed, and how far it may grow is chosen.
    """
    size = 50 * WINDOW
    pair = Pair(
        End(client(max_window=client_window)), End(server(max_window=server_window)), hop=0.05
    )
    (stream_id,) = pair.client.open()
    pair.run()
    for end in (pair.client, pair.server):
        end.send(stream_id, bytes(size))
    pair.run()
    for end, window in ((pair.client, client_window), (pair.server, server_window)):
        assert len(end.received[stream_id]) == size
        assert end.engine._table.get(stream_id).target == window


@pytest.mark.parametrize("granted", [0, 1, WINDOW - 1, 5 * WINDOW])
def test_go_initial_stream_window_of_a_peer_that_starts_larger(granted):
    """libp2p/go-yamux TestInitialStreamWindow: a first window that comes with the peer's SYN."""
    engine = server(send_queue=10 * WINDOW)
    hear(engine, update(1, granted, SYN))
    engine.accept_stream(1)
    engine.send_data(1, bytes(6 * WINDOW))
    assert sum(int(frame.split()[2]) for frame in said(engine)) == WINDOW + granted
    hear(engine, update(1, 5 * WINDOW - granted))
    assert sum(int(frame.split()[2]) for frame in said(engine)) == 5 * WINDOW - granted


def test_go_max_incoming_streams():
    """libp2p/go-yamux TestMaxIncomingStreams: one too many is reset, until another has ended.

    JavaScript asks the same ("test max inbound streams").
    """
    pair = Pair(server_end=End(server(max_inbound_streams=5)))
    streams = pair.client.open(5)
    for stream_id in streams:
        pair.client.engine.send_eof(stream_id)
    pair.run()
    (refused,) = pair.client.open()
    pair.run()
    assert pair.client.told() == [StreamReset(refused, 0)]
    assert len(pair.server.told()) == 10  # nothing of the sixth
    pair.server.engine.send_eof(streams[0])
    pair.run()
    (welcome,) = pair.client.open()
    pair.server.told()
    pair.run()
    assert pair.server.told() == [StreamOpened(welcome)]
    assert pair.server.engine.stream_count == 5


def test_go_stream_reset_with_error():
    """libp2p/go-yamux TestStreamResetWithError: the code of a reset arrives."""
    pair = Pair()
    (stream_id,) = pair.client.open()
    pair.run()
    pair.client.engine.reset_stream(stream_id, 42)
    pair.run()
    assert pair.server.told() == [StreamOpened(stream_id), StreamReset(stream_id, 42)]
    assert pair.client.told() == []


def test_go_lots_of_writes_with_stream_deadline():
    """libp2p/go-yamux TestLotsOfWritesWithStreamDeadline: writes that expire on a blocked link.

    The one who gives up resets its stream; none of its bytes go out when the link moves again,
    and the other stream's do.
    """
    pair = Pair()
    clogger, hasty = pair.client.open(2)
    pair.run()
    engine = pair.client.engine
    engine.send_data(clogger, b"d")
    written = 0
    while room := engine.room(hasty):
        engine.send_data(hasty, b"foobar"[:room])
        written += min(room, 6)
    assert written == limits.STREAM_QUEUE
    assert engine.pending == written + 1
    engine.reset_stream(hasty)
    assert engine.pending == 1
    pair.run()
    assert pair.server.received == {clogger: b"d"}
    assert StreamReset(hasty, 0) in pair.server.told()


def test_go_session_close_deadlock():
    """libp2p/go-yamux TestSessionCloseDeadlock: the end, within a frame, with writes under way."""
    engine = client()
    (stream_id,) = opened(engine)
    hear(engine, data(stream_id, bytes(2024))[:-1000])
    for _ in range(1000):
        engine.send_data(stream_id, b"x")
    assert hear(engine, b"") == [ConnectionLost(clean=False)]
    for _ in range(1000):
        engine.send_data(stream_id, b"x")
    engine.send_eof(stream_id)
    engine.close()
    assert engine.pending == 0
    assert said(engine) == []
    assert not engine.has_data_to_send()


# --- Rust ----------------------------------------------------------------------------------------


def test_rust_honours_ack_backlog_of_256():
    """libp2p/rust-yamux honours_ack_backlog_of_256: the 257th waits for an acknowledgement."""
    pair = Pair(End(client(max_outbound_streams=1000)), End(server(), accepts=False))
    first, *_ = pair.client.open(256)
    pair.run()
    assert not pair.client.engine.can_open()
    pair.server.engine.accept_stream(first)
    pair.run()
    assert pair.client.told() == [StreamsAvailable()]
    pair.client.open()
    assert not pair.client.engine.can_open()


def test_rust_stream_is_acknowledged_on_first_use():
    """libp2p/rust-yamux stream_is_acknowledged_on_first_use: data carries the ACK there.

    Taken so from a peer, with or without the flag; said here as soon as the caller accepts.
    """
    for flags in (ACK, 0):
        engine = client(max_unacknowledged=1)
        stream_id = engine.open_stream()
        said(engine)
        assert not engine.can_open()
        assert StreamsAvailable() in hear(engine, data(stream_id, b"used", flags))
        assert engine.can_open()
    engine = server()
    hear(engine, update(1, flags=SYN))
    assert said(engine) == []
    engine.accept_stream(1)
    assert said(engine) == ["UPDATE|ACK 1 0"]
    engine.send_data(1, b"used")
    assert said(engine) == ["DATA 1 4"]


@given(message=st.binary(min_size=1, max_size=1000), batch=st.integers(1, 2000))
def test_rust_prop_send_recv_half_closed(message, batch):
    """libp2p/rust-yamux prop_send_recv_half_closed: an answer after the question's end."""
    pair = Pair(batch=batch)
    (stream_id,) = pair.client.open()
    pair.client.send(stream_id, message)
    pair.client.refill()
    pair.client.engine.send_eof(stream_id)
    pair.run()
    assert pair.server.received[stream_id] == message
    assert pair.server.told() == [StreamOpened(stream_id), StreamEOF(stream_id)]
    with pytest.raises(LocalProtocolError, match="local EOF"):
        pair.client.engine.send_data(stream_id, b"x")
    pair.server.send(stream_id, message)
    pair.server.refill()
    pair.server.engine.send_eof(stream_id)
    pair.run()
    assert pair.client.received[stream_id] == message
    assert pair.client.told() == [StreamEOF(stream_id), StreamClosed(stream_id)]
    assert pair.server.told() == [StreamClosed(stream_id)]


class Echo(End):
    """Reads only as fast as it can send back."""

    def __init__(self, engine):
        super().__init__(engine, reads=False)

    def refill(self):
        for stream_id, body in self.received.items():
            size = min(self.engine.room(stream_id), len(body))
            self.engine.send_data(stream_id, bytes(body[:size]))
            del body[:size]
            self.read(stream_id, size)


def test_rust_write_deadlock():
    """libp2p/rust-yamux write_deadlock: one large message echoed over a link of 1 KiB.

    Far more than both windows and both queues together: it ends only if each end goes on reading
    while its own writing waits.
    """
    size = 6 * WINDOW
    pair = Pair(server_end=Echo(server()), batch=1024)
    (stream_id,) = pair.client.open()
    message = bytes(range(256)) * (size // 256)
    pair.client.send(stream_id, message)
    pair.run()
    assert pair.client.received[stream_id] == message
    assert pair.client.engine.pending == pair.server.engine.pending == 0


def test_rust_close_through_drop_of_stream_propagates_to_remote():
    """libp2p/rust-yamux close_through_drop_of_stream_propagates_to_remote: dropped after a write.

    A caller who is gone says EOF and reads no more: what was written arrives, then the end.
    """
    pair = Pair()
    (stream_id,) = pair.client.open()
    pair.client.engine.send_data(stream_id, b"*")
    pair.client.engine.send_eof(stream_id)
    pair.client.engine.stop_reading(stream_id, pair.now)
    pair.run()
    assert pair.server.received[stream_id] == b"*"
    assert pair.server.told() == [StreamOpened(stream_id), StreamEOF(stream_id)]
    pair.server.engine.send_eof(stream_id)
    pair.run()
    assert pair.server.engine.stream_count == pair.client.engine.stream_count == 0
    assert pair.client.engine.next_deadline() is None


@given(count=st.integers(0, 99))
def test_rust_prop_max_streams(count):
    """libp2p/rust-yamux prop_max_streams: as many as allowed, and not one more.

    JavaScript asks the same ("test max outbound streams").
    """
    pair = Pair(End(client(max_outbound_streams=count)))
    pair.client.open(count)
    pair.run()
    assert pair.client.engine.stream_count == pair.server.engine.stream_count == count
    with pytest.raises(LocalProtocolError, match="no further stream"):
        pair.client.engine.open_stream()
