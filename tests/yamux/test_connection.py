import pytest

from tests.yamux.wire import (
    FIN,
    SYN,
    WINDOW,
    accepted,
    client,
    data,
    go_away,
    hear,
    opened,
    ping,
    said,
    server,
    told,
    update,
)
from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.yamux import (
    CLOSED,
    NEED_DATA,
    Connection,
    ConnectionLost,
    DataReceived,
    KeepaliveTimeout,
    Role,
    RoomAvailable,
    StreamOpened,
)


def test_the_smallest_conversation():
    one, other = Connection(Role.CLIENT, now=0.0), Connection(Role.SERVER, now=0.0)
    stream_id = one.open_stream()
    one.send_data(stream_id, b"hello")
    assert one.has_data_to_send()
    assert hear(other, *one.data_to_send(0.0)) == [
        StreamOpened(stream_id),
        DataReceived(stream_id, memoryview(b"hello")),
    ]
    assert other.next_event() is NEED_DATA


def test_a_trace_sees_every_frame_in_both_directions():
    seen = []
    engine = Connection(Role.SERVER, now=0.0, trace=lambda *line: seen.append(line))
    hear(engine, update(1, flags=SYN))
    engine.accept_stream(1)
    said(engine)
    assert seen == [
        ("in", "WINDOW_UPDATE|SYN stream=1 length=0"),
        ("out", "WINDOW_UPDATE|ACK stream=1 length=0"),
    ]


# --- The end of the wire ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "clean"),
    [
        (b"", True),
        (ping(1), True),
        (ping(1)[:5], False),
        (data(1, b"hello")[:-1], False),
        (data(1, b"hello")[:12], False),
    ],
)
def test_the_end_is_clean_only_between_two_frames(wire, clean):
    engine = server()
    accepted(engine, 1)
    if wire:
        hear(engine, wire)
    engine.receive_data(b"", 0.0)
    assert told(engine)[-1:] == [ConnectionLost(clean)]
    assert engine.next_event() is CLOSED


def test_the_end_comes_after_all_that_came_before_it():
    engine = server()
    accepted(engine, 1)
    engine.receive_data(data(1, b"hello"), 0.0)
    engine.receive_data(b"", 0.0)
    assert told(engine) == [DataReceived(1, memoryview(b"hello")), ConnectionLost(True)]


# --- Over is over -------------------------------------------------------------------------------


def lose(engine):
    hear(engine, b"")


def break_protocol(engine):
    with pytest.raises(RemoteProtocolError):
        hear(engine, update(0, 1))


def fall_silent(engine):
    engine._end()  # as keepalive does; see test_keepalive


@pytest.mark.parametrize(
    "end",
    [
        lose,
        break_protocol,
        fall_silent,
        lambda engine: hear(engine, go_away(1)),
        lambda engine: engine.close(),
        lambda engine: engine.close(2),
    ],
)
def test_after_the_end_nothing_comes_and_nothing_goes(end):
    engine = client(max_outbound_streams=2, send_queue=10)
    one, other = opened(engine, 2)
    engine.send_data(one, bytes(10))
    assert engine.room(one) == 0
    assert not engine.can_open()
    assert hear(engine, update(2, flags=SYN)) == [StreamOpened(2)]
    end(engine)
    said(engine)
    assert engine.next_event() is CLOSED
    assert engine.pending == 0
    assert engine.next_deadline() is None
    assert not engine.can_open()
    assert engine.room(one) == engine.room(other) == 0
    with pytest.raises(LocalProtocolError, match="the connection is over"):
        engine.open_stream()
    # None of these may do anything, nor fail: the caller may not have noticed yet.
    engine.send_data(other, b"x")
    engine.send_eof(other)
    engine.consumed(other, 0, 0.0)
    engine.stop_reading(other, 0.0)
    engine.accept_stream(2)
    engine.reset_stream(one)
    engine.ping()
    engine.heard(0.0)
    engine.close(1)
    engine.on_timer(1e6)
    engine.receive_data(update(2, flags=SYN), 0.0)
    engine.receive_data(b"", 0.0)
    assert engine.next_event() is CLOSED
    assert not engine.can_open()
    assert engine.pending == 0
    assert not engine.has_data_to_send()
    assert said(engine) == []


def test_what_comes_after_the_end_is_not_kept():
    engine = client()
    engine.close()
    for _ in range(3):
        engine.receive_data(bytes(1000), 0.0)
    assert engine._inbox.parser.at_boundary


def test_after_the_end_not_even_a_stream_that_was_over_is_a_mistake():
    engine = client()
    (stream_id,) = opened(engine)
    engine.reset_stream(stream_id)
    engine.close()
    engine.send_data(stream_id, b"x")
    engine.send_eof(stream_id)
    assert said(engine)[-1] == "GO_AWAY 0 0"


def test_nothing_is_told_behind_the_end():
    engine = client(max_outbound_streams=1)
    (stream_id,) = opened(engine)
    assert not engine.can_open()
    assert hear(engine, b"") == [ConnectionLost(True)]
    engine.reset_stream(stream_id)  # room for another stream, had the connection not ended
    assert engine.next_event() is CLOSED


