import pytest

from tests.yamux.wire import ACK, client, hear, ping, said, told
from tunnel.yamux import CLOSED, KeepaliveTimeout, PongReceived

ON = {"keepalive_interval": 5.0, "keepalive_timeout": 3.0}


def test_a_ping_goes_out_after_silence_and_only_once():
    engine = client(**ON)
    assert engine.next_deadline() == 5.0
    engine.on_timer(4.9)
    assert said(engine, 4.9) == []
    engine.on_timer(5.0)
    assert said(engine, 5.0) == ["PING|SYN 0 1"]
    engine.on_timer(6.0)
    assert said(engine, 6.0) == []
    assert engine.next_deadline() == 8.0


def test_silence_after_the_ping_ends_the_connection():
    engine = client(**ON)
    engine.on_timer(5.0)
    engine.on_timer(7.9)
    assert told(engine) == []
    engine.on_timer(8.0)
    assert told(engine) == [KeepaliveTimeout()]
    assert engine.next_event() is CLOSED
    assert engine.next_deadline() is None
    assert said(engine) == []


def test_any_byte_is_life_even_half_a_header():
    engine = client(**ON)
    engine.on_timer(5.0)
    hear(engine, b"\0\2\0", now=7.9)
    engine.on_timer(8.0)
    assert told(engine) == []
    assert engine.next_deadline() == 10.0  # when this end will have been silent itself


def test_life_that_only_the_caller_can_see_counts_too():
    engine = client(**ON)
    engine.on_timer(5.0)
    engine.heard(7.0)
    engine.on_timer(8.0)
    assert told(engine) == []
    assert engine.next_deadline() == 10.0


def test_an_end_that_only_hears_speaks_as_well():
    engine = client(**ON)
    for now in (2.0, 4.0, 4.9):
        hear(engine, b"\0", now=now)
        engine.on_timer(now)
    assert said(engine, 4.9) == []
    engine.on_timer(5.0)
    assert said(engine, 5.0) == ["PING|SYN 0 1"]
    engine.on_timer(9.0)  # nothing was heard since 4.9, but the other end was not asked
    assert told(engine) == []


def test_what_cannot_be_said_is_not_decided_again_and_again():
    engine = client(**ON)
    hear(engine, b"\0", now=4.9)
    engine.on_timer(5.0)  # and nothing can be sent
    assert engine.next_deadline() == pytest.approx(9.9)


def test_old_life_told_again_is_no_answer():
    # A caller that reports at every tick when it last heard something must not keep a corpse alive.
    engine = client(**ON)
    engine.heard(2.0)
    engine.on_timer(7.0)
    engine.heard(2.0)
    engine.on_timer(8.0)
    engine.heard(2.0)
    engine.on_timer(10.0)
    assert told(engine) == [KeepaliveTimeout()]


def test_a_clock_that_jumps_asks_before_it_judges():
    engine = client(**ON)
    engine.on_timer(36_000.0)
    assert told(engine) == []
    assert said(engine, 36_000.0) == ["PING|SYN 0 1"]
    hear(engine, ping(1, ACK), now=36_000.1)
    engine.on_timer(36_003.0)
    assert told(engine) == []


def test_a_ping_that_was_never_answered_does_not_stop_the_next():
    # Busy peers drop pings; they must be asked again before they count as dead.
    engine = client(**ON)
    engine.ping()
    assert said(engine, 0.0) == ["PING|SYN 0 1"]
    hear(engine, b"\0", now=1.0)
    engine.on_timer(6.0)
    assert said(engine, 6.0) == ["PING|SYN 0 2"]


def test_a_ping_that_could_not_be_sent_yet_is_not_doubled():
    engine = client(**ON)
    engine.ping()
    engine.on_timer(5.0)
    assert said(engine, 6.0) == ["PING|SYN 0 1"]


def test_a_round_trip_counts_from_when_the_ping_left():
    engine = client()
    engine.ping()
    engine.ping()
    assert said(engine, 10.0) == ["PING|SYN 0 1"]
    assert hear(engine, ping(1, ACK), now=10.25) == [PongReceived(0.25)]
    assert engine.rtt == 0.25
    engine.ping()
    assert said(engine) == ["PING|SYN 0 2"]


def test_what_is_sent_behind_a_ping_does_not_shorten_its_round_trip():
    engine = client()
    engine.ping()
    said(engine, 10.0)
    said(engine, 10.125)
    assert hear(engine, ping(1, ACK), now=10.25) == [PongReceived(0.25)]


def test_one_ping_at_a_time_and_each_has_its_own_round_trip():
    engine = client()
    for value, now in ((1, 0.0), (2, 10.0)):
        engine.ping()
        assert said(engine, now) == [f"PING|SYN 0 {value}"]
        engine.ping()
        assert said(engine, now) == []
        assert hear(engine, ping(value, ACK), now=now + 0.5) == [PongReceived(0.5)]


def test_only_the_answer_to_the_ping_under_way_counts():
    engine = client()
    assert hear(engine, ping(0, ACK)) == []
    engine.ping()
    assert hear(engine, ping(1, ACK)) == []  # answered before it was sent
    said(engine, 1.0)
    assert hear(engine, ping(2, ACK), ping(1, ACK), ping(1, ACK), now=2.0) == [PongReceived(1.0)]


@pytest.mark.parametrize("frame", [ping(2, ACK), ping(0, ACK), ping(1, 0)])
def test_what_only_looks_like_the_answer_does_not_count(frame):
    engine = client()
    engine.ping()
    said(engine, 1.0)
    assert hear(engine, frame, now=1.5) == []
    assert hear(engine, ping(1, ACK), now=2.0) == [PongReceived(1.0)]


def test_without_keepalive_there_is_nothing_to_wait_for():
    engine = client()
    assert engine.next_deadline() is None
    engine.on_timer(1e9)
    assert said(engine) == []
