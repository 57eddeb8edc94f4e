"""What goes first, and who gets how much. Sizes in the tests are frames' payloads."""

import collections

import pytest

from tests.yamux.wire import (
    FIN,
    RST,
    SYN,
    WINDOW,
    accepted,
    client,
    data,
    hear,
    opened,
    ping,
    said,
    server,
    told,
    update,
)
from tunnel import limits
from tunnel.yamux import RoomAvailable, StreamClosed, StreamReset
from tunnel.yamux.outbox import FRESH_FRAMES, MIN_PIECE, Outbox
from tunnel.yamux.stream import Stream

KIB = 1024


def data_order(frames):
    return [int(frame.split()[1]) for frame in frames if frame.startswith("DATA ")]


def by_stream(frames):
    sent = collections.Counter()
    for frame in frames:
        kind, stream_id, size = frame.split()
        if kind == "DATA":
            sent[int(stream_id)] += int(size)
    return sent


# --- The form of frames -------------------------------------------------------------------------


def test_one_flag_a_frame_each_on_a_window_update():
    engine = client()
    stream_id = engine.open_stream()
    engine.send_data(stream_id, b"hello")
    engine.send_eof(stream_id)
    assert said(engine) == ["UPDATE|SYN 1 0", "DATA 1 5", "UPDATE|FIN 1 0"]


def test_a_stream_that_only_opens_and_ends():
    engine = client()
    engine.send_eof(engine.open_stream())
    assert said(engine) == ["UPDATE|SYN 1 0", "UPDATE|FIN 1 0"]


def test_an_accepted_stream_is_acknowledged_once_and_before_its_data():
    engine = server()
    hear(engine, update(1, flags=1))
    engine.accept_stream(1)
    engine.accept_stream(1)
    engine.send_data(1, b"hello")
    assert said(engine) == ["UPDATE|ACK 1 0", "DATA 1 5"]
    engine.accept_stream(1)
    engine.accept_stream(99)
    assert said(engine) == []


def test_a_stream_of_our_own_is_not_ours_to_acknowledge():
    engine = client()
    engine.accept_stream(engine.open_stream())
    assert said(engine) == ["UPDATE|SYN 1 0"]


def test_a_syn_is_said_however_early_the_peer_has_finished():
    engine = client()
    stream_id = engine.open_stream()
    hear(engine, update(stream_id, flags=FIN))
    assert said(engine) == [f"UPDATE|SYN {stream_id} 0"]


def test_an_ack_is_said_however_early_the_peer_has_finished():
    engine = server()
    hear(engine, update(1, flags=SYN))
    engine.accept_stream(1)
    hear(engine, update(1, flags=FIN))
    assert said(engine) == ["UPDATE|ACK 1 0"]


def test_pieces_are_cut_into_frames_and_joined_into_frames():
    engine = client(max_frame=10)
    (stream_id,) = opened(engine)
    for piece in (b"abcdef", b"", b"ghijklmnopqrstu"):
        engine.send_data(stream_id, piece)
    assert b"".join(engine.data_to_send(0.0)[1:3]) == b"abcdefghij"
    engine.send_data(stream_id, b"v")
    assert said(engine) == ["DATA 1 1"]


def test_a_stream_that_was_never_announced_ends_without_a_word():
    engine = client()
    stream_id = engine.open_stream()
    engine.send_data(stream_id, b"hello")
    engine.reset_stream(stream_id)
    assert not engine.has_data_to_send()
    assert said(engine) == []
    assert engine.pending == 0


def test_a_reset_drops_what_waits_and_says_why():
    engine = server()
    hear(engine, update(1, flags=1))
    engine.accept_stream(1)
    engine.send_data(1, b"hello")
    engine.send_eof(1)
    engine.reset_stream(1, 4)
    engine.reset_stream(1, 5)
    assert said(engine) == ["UPDATE|RST 1 4"]


# --- What goes first ----------------------------------------------------------------------------


