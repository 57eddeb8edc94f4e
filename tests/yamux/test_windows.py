import pytest

from tests.yamux.wire import (
    ACK,
    FIN,
    SYN,
    WINDOW,
    accepted,
    data,
    hear,
    ping,
    said,
    server,
    told,
    update,
)
from tunnel import limits
from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.yamux import DataReceived, RoomAvailable, Settings, StreamEOF
from tunnel.yamux.stream import Stream
from tunnel.yamux.windows import Windows

HALF = bytes(WINDOW // 2)


def test_no_credit_without_consumption():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, HALF), data(1, HALF))
    assert said(engine) == []
    with pytest.raises(RemoteProtocolError, match="1 bytes on stream 1, 0 were granted"):
        hear(engine, data(1, b"x"))


def test_credit_goes_back_in_steps_of_half_a_window():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, HALF))
    engine.consumed(1, WINDOW // 2 - 1, 0.0)
    assert said(engine) == []
    engine.consumed(1, 1, 0.0)
    assert said(engine) == ["PING|SYN 0 1", f"UPDATE 1 {WINDOW // 2}"]


def test_credit_of_several_steps_is_one_frame():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, HALF), data(1, HALF))
    engine.consumed(1, WINDOW // 2, 0.0)
    engine.consumed(1, WINDOW // 2, 0.0)
    assert said(engine)[1:] == [f"UPDATE 1 {WINDOW}"]


def test_each_step_of_credit_is_granted_once():
    engine = server()
    accepted(engine, 1)
    for _ in range(2):
        hear(engine, data(1, HALF))
        engine.consumed(1, len(HALF), 0.0)
        assert said(engine)[-1] == f"UPDATE 1 {len(HALF)}"


def test_credit_that_goes_with_the_acknowledgement_does_not_go_again():
    engine = server()
    hear(engine, update(1, flags=SYN), data(1, HALF))
    engine.consumed(1, len(HALF), 0.0)
    engine.accept_stream(1)
    assert said(engine) == ["PING|SYN 0 1", f"UPDATE|ACK 1 {len(HALF)}"]


def test_nothing_can_be_consumed_twice():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, b"hello"))
    engine.consumed(1, 3, 0.0)
    with pytest.raises(LocalProtocolError, match="consumed 3 of 2 bytes"):
        engine.consumed(1, 3, 0.0)
    engine.consumed(1, 2, 0.0)


def test_a_round_trip_is_measured_now_and_then_while_credit_flows():
    engine = server()
    accepted(engine, 1)
    for now, expected in ((0.0, True), (1.0, False), (5.0, True)):
        hear(engine, data(1, HALF), now=now)
        engine.consumed(1, len(HALF), now)
        frames = said(engine, now)
        assert [frame for frame in frames if frame.startswith("PING")] == (
            [f"PING|SYN 0 {1 + int(now) // 5}"] if expected else []
        )
        if expected:
            hear(engine, ping(1 + int(now) // 5, ACK), now=now)


def test_credit_stops_when_the_peer_has_sent_everything():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, HALF), data(1, HALF))
    engine.consumed(1, WINDOW // 2, 0.0)
    assert hear(engine, update(1, flags=FIN)) == [StreamEOF(1)]
    engine.consumed(1, WINDOW // 2, 0.0)
    assert [frame for frame in said(engine) if "UPDATE" in frame] == []


def test_credit_that_is_taken_back_leaves_nothing_to_send():
    # Not even if data that the peer's window holds back, and a FIN, are still to be said.
    engine = server()
    accepted(engine, 1)
    engine.send_data(1, bytes(WINDOW + 1))
    engine.send_eof(1)
    hear(engine, data(1, HALF), data(1, HALF))
    engine.consumed(1, len(HALF), 0.0)
    said(engine)
    engine.consumed(1, len(HALF), 0.0)
    assert engine.has_data_to_send()
    hear(engine, update(1, flags=FIN))
    assert not engine.has_data_to_send()
    assert engine.data_to_send(0.0) == []


def test_credit_that_is_taken_back_was_all_that_there_was_to_say():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, HALF), data(1, HALF))
    engine.consumed(1, len(HALF), 0.0)
    said(engine)
    engine.consumed(1, len(HALF), 0.0)
    hear(engine, update(1, flags=FIN))
    assert not engine.has_data_to_send()
    engine.send_eof(1)
    assert said(engine) == ["UPDATE|FIN 1 0"]


