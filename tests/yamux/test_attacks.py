"""Floods: whatever a peer sends, what an engine holds stays small and counted.

That each flood has a budget is tested where the budget is spent; here it is what is held meanwhile,
and that nothing is left afterwards.
"""

import gc

import pytest

from tests.yamux.wire import (
    DATA,
    FIN,
    HEADER,
    RST,
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
from tunnel.errors import RemoteProtocolError
from tunnel.yamux import (
    CLOSED,
    NEED_DATA,
    RoomAvailable,
    StreamOpened,
    StreamReset,
)
from tunnel.yamux.stream import Stream

UNLIMITED = {"useless_frames_per_second": 1 << 30}
INBOUND = limits.FOREIGN_INBOUND_STREAMS


def held(engine):
    """Entries of all queues and tables together."""
    table, outbox = engine._table, engine._outbox
    tables = (table._streams, table._starved, table._lingering, table.events.waiting)
    frames = (outbox.pongs, outbox.resets, outbox._control, outbox.served)
    return sum(map(len, (*tables, *frames, outbox._fresh, outbox._backlog)))


def unparsed(engine):
    """Bytes that came and are not used up."""
    parser = engine._inbox.parser
    return len(parser._chunk) - parser._position + len(parser._head)


def flood(engine, *frames, at_most, chunk=1 << 16, now=0.0):
    """The engine hears the frames; after each event it holds `at_most` so many entries."""
    wire = memoryview(b"".join(frames))
    events = []
    for start in range(0, len(wire), chunk):
        engine.receive_data(wire[start : start + chunk], now)
        while (event := engine.next_event()) is not NEED_DATA:
            assert held(engine) <= at_most
            events.append(event)
        assert held(engine) <= at_most
        assert unparsed(engine) < HEADER.size
    return events


def live_streams():
    gc.collect()
    return sum(type(thing) is Stream for thing in gc.get_objects())


def is_over(engine):
    """Nothing waits, nothing is told, nothing more is kept."""
    kept = unparsed(engine)
    assert said(engine) == ["GO_AWAY 0 1"]
    assert not engine.has_data_to_send()
    assert not engine._table.events.waiting
    for _ in range(1000):
        assert hear(engine, ping(1) * 1000) == []
    assert engine.next_event() is CLOSED
    outbox = engine._outbox
    assert not any((outbox.pongs, outbox.resets, outbox._control))
    assert unparsed(engine) == kept


# --- Pings ---------------------------------------------------------------------------------------


def test_a_million_pings_that_nobody_reads_the_answers_of():
    engine = server()
    with pytest.raises(RemoteProtocolError, match="pings sent faster"):
        flood(engine, ping(1) * 1000, at_most=limits.MAX_PENDING_PONGS)
    is_over(engine)  # it hears the rest of the million


def test_a_hundred_thousand_pings_with_answers_read():
    engine = server()
    burst = limits.MAX_PENDING_PONGS
    answered = 0
    for n in range(100_000 // burst):
        now = n * burst / limits.USELESS_FRAMES_PER_SECOND * 2
        assert flood(engine, ping(n) * burst, at_most=burst, now=now) == []
        answered += len(engine.data_to_send(now))
        assert held(engine) == 0
    assert answered == 100_000


# --- Streams -------------------------------------------------------------------------------------


def syns(count):
    return (update(n, flags=SYN) for n in range(1, 2 * count, 2))


def test_syn_flood_that_nobody_reads_the_refusals_of():
    before = live_streams()
    engine = server()
    bound = engine._inbox._max_resets
    assert bound < 1000
    with pytest.raises(RemoteProtocolError, match="faster than their resets are read"):
        flood(engine, *syns(10_000), at_most=INBOUND + bound)
    assert engine.stream_count == INBOUND
    assert live_streams() - before == INBOUND
    is_over(engine)
    del engine
    assert live_streams() == before


def test_syn_flood_with_refusals_read():
    engine = server()
    events = []
    with pytest.raises(RemoteProtocolError, match="flood"):
        for frame in syns(20_000):
            events += flood(engine, frame, at_most=INBOUND + 1)
            engine.data_to_send(0.0)
    assert events == [StreamOpened(2 * n + 1) for n in range(INBOUND)]
    assert engine.stream_count == INBOUND
    is_over(engine)


@pytest.mark.parametrize("accept", [True, False])
def test_syn_and_rst_flood(accept):
    before = live_streams()
    engine = server()
    opened = 0
    with pytest.raises(RemoteProtocolError, match="flood"):
        for n in range(1, 50_000, 2):
            assert flood(engine, update(n, flags=SYN), at_most=1) == [StreamOpened(n)]
            opened += 1
            if accept:
                engine.accept_stream(n)
                assert held(engine) == 2
            assert flood(engine, update(n, flags=RST), at_most=1) == [StreamReset(n, 0)]
            assert held(engine) == 0
    assert opened == limits.USELESS_FRAMES_PER_SECOND + 1
    assert live_streams() - before <= 1
    is_over(engine)


def test_syn_and_rst_in_one_chunk():
    engine = server()
    frames = (update(n, flags=flag) for n in range(1, 10_000, 2) for flag in (SYN, RST))
    events = flood(engine, *frames, at_most=1)
    assert len(events) == 10_000
    assert held(engine) == 0
    assert not engine.has_data_to_send()


def test_a_peer_that_never_ends_its_streams():
    before = live_streams()
    engine = server(close_linger=60.0)
    stream_ids = range(1, 2 * INBOUND, 2)
    accepted(engine, *stream_ids)
    for stream_id in stream_ids:
        engine.send_eof(stream_id)
        engine.stop_reading(stream_id, 0.0)
    said(engine)
    # Credit, of which nothing is sent, is no sign of an end.
    assert hear(engine, *(update(n, 1000) for n in stream_ids), now=59.0) == []
    engine.on_timer(59.9)
    assert engine.stream_count == len(engine._table._lingering) == INBOUND
    engine.on_timer(60.0)
    assert told(engine) == [StreamReset(n, 0) for n in stream_ids]
    assert engine.stream_count == 0
    assert held(engine) == len(said(engine, 60.0)) == INBOUND
    assert held(engine) == 0
    assert live_streams() == before
    assert engine.next_deadline() is None


# --- Frames on a stream --------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [data(1), update(1), update(99, 1), data(99, b"x", FIN)])
def test_frames_that_carry_nothing_leave_nothing(frame):
    engine = server(**UNLIMITED)
    accepted(engine, 1)
    assert flood(engine, frame * 50_000, at_most=1) == []
    assert held(engine) == 1
    assert not engine.has_data_to_send()


@pytest.mark.parametrize("frame", [data(1), update(99, 1)])
def test_frames_that_carry_nothing_end_the_session(frame):
    engine = server()
    accepted(engine, 1)
    with pytest.raises(RemoteProtocolError, match="flood"):
        flood(engine, frame * 50_000, at_most=1)
    is_over(engine)


def test_a_flood_of_credit():
    engine = server(send_queue=1 << 20)
    accepted(engine, 1)
    engine.send_data(1, bytes(WINDOW))
    said(engine)
    assert engine.room(1) == 0
    # Told once that there is room, however much of it comes in however small pieces.
    assert flood(engine, update(1, 1) * 50_000, at_most=1) == [RoomAvailable(1)]
    assert engine.room(1) == 50_000
    assert held(engine) == 1
    rest = limits.MAX_WINDOW - 50_000
    with pytest.raises(RemoteProtocolError, match="beyond"):
        flood(engine, update(1, rest) + update(1, 1) * 50_000, at_most=1)
    is_over(engine)


def test_a_window_filled_by_frames_of_one_byte():
    engine = server()
    accepted(engine, 1)
    events = flood(engine, data(1, b"x") * WINDOW, at_most=1)
    assert len(events) == WINDOW
    assert sum(len(event.data) for event in events) == WINDOW
    stream = engine._table.get(1)
    assert (stream.window, stream.unconsumed) == (0, WINDOW)
    for _ in range(WINDOW):
        engine.consumed(1, 1, 0.0)
    assert held(engine) == 2  # the stream, and one entry for its credit
    assert said(engine) == ["PING|SYN 0 1", f"UPDATE 1 {WINDOW}"]
    flood(engine, data(1, b"x") * 10, at_most=1)
    with pytest.raises(RemoteProtocolError, match="were granted"):
        flood(engine, data(1, bytes(WINDOW - 9)), at_most=1)


def test_a_frame_of_four_gigabytes():
    engine = server()
    accepted(engine, 1)
    huge = HEADER.pack(0, DATA, 0, 1, 2**32 - 1)
    with pytest.raises(RemoteProtocolError, match="were granted"):
        flood(engine, huge + bytes(1 << 20), at_most=1)
    is_over(engine)


@pytest.mark.parametrize("flags", [0, SYN])
def test_a_frame_of_four_gigabytes_for_nobody(flags):
    engine = server(max_inbound_streams=0)
    hear(engine, HEADER.pack(0, DATA, flags, 77, 2**32 - 1))
    assert said(engine) == (["UPDATE|RST 77 0"] if flags else [])
    block = bytes(1 << 20)
    for _ in range(4095):
        assert flood(engine, block, at_most=0, chunk=len(block)) == []
    flood(engine, block[1:], at_most=0, chunk=len(block))
    assert engine._inbox.at_boundary
    assert hear(engine, update(1, flags=SYN)) == []  # a frame again
    assert said(engine) == ["UPDATE|RST 1 0"]
    with pytest.raises(RemoteProtocolError, match="stream id 0"):
        hear(engine, data(0, b"x"))


def test_a_chunk_that_was_used_up_is_not_kept():
    engine = server()
    accepted(engine, 1)
    chunk = bytearray(data(1, bytes(1000)))
    engine.receive_data(chunk, 0.0)
    (event,) = told(engine)
    assert len(event.data) == 1000
    del event
    chunk.clear()  # would be a BufferError if the engine held on to it
    assert unparsed(engine) == 0