def test_pongs_pings_resets_control_data_in_this_order():
    engine = client()
    first, second = opened(engine, 2)
    engine.send_data(first, b"bulk")
    engine.open_stream()
    engine.reset_stream(second)
    engine.ping()
    hear(engine, ping(7), ping(8))
    assert said(engine) == [
        "PING|ACK 0 7",
        "PING|ACK 0 8",
        "PING|SYN 0 1",
        "UPDATE|RST 3 0",
        "UPDATE|SYN 5 0",
        "DATA 1 4",
    ]


def test_syns_leave_in_the_order_of_their_numbers():
    engine = client()
    streams = [engine.open_stream() for _ in range(4)]
    engine.send_data(streams[2], b"x")
    engine.reset_stream(streams[1])
    assert said(engine, max_bytes=1) == ["UPDATE|SYN 1 0"]
    assert said(engine) == ["UPDATE|SYN 5 0", "UPDATE|SYN 7 0", "DATA 5 1"]


@pytest.mark.parametrize("max_bytes", [0, 1, 12, 13, 30])
def test_data_waits_for_its_syn_however_small_the_batch(max_bytes):
    engine = client()
    for _ in range(3):
        engine.send_data(engine.open_stream(), b"hello")
    frames = []
    while engine.has_data_to_send():
        frames += said(engine, max_bytes=max_bytes)
    assert frames[:3] == ["UPDATE|SYN 1 0", "UPDATE|SYN 3 0", "UPDATE|SYN 5 0"]
    assert by_stream(frames) == {1: 5, 3: 5, 5: 5}


def test_a_batch_is_about_as_large_as_asked_for():
    engine = client(max_frame=64 * KIB)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(200 * KIB))
    for max_bytes in (100 * KIB, 70 * KIB):
        size = sum(map(len, engine.data_to_send(0.0, max_bytes)))
        assert max_bytes - 1024 - 12 <= size <= max_bytes


@pytest.mark.parametrize(("max_bytes", "frames"), [(12, 1), (13, 2), (24, 2), (25, 3)])
def test_a_batch_is_over_when_it_is_full_of_control_frames(max_bytes, frames):
    engine = client()
    for _ in range(5):
        engine.open_stream()
    assert len(said(engine, max_bytes=max_bytes)) == frames


@pytest.mark.parametrize(("max_bytes", "resets"), [(12, 0), (24, 0), (36, 1), (37, 2), (48, 2)])
def test_resets_take_the_room_that_pongs_have_left(max_bytes, resets):
    engine = server(max_inbound_streams=0)
    hear(engine, ping(7), ping(8), *(update(n, flags=SYN) for n in (1, 3, 5, 7)))
    frames = said(engine, max_bytes=max_bytes)
    assert frames[:2] == ["PING|ACK 0 7", "PING|ACK 0 8"]
    assert frames[2:] == [f"UPDATE|RST {n} 0" for n in (1, 3, 5, 7)][:resets]


def test_a_frame_that_just_fits_is_not_put_off():
    engine = client()
    for stream_id in opened(engine, 2):
        engine.send_data(stream_id, bytes(10))
    assert said(engine, max_bytes=2 * (12 + 10)) == ["DATA 1 10", "DATA 3 10"]


def test_a_batch_that_has_no_room_carries_one_byte():
    engine = client()
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(10))
    assert said(engine, max_bytes=12) == ["DATA 1 1"]


def test_no_frame_is_cut_to_a_crumb_only_to_fill_a_batch():
    engine = client(max_frame=10_000)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(30_000))
    assert said(engine, max_bytes=10_012 + 500) == ["DATA 1 10000"]
    assert said(engine, max_bytes=10_012 + 5000) == ["DATA 1 10000", "DATA 1 4988"]


def test_a_frame_is_cut_to_the_smallest_piece_and_no_further():
    engine = client(max_frame=10_000)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(40_000))
    assert said(engine, max_bytes=10_012 + 12 + MIN_PIECE - 1) == ["DATA 1 10000"]
    assert said(engine, max_bytes=10_012 + 12 + MIN_PIECE) == ["DATA 1 10000", "DATA 1 1024"]