def test_what_is_consumed_after_the_end_is_nobodys_business():
    engine = server()
    accepted(engine, 1)
    hear(engine, data(1, b"hello"))
    engine.reset_stream(1)
    engine.consumed(1, 5, 0.0)
    engine.consumed(99, 5, 0.0)
    assert said(engine) == ["UPDATE|RST 1 0"]


def test_a_frame_as_large_as_the_window_is_taken_as_it_comes():
    engine = server()
    accepted(engine, 1)
    frame = data(1, bytes(WINDOW))
    assert [len(event.data) for event in hear(engine, frame[:1000])] == [988]
    assert [len(event.data) for event in hear(engine, frame[1000:])] == [WINDOW - 988]


def test_the_window_is_checked_before_a_byte_of_the_frame_is_taken():
    engine = server()
    accepted(engine, 1)
    with pytest.raises(RemoteProtocolError):
        hear(engine, data(1, bytes(WINDOW + 1))[:12])


# --- Growth -------------------------------------------------------------------------------------


def windows(rtt=0.1, **settings):
    policy = Windows(Settings(**settings))
    policy.rtt = rtt
    return policy


def use_up(policy, stream, now):
    stream.window -= stream.target // 2
    stream.owed += stream.target // 2
    assert stream.owed >= stream.target // 2
    policy.grant(stream, now)


def test_a_window_that_holds_a_stream_up_doubles():
    policy, stream = windows(), Stream(1, outbound=False)
    use_up(policy, stream, 0.1)
    assert stream.target == stream.window == 2 * WINDOW
    assert stream.credit == WINDOW + WINDOW // 2
    use_up(policy, stream, 0.2)
    assert stream.target == 4 * WINDOW


def test_a_window_that_is_large_enough_stays():
    policy, stream = windows(), Stream(1, outbound=False)
    for now in (0.2, 10.0):  # two round trips, and many
        use_up(policy, stream, now)
        assert stream.target == stream.window == WINDOW


@pytest.mark.parametrize(
    "pass_time", [lambda engine: said(engine, 10.0), lambda engine: engine.on_timer(10.0)]
)
def test_a_first_window_counts_from_when_its_stream_was_opened(pass_time):
    engine = server()
    engine.ping()
    said(engine, 0.0)
    hear(engine, ping(1, ACK), now=1.0)
    pass_time(engine)
    stream_id = engine.open_stream()
    said(engine, 10.0)
    hear(engine, data(stream_id, HALF), now=11.0)  # one round trip later: too small
    engine.consumed(stream_id, len(HALF), 11.0)
    assert f"UPDATE {stream_id} {WINDOW + WINDOW // 2}" in said(engine, 11.0)


def test_no_window_grows_before_a_round_trip_was_measured():
    policy, stream = windows(rtt=None), Stream(1, outbound=False)
    use_up(policy, stream, 0.0)
    assert stream.target == WINDOW


def test_a_window_has_a_limit():
    policy, stream = windows(max_window=3 * WINDOW), Stream(1, outbound=False)
    for _ in range(3):
        use_up(policy, stream, 0.0)
    assert stream.target == 3 * WINDOW


