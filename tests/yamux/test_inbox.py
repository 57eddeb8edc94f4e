"""Every odd or illegal thing that a peer may send, and what becomes of it."""

import pytest

from tests.yamux.wire import (
    ACK,
    FIN,
    HEADER,
    RST,
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
from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.yamux import (
    CLOSED,
    DataReceived,
    GoAwayReceived,
    PongReceived,
    StreamEOF,
    StreamOpened,
    StreamReset,
)
from tunnel.yamux.inbox import Budget

FATAL = {
    "another version": (HEADER.pack(1, 0, 0, 1, 0), "Yamux version 1; this end speaks 0"),
    "an unknown type": (HEADER.pack(0, 4, 0, 1, 0), "unknown Yamux frame type 4"),
    "data on stream 0": (data(0, b"x"), "stream id 0 in DATA stream=0 length=1"),
    "credit on stream 0": (update(0, 1), "stream id 0 in WINDOW_UPDATE"),
    "SYN on stream 0": (update(0, flags=SYN), r"stream id 0 in WINDOW_UPDATE\|SYN"),
    "SYN with our parity": (update(2, flags=SYN), "stream 2, whose number is ours"),
    "SYN on a live stream": (update(1, flags=SYN), "stream 1 twice"),
    "one byte beyond the window": (data(1, bytes(WINDOW + 1)), f"{WINDOW} were granted"),
    "SYN and a byte beyond the window": (data(3, bytes(WINDOW + 1), SYN), "were granted"),
    "credit beyond 32 bits": (update(1, 2**32 - 1), "beyond 2"),
    "credit beyond 32 bits with SYN": (update(3, 2**32 - 1, SYN), "beyond 2"),
}


@pytest.mark.parametrize("name", FATAL)
def test_fatal(name):
    frame, message = FATAL[name]
    engine = server()
    accepted(engine, 1)
    engine.send_data(1, b"never sent")
    with pytest.raises(RemoteProtocolError, match=message):
        hear(engine, frame)
    assert engine.next_event() is CLOSED
    assert hear(engine, update(5, flags=SYN)) == []
    assert said(engine) == ["GO_AWAY 0 1"]
    assert said(engine) == []


@pytest.mark.parametrize(
    ("frame", "events"),
    [
        (data(1, b"x", ACK), [DataReceived(1, memoryview(b"x"))]),
        (update(1, flags=ACK), []),
        (update(1, flags=0x10), []),
        (data(1, b"x", 0xFFF0), [DataReceived(1, memoryview(b"x"))]),
        (data(1), []),
        (update(1), []),
        (data(99, b"x"), []),
        (data(99, b"x", FIN), []),
        (update(99, 1), []),
        (update(99, flags=FIN), []),
        (update(99, flags=RST), []),
        (ping(1, 0), []),
        (ping(1, ACK), []),
        (data(3, b"x", SYN), [StreamOpened(3), DataReceived(3, memoryview(b"x"))]),
        (update(3, flags=SYN | FIN), [StreamOpened(3), StreamEOF(3)]),
        (update(3, flags=SYN | ACK), [StreamOpened(3)]),
        (update(3, flags=SYN | RST), [StreamOpened(3), StreamReset(3, 0)]),
        (data(1, b"gone", RST), [StreamReset(1, 0)]),
        (data(1, b"", FIN), [StreamEOF(1)]),
        (update(1, flags=ACK | FIN), [StreamEOF(1)]),
        (update(1, 5, FIN), [StreamEOF(1)]),
    ],
)
def test_odd_and_taken(frame, events):
    engine = server()
    accepted(engine, 1)
    # What follows is read as if nothing had been odd.
    assert hear(engine, frame, ping(7)) == events
    assert said(engine) == ["PING|ACK 0 7"]


def test_a_second_fin_is_ignored():
    engine = server()
    accepted(engine, 1)
    assert hear(engine, update(1, flags=FIN), update(1, flags=FIN), data(1, b"", FIN)) == [
        StreamEOF(1)
    ]


def test_data_after_fin_resets_the_stream():
    engine = server()
    accepted(engine, 1, 3)
    assert hear(engine, update(1, flags=FIN), data(1, b"x"), data(3, b"y")) == [
        StreamEOF(1),
        StreamReset(1, 0),
        DataReceived(3, memoryview(b"y")),
    ]
    assert said(engine) == ["UPDATE|RST 1 0"]


def test_data_after_fin_resets_a_stream_that_we_have_finished_too():
    engine = server()
    accepted(engine, 1)
    engine.send_data(1, bytes(WINDOW + 1))
    engine.send_eof(1)
    said(engine)
    assert hear(engine, update(1, flags=FIN), update(1, flags=FIN), data(1, b"x")) == [
        StreamEOF(1),
        StreamReset(1, 0),
    ]
    assert said(engine) == ["UPDATE|RST 1 0"]


def test_streams_may_be_opened_in_any_order():
    engine = server()
    assert hear(engine, update(9, flags=SYN), update(3, flags=SYN)) == [
        StreamOpened(9),
        StreamOpened(3),
    ]


def test_a_ping_on_a_stream_is_answered_for_the_session():
    engine = server()
    hear(engine, HEADER.pack(0, 2, SYN, 5, 7))
    assert said(engine) == ["PING|ACK 0 7"]


def test_each_ping_is_answered_once_and_in_order():
    engine = server()
    hear(engine, *(ping(value) for value in (3, 1, 2**32 - 1)))
    assert said(engine) == ["PING|ACK 0 3", "PING|ACK 0 1", f"PING|ACK 0 {2**32 - 1}"]


def test_an_outbound_stream_needs_no_acknowledgement_to_be_used():
    engine = client()
    stream_id = engine.open_stream()
    engine.send_data(stream_id, b"hello")
    assert len(said(engine)) == 2
    assert hear(engine, data(stream_id, b"x")) == [DataReceived(1, memoryview(b"x"))]


# --- Go away ------------------------------------------------------------------------------------


def test_a_normal_go_away_keeps_the_streams():
    engine = client()
    (stream_id,) = opened(engine)
    assert hear(engine, go_away(), go_away()) == [GoAwayReceived(0)]
    assert not engine.can_open()
    assert hear(engine, data(stream_id, b"x"), update(2, flags=SYN)) == [
        DataReceived(1, memoryview(b"x"))
    ]
    assert said(engine) == ["UPDATE|RST 2 0"]


def test_a_go_away_with_an_error_ends_everything():
    engine = client()
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, b"never sent")
    assert hear(engine, go_away(2), data(stream_id, b"never read")) == [GoAwayReceived(2)]
    assert engine.next_event() is CLOSED
    assert said(engine) == []