def test_frames_can_be_made_smaller_while_it_runs():
    engine = client(max_frame=1000)
    assert engine.frame_size == 1000
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(600))
    engine.frame_size = 250
    assert said(engine) == ["DATA 1 250", "DATA 1 250", "DATA 1 100"]
    engine.frame_size = 10**9
    assert engine.frame_size == 1000
    engine.frame_size = 0
    assert engine.frame_size == 1


# --- Fairness -----------------------------------------------------------------------------------


def backlogged(count, frame):
    """An engine with so many streams that have a window's worth to send, all in mid-transfer."""
    engine = client(max_frame=frame, max_outbound_streams=1000)
    streams = opened(engine, count)
    for stream_id in streams:
        engine.send_data(stream_id, bytes(WINDOW))
    said(engine, max_bytes=2 * count * (frame + 12))
    return engine, streams


@pytest.mark.parametrize("frame", [16 * KIB - 12, 64 * KIB - 12])
def test_a_small_message_overtakes_fifty_transfers(frame):
    engine, _ = backlogged(50, frame)
    small = engine.open_stream()
    said(engine, max_bytes=1)
    engine.send_data(small, b"a keystroke")
    ahead = said(engine, max_bytes=frame + 12)
    assert f"DATA {small} 11" in ahead


def test_a_small_stream_overtakes_again_in_the_next_round():
    engine, _ = backlogged(50, 16 * KIB - 12)
    small = engine.open_stream()
    for _ in range(3):
        engine.send_data(small, b"a keystroke")
        assert f"DATA {small} 11" in said(engine, max_bytes=20 * KIB)
        said(engine, max_bytes=52 * 16 * KIB)  # a round later


def test_a_newcomer_overtakes_in_every_round_from_the_first():
    engine = client(max_frame=1000)
    (bulk,) = opened(engine)
    engine.send_data(bulk, bytes(WINDOW))
    for _ in range(5):
        assert said(engine, max_bytes=1012) == [f"DATA {bulk} 1000"]
        small = engine.open_stream()
        engine.send_data(small, b"x")
        assert f"DATA {small} 1" in said(engine, max_bytes=12 + 13)


def test_without_transfers_the_first_to_come_is_the_first_to_go():
    engine = client()
    old, new = opened(engine, 2)
    engine.send_data(old, b"x")
    said(engine)
    engine.send_data(old, b"x")
    engine.send_data(new, b"x")
    assert data_order(said(engine)) == [old, new]


def test_who_is_sending_gets_no_second_turn_for_sending_more():
    engine, streams = backlogged(4, 1000)
    order = []
    for _ in range(8):
        engine.send_data(streams[0], bytes(10))
        order += data_order(said(engine, max_bytes=1012))
    assert sorted(order) == sorted(2 * streams)


def test_a_stream_that_always_sends_a_little_is_fresh_only_once_a_round():
    engine, streams = backlogged(4, 1000)
    small = engine.open_stream()
    assert said(engine, max_bytes=1) == [f"UPDATE|SYN {small} 0"]
    order = [small]
    for _ in range(11):
        if order[-1] == small:
            engine.send_data(small, bytes(1000))
        order += data_order(said(engine, max_bytes=1012))
    assert order[1] == small
    assert set(order[2:6]) == set(order[7:11]) == set(streams)
    assert order[6] == order[11] == small


def test_shares_that_were_not_used_up_do_not_add_up():
    engine, (bulk,) = backlogged(1, 1000)
    chat = engine.open_stream()
    said(engine, max_bytes=1)
    for _ in range(20):
        engine.send_data(chat, bytes(10))
        while f"DATA {chat} 10" not in said(engine, max_bytes=1012):
            pass
    engine.send_data(chat, bytes(10_000))
    order = data_order(said(engine, max_bytes=10 * 1012))
    assert abs(order.count(chat) - order.count(bulk)) <= 2


def test_transfers_share_alike():
    engine, streams = backlogged(10, 1000)
    sent = by_stream(said(engine, max_bytes=1012 * 205))
    assert set(sent) == set(streams)
    assert max(sent.values()) - min(sent.values()) <= 2 * 1000


