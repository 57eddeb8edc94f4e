import pytest

from tests.yamux.wire import (
    ACK,
    FIN,
    RST,
    SYN,
    WINDOW,
    accepted,
    client,
    data,
    hear,
    opened,
    said,
    server,
    told,
    update,
)
from tunnel import limits
from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.yamux import (
    DataReceived,
    StreamClosed,
    StreamEOF,
    StreamOpened,
    StreamReset,
    StreamsAvailable,
)


def test_each_role_has_its_numbers():
    assert [client().open_stream(), server().open_stream()] == [1, 2]
    engine = client()
    assert [engine.open_stream() for _ in range(3)] == [1, 3, 5]


# --- How many -----------------------------------------------------------------------------------


def test_so_many_streams_may_be_open():
    engine = client(max_outbound_streams=2)
    streams = opened(engine, 2)
    assert not engine.can_open()
    with pytest.raises(LocalProtocolError, match="no further stream"):
        engine.open_stream()
    assert engine.stream_count == 2
    engine.reset_stream(streams[0])
    assert told(engine) == [StreamsAvailable()]
    assert engine.can_open()


def test_a_stream_that_ends_makes_room_for_one():
    engine = client(max_outbound_streams=3)
    engine.reset_stream(opened(engine, 3)[0])
    assert engine.can_open()
    engine.open_stream()
    assert not engine.can_open()


def test_one_that_asked_once_is_told_once():
    engine = client(max_outbound_streams=2)
    streams = opened(engine, 2)
    assert not engine.can_open()
    for stream_id in streams:
        engine.reset_stream(stream_id)
    assert told(engine) == [StreamsAvailable()]


def test_so_many_streams_may_be_unacknowledged():
    engine = client(max_unacknowledged=1)
    stream_id = engine.open_stream()
    assert not engine.can_open()
    said(engine)
    assert hear(engine, update(stream_id, flags=ACK)) == [StreamsAvailable()]
    assert engine.can_open()


def test_each_unacknowledged_stream_counts_and_is_acknowledged_once():
    engine = client(max_unacknowledged=2)
    stream_id = engine.open_stream()
    said(engine)
    hear(engine, *[update(stream_id, 1)] * 3)
    engine.open_stream()
    assert engine.can_open()
    engine.open_stream()
    assert not engine.can_open()


@pytest.mark.parametrize(
    "frame", [update(1, 10), update(1, flags=FIN), update(1, flags=RST), data(1, b"x"), data(1)]
)
def test_any_frame_of_a_stream_shows_that_the_peer_knows_it(frame):
    engine = client(max_unacknowledged=1)
    engine.open_stream()
    said(engine)
    assert not engine.can_open()
    assert StreamsAvailable() in hear(engine, frame)


def test_a_stream_that_ends_unacknowledged_counts_no_more():
    engine = client(max_unacknowledged=1)
    engine.reset_stream(engine.open_stream())
    assert engine.can_open()
    engine.open_stream()
    assert not engine.can_open()


def test_nobody_is_told_who_did_not_ask():
    engine = client(max_outbound_streams=1)
    engine.reset_stream(engine.open_stream())
    assert told(engine) == []


def test_numbers_run_out():
    engine = client()
    engine._table._next_id = limits.MAX_STREAM_ID
    assert not engine.exhausted
    assert engine.open_stream() == limits.MAX_STREAM_ID
    assert not engine.can_open()
    assert engine.exhausted


def test_streams_beyond_the_limit_are_reset_and_nobody_hears_of_them():
    engine = server(max_inbound_streams=2)
    events = hear(engine, *(update(stream_id, flags=SYN) for stream_id in (1, 3, 5)))
    assert events == [StreamOpened(1), StreamOpened(3)]
    assert said(engine) == ["UPDATE|RST 5 0"]
    engine.reset_stream(1)
    assert hear(engine, update(7, flags=SYN)) == [StreamOpened(7)]


def test_data_on_a_refused_stream_is_skipped():
    engine = server(max_inbound_streams=0)
    assert hear(engine, data(1, b"hello", SYN), data(1, b"more")) == []
    assert said(engine) == ["UPDATE|RST 1 0"]


def test_a_peer_may_use_a_number_again():
    engine = server()
    for _ in range(2):
        assert hear(engine, update(1, flags=SYN), update(1, flags=RST)) == [
            StreamOpened(1),
            StreamReset(1, 0),
        ]


def test_a_number_used_again_while_its_reset_waits():
    engine = server()
    accepted(engine, 1)
    engine.reset_stream(1, 9)
    assert hear(engine, update(1, flags=SYN)) == [StreamOpened(1)]
    engine.accept_stream(1)
    assert said(engine) == ["UPDATE|RST 1 9", "UPDATE|ACK 1 0"]