def test_an_error_may_follow_a_normal_go_away():
    engine = client()
    assert hear(engine, go_away(0), go_away(1)) == [GoAwayReceived(0), GoAwayReceived(1)]
    assert engine.next_event() is CLOSED


# --- Floods -------------------------------------------------------------------------------------

BUDGET = 100
USELESS = {
    "unknown stream": update(99, 1),
    "data on an unknown stream": data(99, b"x"),
    "empty data": data(1),
    "empty credit": update(1),
    "repeated ACK": update(1, flags=ACK),
    "unknown flags": update(1, flags=0x40),
    "repeated FIN": update(3, flags=FIN),
    "pong that nobody asked for": ping(5, ACK),
    "ping without flags": ping(5, 0),
    "repeated go-away": go_away(),
}


@pytest.mark.parametrize("name", USELESS)
def test_frames_that_carry_nothing_have_a_budget(name):
    engine = server(useless_frames_per_second=BUDGET)
    accepted(engine, 1, 3)
    hear(engine, update(3, flags=FIN), go_away())
    for second in (10.0, 11.0):
        hear(engine, *[USELESS[name]] * BUDGET, now=second)
    with pytest.raises(RemoteProtocolError, match="flood"):
        hear(engine, USELESS[name], now=11.9)


def test_answered_pings_have_a_budget_too():
    engine = server(useless_frames_per_second=BUDGET)
    for _ in range(BUDGET):
        hear(engine, ping(1))
        said(engine)
    with pytest.raises(RemoteProtocolError, match="flood"):
        hear(engine, ping(1))


def test_pings_that_nobody_reads_the_answers_of_have_a_bound():
    engine = server(max_pending_pongs=3)
    hear(engine, *[ping(1)] * 3)
    with pytest.raises(RemoteProtocolError, match="pings sent faster"):
        hear(engine, ping(1))


@pytest.mark.parametrize("accept", [True, False])
def test_rapid_reset_has_a_budget(accept):
    engine = server(useless_frames_per_second=BUDGET)
    for stream_id in range(1, 2 * BUDGET + 2, 2):
        hear(engine, update(stream_id, flags=SYN))
        if accept:
            engine.accept_stream(stream_id)
        if stream_id < 2 * BUDGET:
            hear(engine, update(stream_id, flags=RST))
    with pytest.raises(RemoteProtocolError, match="flood"):
        hear(engine, update(stream_id, flags=RST))


def test_the_reset_of_a_stream_that_was_answered_costs_no_budget():
    engine = server(useless_frames_per_second=0)
    accepted(engine, 1)
    (ours,) = opened(engine)
    assert hear(engine, update(1, flags=RST), update(ours, flags=RST)) == [
        StreamReset(1, 0),
        StreamReset(ours, 0),
    ]


def test_opening_beyond_the_limit_has_a_budget():
    engine = server(max_inbound_streams=0, useless_frames_per_second=BUDGET)
    with pytest.raises(RemoteProtocolError, match="flood"):
        hear(engine, *(update(n, flags=SYN) for n in range(1, 2 * BUDGET + 2, 2)))


def test_honest_work_costs_no_budget():
    engine = client(useless_frames_per_second=1, max_outbound_streams=1000)
    streams = [engine.open_stream() for _ in range(200)]
    for stream_id in streams:
        engine.send_data(stream_id, b"hello")
        engine.send_eof(stream_id)
    said(engine)
    for stream_id in streams:
        hear(
            engine,
            update(stream_id, flags=ACK),
            update(stream_id, 5),
            data(stream_id, b"x"),
            update(stream_id, flags=FIN),
        )
    assert engine.stream_count == 0


def test_the_default_budget_is_far_above_an_honest_peer():
    engine = server()
    assert engine.settings.useless_frames_per_second == limits.USELESS_FRAMES_PER_SECOND
    hear(engine, *[update(99, 1)] * 10_000)
    with pytest.raises(RemoteProtocolError):
        hear(engine, update(99, 1))


def test_a_pong_is_counted_as_useless_only_if_it_is():
    engine = client(useless_frames_per_second=0)
    engine.ping()
    said(engine)
    assert hear(engine, ping(1, ACK)) == [PongReceived(0.0)]
    assert told(engine) == []


# --- The budget of useless frames ------------------------------------------------------------


def test_so_many_a_second_and_no_more():
    budget = Budget(3)
    assert [budget.spend(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.spend(100.9)


def test_a_new_second_is_a_new_budget():
    budget = Budget(1)
    assert budget.spend(100.0)
    assert not budget.spend(100.5)
    assert budget.spend(101.0)


def test_a_quiet_hour_saves_nothing_up():
    budget = Budget(2)
    budget.spend(0.0)
    assert [budget.spend(3600.0) for _ in range(3)] == [True, True, False]