def test_sharing_is_by_bytes_and_not_by_frames():
    engine = client(max_frame=1000)
    large, small = opened(engine, 2)
    engine.send_data(large, bytes(WINDOW))
    for _ in range(300):  # each message is a frame of its own, for half a share
        engine.send_data(small, bytes(500))
    sent = by_stream(said(engine, max_bytes=1012 * 100))
    assert abs(sent[large] - sent[small]) <= 2 * 1000


def test_newcomers_without_end_do_not_stop_those_who_are_there():
    engine, streams = backlogged(3, 1000)
    order = []
    for _ in range(10 * FRESH_FRAMES):
        for _ in range(2):
            engine.send_data(engine.open_stream(), bytes(1000))
        order += data_order(said(engine, max_bytes=2 * 12 + 1012))
    assert sum(stream_id in streams for stream_id in order) >= len(order) // (FRESH_FRAMES + 1)


def test_so_many_newcomers_go_before_one_who_is_there():
    engine, streams = backlogged(3, 1000)
    for _ in range(2 * FRESH_FRAMES):
        engine.send_data(engine.open_stream(), bytes(1000))
    while not (order := data_order(said(engine, max_bytes=1))):
        pass  # the SYNs go first
    engine.send_data(engine.open_stream(), bytes(1000))
    order += data_order(said(engine, max_bytes=30 * 1012))
    turns = [index for index, stream_id in enumerate(order) if stream_id in streams]
    assert turns[:2] == [FRESH_FRAMES, 2 * FRESH_FRAMES + 1]


def test_a_round_is_one_turn_of_each():
    engine, streams = backlogged(4, 1000)
    before = engine._outbox._round
    said(engine, max_bytes=10 * len(streams) * 1012)
    assert engine._outbox._round == before + 10


def test_who_had_more_than_a_share_has_less_of_the_next():
    outbox = Outbox(1000)
    waiting, stream = Stream(1, outbound=True), Stream(3, outbound=True)
    outbox._backlog[1] = waiting
    stream.round, stream.deficit = outbox._round, -400
    outbox.put(stream, bytes(10))
    assert stream.deficit == 600
    stream.deficit = -300
    outbox._next_in_round(outbox._backlog)
    outbox._next_in_round(outbox._backlog)
    assert stream.deficit == 700


def test_a_stream_without_window_takes_nobodys_turn():
    engine, (first, second) = backlogged(2, 64 * KIB)
    engine.send_data(first, bytes(1000))
    said(engine)
    assert not engine.has_data_to_send()
    hear(engine, update(second, 5))
    assert said(engine) == []
    hear(engine, update(first, 600))
    assert said(engine) == [f"DATA {first} 600"]
    assert engine.pending == 400


# --- Room ---------------------------------------------------------------------------------------


def test_room_is_what_the_queue_and_the_window_leave():
    engine = client(send_queue=1000, total_send_queue=1500)
    one, other = opened(engine, 2)
    assert engine.room(one) == 1000
    engine.send_data(one, bytes(900))
    assert engine.room(one) == 100
    assert engine.room(other) == 600
    assert engine.pending == 900
    assert engine.room(99) == 0


def test_a_stream_is_told_of_room_when_half_its_queue_is_free():
    engine = client(send_queue=1000, max_frame=300)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(1000))
    assert engine.room(stream_id) == 0
    said(engine, max_bytes=312)
    assert told(engine) == []
    said(engine, max_bytes=312)
    assert told(engine) == [RoomAvailable(stream_id)]
    said(engine)
    assert told(engine) == []


def test_half_is_half():
    engine = client(send_queue=1000, max_frame=250)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(1000))
    assert engine.room(stream_id) == 0
    said(engine, max_bytes=262)
    assert told(engine) == []
    said(engine, max_bytes=262)
    assert told(engine) == [RoomAvailable(stream_id)]


def test_one_that_asked_nothing_is_told_nothing():
    engine = client(send_queue=1000)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(1000))
    said(engine)
    assert told(engine) == []