# --- Ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["we", "they"])
def test_a_stream_is_closed_once_when_both_have_finished(first):
    engine = server()
    accepted(engine, 1)
    if first == "we":
        engine.send_eof(1)
        said(engine)
        assert told(engine) == []
        assert hear(engine, update(1, flags=FIN)) == [StreamEOF(1), StreamClosed(1)]
    else:
        assert hear(engine, update(1, flags=FIN)) == [StreamEOF(1)]
        engine.send_eof(1)
        assert told(engine) == []
        said(engine)
        assert told(engine) == [StreamClosed(1)]
    assert engine.stream_count == 0
    assert hear(engine, update(1, flags=FIN), update(1, flags=RST), data(1, b"late")) == []


def test_the_end_comes_behind_the_data():
    engine = server()
    accepted(engine, 1)
    assert hear(engine, data(1, b"hello", FIN)) == [
        DataReceived(1, memoryview(b"hello")),
        StreamEOF(1),
    ]


def test_the_end_waits_for_the_last_piece_of_its_frame():
    engine = server()
    accepted(engine, 1)
    frame = data(1, b"hello", FIN)
    assert hear(engine, frame[:14]) == [DataReceived(1, memoryview(b"he"))]
    assert hear(engine, frame[14:]) == [DataReceived(1, memoryview(b"llo")), StreamEOF(1)]


def test_a_reset_ends_both_directions():
    engine = server()
    accepted(engine, 1)
    engine.send_data(1, b"never")
    assert hear(engine, update(1, 4, RST)) == [StreamReset(1, 4)]
    assert said(engine) == []
    assert engine.room(1) == 0
    assert engine.stream_count == 0


def test_after_our_own_reset_nothing_is_told():
    engine = server()
    accepted(engine, 1)
    engine.reset_stream(1)
    assert hear(engine, data(1, b"late"), update(1, 5), update(1, flags=FIN)) == []
    assert said(engine) == ["UPDATE|RST 1 0"]


def test_after_our_own_reset_what_waited_is_not_told_either():
    engine = server(send_queue=10)
    accepted(engine, 1, 3)
    engine.send_data(1, bytes(10))
    engine.send_data(3, bytes(10))
    assert engine.room(1) == engine.room(3) == 0
    said(engine)
    engine.reset_stream(1)
    assert [event.stream_id for event in told(engine)] == [3]


def test_a_reset_between_the_last_data_and_the_end():
    engine = server()
    accepted(engine, 1)
    engine.receive_data(data(1, b"hello", FIN), 0.0)
    assert engine.next_event() == DataReceived(1, memoryview(b"hello"))
    engine.reset_stream(1)
    assert told(engine) == []


@pytest.mark.parametrize("flags", [0, FIN])
def test_a_reset_in_the_middle_of_a_frame_skips_the_rest(flags):
    engine = server()
    accepted(engine, 1, 3)
    frame = data(1, b"hello", flags)
    hear(engine, frame[:14])
    engine.reset_stream(1)
    assert hear(engine, frame[14:], data(3, b"x")) == [DataReceived(3, memoryview(b"x"))]


def test_a_stream_that_is_over_before_the_caller_can_know_is_no_mistake():
    engine = server(close_linger=1.0)
    accepted(engine, 1)
    engine.stop_reading(1, 0.0)
    engine.on_timer(1.0)
    engine.send_data(1, b"x")
    engine.send_eof(1)
    assert told(engine) == [StreamReset(1, 0)]
    with pytest.raises(LocalProtocolError, match="stream 1 is over"):
        engine.send_data(1, b"x")


def test_an_end_that_waits_is_not_told_after_our_own_reset():
    engine = server(close_linger=1.0)
    accepted(engine, 1)
    engine.stop_reading(1, 0.0)
    engine.on_timer(1.0)
    engine.reset_stream(1)
    with pytest.raises(LocalProtocolError):
        engine.send_data(1, b"x")
    assert told(engine) == []
    with pytest.raises(LocalProtocolError):
        engine.send_eof(1)


# --- Nobody reads -------------------------------------------------------------------------------


def test_bytes_for_nobody_reset_the_stream():
    engine = server()
    accepted(engine, 1)
    engine.stop_reading(1, 0.0)
    assert hear(engine, data(1, b"x"), data(1, b"y")) == [StreamReset(1, 0)]
    assert said(engine) == ["UPDATE|RST 1 0"]
    assert engine.next_deadline() is None


def test_bytes_for_nobody_are_not_waited_for():
    engine = server()
    accepted(engine, 1)
    engine.stop_reading(1, 0.0)
    assert hear(engine, data(1, b"hello")[:12]) == [StreamReset(1, 0)]


def test_the_rest_of_a_frame_for_nobody_resets_the_stream_too():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, b"hello")[:14])
    engine.stop_reading(1, 0.0)
    assert hear(engine, data(1, b"hello")[14:]) == [StreamReset(1, 0)]


def test_a_peer_that_never_ends_its_stream_is_reset_in_the_end():
    engine = server(close_linger=60.0)
    accepted(engine, 1, 3)
    engine.stop_reading(1, 10.0)
    engine.stop_reading(3, 20.0)
    engine.stop_reading(1, 50.0)  # once is enough
    assert engine.next_deadline() == 70.0
    engine.on_timer(69.9)
    assert told(engine) == []
    engine.on_timer(70.0)
    assert told(engine) == [StreamReset(1, 0)]
    assert engine.next_deadline() == 80.0
    engine.on_timer(80.0)
    assert said(engine) == ["UPDATE|RST 1 0", "UPDATE|RST 3 0"]
    assert engine.next_deadline() is None