def test_after_a_close_no_time_is_up():
    engine = server(close_linger=1.0)
    accepted(engine, 1)
    engine.stop_reading(1, 0.0)
    engine.close()
    engine.on_timer(1.0)
    assert said(engine) == ["GO_AWAY 0 0"]


def test_the_deadline_is_the_first_of_all():
    engine = server(keepalive_interval=5.0, close_linger=3.0)
    accepted(engine, 1)
    assert engine.next_deadline() == 5.0
    engine.stop_reading(1, 0.0)
    assert engine.next_deadline() == 3.0
    hear(engine, update(1, flags=FIN))
    assert engine.next_deadline() == 5.0


def test_a_normal_close_says_what_is_due_and_then_goodbye():
    engine = client()
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(30_000))
    engine.send_eof(stream_id)
    hear(engine, ping(7))
    engine.close()
    frames = []
    while engine.has_data_to_send():
        frames += said(engine, max_bytes=10_000)
    assert frames[0] == "PING|ACK 0 7"
    assert frames[-2:] == ["UPDATE|FIN 1 0", "GO_AWAY 0 0"]
    assert sum(int(frame.split()[-1]) for frame in frames[1:-2]) == 30_000


def test_a_normal_close_does_not_wait_for_credit():
    engine = client()
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(WINDOW + 1))
    engine.close()
    assert said(engine)[-1] == "GO_AWAY 0 0"
    assert not engine.has_data_to_send()


@pytest.mark.parametrize("late", ["reset", "open frame", "data"])
def test_a_close_with_an_error_says_nothing_else(late):
    engine = client()
    one, other = opened(engine, 2)
    engine.send_data(one, b"x")
    engine.ping()
    engine.close(2)
    if late == "reset":
        engine.reset_stream(other)
    elif late == "data":
        engine.send_data(other, b"y")
    assert said(engine) == ["GO_AWAY 0 2"]


def test_a_close_also_drops_what_a_timeout_has_left_to_tell():
    engine = client(keepalive_interval=5.0, keepalive_timeout=5.0)
    engine.on_timer(5.0)
    engine.on_timer(10.0)
    engine.close()
    assert engine.next_event() is CLOSED


def test_nothing_is_told_after_the_callers_own_close():
    engine = client(send_queue=10)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(10))
    assert engine.room(stream_id) == 0
    said(engine)  # a RoomAvailable waits now
    engine.close()
    assert engine.next_event() is CLOSED


def test_what_happened_before_a_timeout_is_told_before_it():
    engine = client(send_queue=10, keepalive_interval=5.0, keepalive_timeout=5.0)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(10))
    engine.room(stream_id)
    engine.on_timer(5.0)
    said(engine, 5.0)
    engine.on_timer(10.0)
    engine.reset_stream(99)
    assert told(engine) == [RoomAvailable(stream_id), KeepaliveTimeout()]


def test_a_drain_ends_when_the_last_stream_has():
    engine = server()
    accepted(engine, 1)
    engine.start_drain()
    engine.send_eof(1)
    hear(engine, update(1, flags=FIN))
    said(engine)
    assert engine.stream_count == 0
    engine.close()
    assert said(engine) == ["GO_AWAY 0 0"]


# --- Lent buffers ------------------------------------------------------------------------------


def test_what_was_sent_of_a_lent_buffer_is_not_copied():
    engine = server()
    accepted(engine, 1)
    buffer = bytearray(b"hello")
    engine.lend_data(1, memoryview(buffer))
    (_, payload) = engine.data_to_send(0.0)
    assert payload.obj is buffer


def test_what_waits_of_a_lent_buffer_is_kept():
    engine = server()
    accepted(engine, 1)
    buffer = bytearray(b"abcdefgh" * 1000)
    engine.lend_data(1, memoryview(buffer))
    wire = b"".join(engine.data_to_send(0.0, max_bytes=3000))
    engine.keep_lent()
    buffer[:] = bytes(len(buffer))
    wire += b"".join(engine.data_to_send(0.0))
    client_engine = client()
    client_engine.open_stream()
    heard = hear(client_engine, wire)
    assert b"".join(event.data for event in heard) == b"abcdefgh" * 1000


def test_buffers_that_cannot_change_are_never_copied():
    engine = server()
    accepted(engine, 1)
    fixed, buffer = b"x" * 5000, bytearray(b"y" * 5000)
    engine.send_data(1, fixed)
    engine.lend_data(1, memoryview(buffer))
    engine.data_to_send(0.0, max_bytes=1024)
    engine.keep_lent()
    parts = engine.data_to_send(0.0)
    assert parts[1].obj is fixed
    assert parts[2] == buffer
    assert parts[2] is not buffer


def test_a_lent_buffer_of_a_stream_that_ended_is_forgotten():
    engine = server()
    accepted(engine, 1)
    engine.lend_data(1, memoryview(bytearray(b"hello")))
    engine.reset_stream(1)
    engine.keep_lent()
    assert said(engine) == ["UPDATE|RST 1 0"]