def test_all_windows_together_have_a_limit_and_give_back_at_the_end():
    policy = windows(window_pool=WINDOW + WINDOW // 2)
    one, other = Stream(1, outbound=False), Stream(3, outbound=False)
    use_up(policy, one, 0.0)
    use_up(policy, other, 0.0)
    assert (one.target, other.target) == (2 * WINDOW, WINDOW + WINDOW // 2)
    use_up(policy, one, 0.0)
    assert one.target == 2 * WINDOW
    policy.release(one)
    policy.release(other)
    assert policy._pool == WINDOW + WINDOW // 2
    third = Stream(5, outbound=False)
    use_up(policy, third, 0.0)
    assert third.target == 2 * WINDOW


def test_a_stream_that_ends_gives_its_window_back():
    engine = server(window_pool=WINDOW)
    engine.ping()
    assert said(engine, 0.0) == ["PING|SYN 0 1"]
    hear(engine, ping(1, ACK), now=1.0)
    for stream_id in (1, 3):
        accepted(engine, stream_id)
        hear(engine, data(stream_id, HALF), now=1.0)
        engine.consumed(stream_id, len(HALF), 1.0)
        assert f"UPDATE {stream_id} {WINDOW + WINDOW // 2}" in said(engine)
        engine.reset_stream(stream_id)


# --- Sending ------------------------------------------------------------------------------------


def test_the_peers_window_is_never_exceeded():
    engine = server(max_frame=limits.OWN_FRAME)
    accepted(engine, 1)
    engine.send_data(1, bytes(WINDOW + 1000))
    assert sum(int(frame.split()[-1]) for frame in said(engine)) == WINDOW
    assert not engine.has_data_to_send()
    assert engine.pending == 1000
    hear(engine, update(1, 10))
    assert said(engine) == ["DATA 1 10"]


def test_a_stream_that_asked_is_told_when_credit_comes():
    engine = server()
    accepted(engine, 1)
    engine.send_data(1, bytes(engine.room(1)))
    assert engine.room(1) == 0
    said(engine)
    assert told(engine) == []
    assert engine.room(1) == 0
    assert hear(engine, update(1, 10)) == [RoomAvailable(1)]
    assert engine.room(1) == 10
    assert hear(engine, update(1, 10)) == []  # it has not asked again


def test_room_for_one_byte_is_room():
    engine = server()
    accepted(engine, 1)
    engine.send_data(1, bytes(WINDOW))
    said(engine)
    assert engine.room(1) == 0
    assert hear(engine, update(1, 1)) == [RoomAvailable(1)]
    assert engine.room(1) == 1


def test_a_window_beyond_32_bits_is_an_error():
    engine = server()
    accepted(engine, 1)
    assert hear(engine, update(1, 2**32 - 1 - WINDOW)) == []
    with pytest.raises(RemoteProtocolError, match=r"beyond 2\^32 - 1"):
        hear(engine, update(1, 1))


def test_credit_may_come_with_syn_and_ack():
    engine = server()
    hear(engine, update(1, 1000, flags=1))
    engine.accept_stream(1)
    engine.send_data(1, bytes(WINDOW + 2000))
    said(engine)
    assert engine.pending == 1000
    stream_id = engine.open_stream()
    engine.send_data(stream_id, bytes(WINDOW + 2000))
    said(engine)
    hear(engine, update(stream_id, 500, flags=ACK))
    assert said(engine) == [f"DATA {stream_id} 500"]


def test_a_piece_of_data_is_what_was_sent():
    engine = server()
    accepted(engine, 1)
    assert hear(engine, data(1, b"hello")) == [DataReceived(1, memoryview(b"hello"))]


# --- Shrinking ----------------------------------------------------------------------------------


def test_a_window_that_is_far_too_large_shrinks_by_halves_and_gives_back():
    policy, stream = windows(window_pool=3 * WINDOW), Stream(1, outbound=False)
    for now in (0.0, 0.1):
        use_up(policy, stream, now)
    assert (stream.target, policy._pool) == (4 * WINDOW, 0)
    use_up(policy, stream, 0.1 + 17 * 0.1)  # seventeen round trips for half of it
    assert (stream.target, policy._pool) == (2 * WINDOW, 2 * WINDOW)
    assert stream.window + stream.unconsumed + stream.owed == stream.target
    use_up(policy, stream, 100.0)
    use_up(policy, stream, 200.0)
    assert (stream.target, policy._pool) == (WINDOW, 3 * WINDOW)


def test_a_window_shrinks_by_half_however_much_of_it_was_used_up_at_once():
    policy, stream = windows(), Stream(1, outbound=False)
    for now in (0.0, 0.1):
        use_up(policy, stream, now)
    stream.window, stream.owed = 0, stream.target
    policy.grant(stream, 10.0)
    assert stream.target == stream.window == 2 * WINDOW


def test_between_too_small_and_too_large_nothing_changes():
    policy, stream = windows(rtt=0.125), Stream(1, outbound=False)
    use_up(policy, stream, 0.0)
    for now in (0.25, 2.25):  # two round trips, and sixteen
        use_up(policy, stream, now)
        assert stream.target == 2 * WINDOW


def test_shrinking_takes_back_only_what_the_peer_does_not_hold():
    policy, stream = windows(), Stream(1, outbound=False)
    use_up(policy, stream, 0.0)
    held = stream.window - stream.target // 2
    use_up(policy, stream, 10.0)
    assert stream.window >= held
    assert stream.credit >= 0