def test_a_stream_that_still_sends_is_given_its_time():
    # A slow peer must not lose the end of what we have sent.
    engine = server(close_linger=60.0)
    accepted(engine, 1)
    engine.send_data(1, bytes(WINDOW + 10))
    engine.send_eof(1)
    engine.stop_reading(1, 0.0)
    said(engine, 5.0)
    assert engine.next_deadline() == 65.0
    hear(engine, update(1, 10), now=64.0)
    said(engine, 64.0)
    assert engine.next_deadline() == 124.0
    assert hear(engine, update(1, flags=FIN), now=100.0) == [StreamEOF(1), StreamClosed(1)]
    assert engine.next_deadline() is None


def test_the_first_deadline_is_that_of_the_stream_that_has_stood_still_longest():
    engine = server(close_linger=60.0)
    accepted(engine, 1, 3)
    engine.stop_reading(1, 0.0)
    engine.stop_reading(3, 5.0)
    engine.send_data(1, b"x")
    said(engine, 10.0)
    assert engine.next_deadline() == 65.0


def test_a_stream_that_the_peer_has_ended_may_send_for_ever():
    engine = server()
    accepted(engine, 1)
    engine.stop_reading(1, 0.0)
    hear(engine, update(1, flags=FIN))
    engine.send_data(1, b"x")
    assert said(engine) == ["DATA 1 1"]
    assert engine.next_deadline() is None


def test_nothing_to_wait_for_if_the_peer_ends_in_time():
    engine = server()
    accepted(engine, 1)
    engine.stop_reading(1, 0.0)
    assert hear(engine, update(1, flags=FIN)) == [StreamEOF(1)]
    assert engine.next_deadline() is None
    engine.on_timer(1e6)
    assert engine.room(1) > 0


def test_nothing_to_wait_for_if_the_peer_has_ended():
    engine = server()
    accepted(engine, 1)
    hear(engine, update(1, flags=FIN))
    engine.stop_reading(1, 0.0)
    engine.stop_reading(99, 0.0)
    assert engine.next_deadline() is None


# --- Drain --------------------------------------------------------------------------------------


def test_a_drain_refuses_streams_and_keeps_those_that_live():
    engine = server()
    accepted(engine, 1)
    engine.start_drain()
    assert not engine.can_open()
    with pytest.raises(LocalProtocolError):
        engine.open_stream()
    assert hear(engine, update(3, flags=SYN), data(1, b"x")) == [DataReceived(1, memoryview(b"x"))]
    engine.send_data(1, b"y")
    assert said(engine) == ["UPDATE|RST 3 0", "DATA 1 1"]


def test_nobody_is_told_of_streams_that_a_drain_will_not_give():
    engine = client(max_outbound_streams=1)
    (stream_id,) = opened(engine)
    assert not engine.can_open()
    engine.start_drain()
    engine.reset_stream(stream_id)
    assert told(engine) == []


# --- Memory -------------------------------------------------------------------------------------


def test_resets_that_nobody_reads_have_a_bound():
    engine = server(max_inbound_streams=3, max_outbound_streams=2)
    bound = 3 + 2 + limits.MAX_PENDING_REFUSALS
    for stream_id in range(1, 2 * bound, 2):
        hear(engine, update(stream_id, flags=SYN))
        engine.reset_stream(stream_id)
    with pytest.raises(RemoteProtocolError, match="faster than their resets are read"):
        hear(engine, update(2 * bound + 1, flags=SYN))


def test_refusals_that_nobody_reads_have_a_bound():
    engine = server(max_inbound_streams=0, max_outbound_streams=0)
    refused = limits.MAX_PENDING_REFUSALS
    hear(engine, *(update(n, flags=SYN) for n in range(1, 2 * refused, 2)))
    with pytest.raises(RemoteProtocolError, match="faster than their resets are read"):
        hear(engine, update(2 * refused + 1, flags=SYN))


def test_a_stream_that_is_over_is_forgotten_everywhere():
    engine = server(send_queue=10, total_send_queue=10)
    for end in (
        engine.reset_stream,
        lambda n: hear(engine, update(n, flags=RST)),
        lambda n: (engine.send_eof(n), hear(engine, update(n, flags=FIN)), said(engine)),
    ):
        accepted(engine, 1, 3)
        engine.send_data(1, bytes(10))
        engine.room(3)
        engine.stop_reading(1, 0.0)
        end(1)
        end(3)
        said(engine)
        told(engine)
        table, outbox = engine._table, engine._outbox
        assert not any((table._streams, table._starved, table._lingering))
        assert not any((outbox._control, outbox._fresh, outbox._backlog, outbox.served))
        assert (table._inbound, table._outbound, table._unacknowledged) == (0, 0, 0)
        assert engine.pending == 0