def test_one_that_was_starved_by_others_is_told_when_they_have_sent():
    engine = client(send_queue=1000, total_send_queue=1000)
    one, other = opened(engine, 2)
    engine.send_data(one, bytes(1000))
    assert engine.room(other) == 0
    said(engine)
    assert told(engine) == [RoomAvailable(other)]


def test_one_that_was_starved_by_others_is_told_when_half_of_their_queue_is_free():
    engine = client(total_send_queue=1000, max_frame=250)
    one, other = opened(engine, 2)
    engine.send_data(one, bytes(1000))
    assert engine.room(other) == 0
    said(engine, max_bytes=262)
    assert told(engine) == []
    said(engine, max_bytes=262)
    assert told(engine) == [RoomAvailable(other)]


def test_one_that_was_starved_by_others_is_told_when_they_are_reset():
    engine = client(send_queue=1000, total_send_queue=1000)
    one, other = opened(engine, 2)
    engine.send_data(one, bytes(1000))
    assert engine.room(other) == 0
    engine.reset_stream(one)
    assert told(engine) == [RoomAvailable(other)]


def test_one_that_was_starved_and_is_over_is_told_no_more():
    engine = client(send_queue=1000, total_send_queue=1000)
    one, other = opened(engine, 2)
    engine.send_data(one, bytes(1000))
    assert engine.room(other) == 0
    assert hear(engine, update(other, flags=RST)) == [StreamReset(other, 0)]
    said(engine)
    assert told(engine) == []


def test_one_that_lacked_a_window_and_then_room_is_told_in_the_end():
    # The credit comes while others fill the queue: it must be remembered that it asked.
    engine = client(send_queue=WINDOW, total_send_queue=2 * WINDOW)
    one, two, three = opened(engine, 3)
    engine.send_data(one, bytes(WINDOW))
    said(engine)
    assert engine.room(one) == 0
    engine.send_data(two, bytes(WINDOW))
    engine.send_data(three, bytes(WINDOW))
    assert hear(engine, update(one, 1000)) == []
    assert engine.room(two) == 0
    said(engine)
    assert RoomAvailable(one) in told(engine)
    assert engine.room(one) == 1000


def test_no_room_for_one_that_has_said_its_last():
    engine = client(send_queue=1000)
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(1000))
    assert engine.room(stream_id) == 0
    engine.send_eof(stream_id)
    said(engine)
    assert told(engine) == []
    assert engine.room(stream_id) == 0
    assert hear(engine, update(stream_id, flags=FIN)) != []
    assert hear(engine, update(stream_id, 10)) == []


def test_a_fin_waits_for_the_data_before_it():
    engine = client()
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(WINDOW + 1))
    assert len(said(engine)) > 0
    engine.send_eof(stream_id)
    assert not engine.has_data_to_send()
    assert len(hear(engine, update(stream_id, flags=FIN))) == 1
    hear(engine, update(stream_id, 1))
    assert said(engine) == ["DATA 1 1", "UPDATE|FIN 1 0"]
    assert told(engine) == [StreamClosed(stream_id)]


def test_the_queue_says_exactly_if_there_is_something_to_send():
    engine = server()
    accepted(engine, 1)
    assert not engine.has_data_to_send()
    for cause in (
        lambda: engine.send_data(1, b"x"),
        lambda: engine.send_eof(1),
        engine.ping,
        lambda: hear(engine, ping(1)),
        engine.open_stream,
        lambda: engine.reset_stream(1),
        engine.close,
    ):
        cause()
        assert engine.has_data_to_send()
        assert said(engine) != []
        assert not engine.has_data_to_send()
        assert said(engine) == []


def test_a_foreign_peer_gets_frames_of_one_tls_record():
    engine = client()
    (stream_id,) = opened(engine)
    engine.send_data(stream_id, bytes(100_000))
    sizes = [int(frame.split()[-1]) for frame in said(engine)]
    assert max(sizes) == limits.FOREIGN_FRAME == 16 * KIB - 12
    assert hear(engine, data(stream_id, b"")) == []
