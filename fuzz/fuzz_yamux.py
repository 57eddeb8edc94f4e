"""Property-based fuzzing of the Yamux engine.

    python -m fuzz.fuzz_yamux --seconds 60

`YamuxMachine` joins two engines and lets hypothesis do with them whatever a caller and a network
may do. `check_bytes` gives one engine whatever a peer may send. `tests/yamux` runs both for a
moment; here they run for as long as one likes.
"""

from __future__ import annotations

import argparse
import struct
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fuzz.yamux_pair import End, Pair, Stream
from tunnel import limits
from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.yamux import (
    CLOSED,
    NEED_DATA,
    Connection,
    DataReceived,
    Role,
    Settings,
    StreamOpened,
)

SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([999, 1000, 1001, 16_372, 16_384, 65_536, 262_143, 262_144, 300_000]),
    st.integers(0, 300_000),
)
WIRE = st.one_of(st.integers(0, 30), st.sampled_from([11, 12, 13, 1012, 16_384]), st.just(10**9))
APART = {"pending", "wants_room"}
INDEX = st.integers(0, 30)
SIDE = st.integers(0, 1)

SETTINGS = st.builds(
    Settings,
    max_frame=st.sampled_from([1000, limits.FOREIGN_FRAME, limits.OWN_FRAME]),
    max_inbound_streams=st.sampled_from([1, 3, 256]),
    max_outbound_streams=st.sampled_from([1, 3, 250]),
    max_unacknowledged=st.sampled_from([1, 2, 256]),
    send_queue=st.sampled_from([10, 1000, limits.STREAM_QUEUE]),
    total_send_queue=st.sampled_from([10, 1500, limits.LINK_QUEUE]),
    max_window=st.sampled_from([limits.INITIAL_WINDOW, limits.MIB]),
    window_pool=st.sampled_from([0, 300_000, limits.WINDOW_POOL]),
    keepalive_interval=st.sampled_from([None, 5.0]),
)


class YamuxMachine(RuleBasedStateMachine):
    """Two engines, two callers, and a wire that delivers in any pieces."""

    @initialize(client=SETTINGS, server=SETTINGS, streams=st.lists(SIDE, max_size=4))
    def connect(self, client: Settings, server: Settings, streams: list[int]) -> None:
        self.pair = Pair(client, server)
        for side in streams:
            self.end(side).open()
        self.pair.read_all()

    def end(self, side: int) -> End:
        return self.pair.ends[side]

    def pick(self, side: int, index: int) -> Stream | None:
        live = self.end(side).live()
        return live[index % len(live)] if live else None

    # --- Streams -----------------------------------------------------------------------------

    @rule(side=SIDE)
    def open(self, side: int) -> None:
        self.end(side).open()

    @rule(side=SIDE, index=INDEX)
    def accept(self, side: int, index: int) -> None:
        if (stream := self.pick(side, index)) and not self.end(side).closed:
            self.end(side).accept(stream)

    @rule(side=SIDE, index=INDEX, size=SIZES)
    def send_within_room(self, side: int, index: int, size: int) -> None:
        stream = self.pick(side, index)
        if stream and stream.accepted and not stream.finished:
            size = min(size, self.end(side).ask_room(stream))
            self.end(side).send(stream, size)

    @rule(side=SIDE, index=INDEX, size=SIZES)
    def send_beyond_room(self, side: int, index: int, size: int) -> None:
        stream = self.pick(side, index)
        if stream and stream.accepted and not stream.finished:
            self.end(side).send(stream, size)

    @rule(side=SIDE, index=INDEX)
    def ask_room(self, side: int, index: int) -> None:
        if stream := self.pick(side, index):
            self.end(side).ask_room(stream)

    @rule(side=SIDE, index=INDEX)
    def finish(self, side: int, index: int) -> None:
        stream = self.pick(side, index)
        if stream and stream.accepted and not stream.finished:
            self.end(side).finish(stream)

    @rule(side=SIDE, index=INDEX, code=st.sampled_from([0, 1, 9, 2**32 - 1]))
    def reset(self, side: int, index: int, code: int) -> None:
        if stream := self.pick(side, index):
            before = self._others(stream)
            self.end(side).reset(stream, code)
            assert self._others(stream) == before

    @rule(side=SIDE, index=INDEX, size=SIZES)
    def consume(self, side: int, index: int, size: int) -> None:
        if stream := self.pick(side, index):
            self.end(side).consume(stream, min(size, stream.unconsumed), self.pair.now)

    @rule(side=SIDE, index=INDEX)
    def stop_reading(self, side: int, index: int) -> None:
        if stream := self.pick(side, index):
            self.end(side).stop_reading(stream, self.pair.now)

    @rule(side=SIDE, index=INDEX)
    def misuse(self, side: int, index: int) -> None:
        stream = self.pick(side, index)
        engine = self.end(side).engine
        # An end of which the caller cannot know yet makes nothing a mistake.
        if stream is None or engine._closed or engine._table.get(stream.stream_id) is None:
            return
        before = self._others(None)
        wrong = [lambda: engine.consumed(stream.stream_id, stream.unconsumed + 1, self.pair.now)]
        if stream.finished:
            wrong += [
                lambda: engine.send_data(stream.stream_id, b"more"),
                lambda: engine.send_eof(stream.stream_id),
            ]
        for misuse in wrong:
            try:
                misuse()
            except LocalProtocolError:
                continue
            raise AssertionError("misuse was accepted")
        assert self._others(None) == before

    def _others(self, stream: Stream | None) -> list[object]:
        """All that the engines know of all other streams, but that they may be told of room."""
        return [
            {
                name: getattr(inner, name)
                for name in set(dir(inner)) - APART
                if not (name.startswith("__") or callable(getattr(inner, name)))
            }
            for end in self.pair.ends
            for inner in end.engine._table._streams.values()
            if stream is None or inner.stream_id != stream.stream_id
        ]

    # --- The wire and the clock --------------------------------------------------------------

    @rule(side=SIDE, max_bytes=WIRE)
    def flush(self, side: int, max_bytes: int) -> None:
        self.end(side).flush(self.pair.now, min(max_bytes, limits.BATCH))

    @rule(side=SIDE, size=WIRE)
    def feed(self, side: int, size: int) -> None:
        self.end(side).feed(size, self.pair.now)

    @rule(side=SIDE, count=st.sampled_from([1, 2, 1000]))
    def pull(self, side: int, count: int) -> None:
        self.end(side).pull(self.pair.now, count)

    @rule(side=SIDE)
    def exchange(self, side: int) -> None:
        self.end(side).flush(self.pair.now, limits.BATCH)
        self.end(1 - side).feed(10**9, self.pair.now)
        self.end(1 - side).pull(self.pair.now)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.1, 4.0, 5.0, 61.0]))
    def tick(self, seconds: float) -> None:
        self.pair.tick(seconds)

    @rule(side=SIDE, size=st.sampled_from([100, 500, 10**6]))
    def resize_frames(self, side: int, size: int) -> None:
        self.end(side).engine.frame_size = size

    # --- The session -------------------------------------------------------------------------

    @rule(side=SIDE)
    def ping(self, side: int) -> None:
        self.end(side).engine.ping()

    @rule()
    def read_all(self) -> None:
        self.pair.read_all()

    @precondition(lambda self: sum(len(end.streams) for end in self.pair.ends) > 8)
    @rule(side=SIDE)
    def drain(self, side: int) -> None:
        self.end(side).engine.start_drain()
        self.end(side).draining = True

    @precondition(lambda self: sum(len(end.streams) for end in self.pair.ends) > 8)
    @rule(side=SIDE, code=st.sampled_from([0, 1, 2]))
    def close(self, side: int, code: int) -> None:
        self.end(side).close(code)

    @invariant()
    def everything_adds_up(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check()

    def teardown(self) -> None:
        """All that was sent arrives, nobody is left waiting, and every stream ends."""
        if not hasattr(self, "pair"):
            return
        self.pair.read_all()
        if any(end.closed for end in self.pair.ends):
            for end in self.pair.ends:
                check_end(end.engine, self.pair.now) if end.closed else None
            return
        for end in self.pair.ends:
            assert not (end.waits_for_streams and end.engine._table.can_open()), "never told"
            for stream in end.live():
                peer = end.other.streams.get(stream.stream_id)
                assert peer is not None
                assert peer.received == stream.sent
                if not stream.finished:
                    assert not stream.waits_for_room, "never told of room"
                    end.finish(stream)
        self.pair.read_all()
        for end in self.pair.ends:
            assert end.engine.stream_count == 0
            assert not end.live()


def check_end(engine: Connection, now: float) -> None:
    """An engine that is over says at most a go-away, and then nothing, whatever is done to it."""
    said = b"".join(engine.data_to_send(now))
    for _ in range(2):
        assert engine.next_event() is CLOSED
        assert not engine.has_data_to_send()
        assert engine.data_to_send(now) == []
        assert engine.next_deadline() is None
        assert not engine.can_open()
        engine.receive_data(b"\0\2\0\1" + bytes(8), now)
        engine.ping()
        engine.on_timer(now + 1000)
        for stream_id in list(engine._table._streams):
            assert engine.room(stream_id) == 0
            engine.accept_stream(stream_id)
            engine.send_data(stream_id, b"too late")
            engine.send_eof(stream_id)
            engine.stop_reading(stream_id, now)
            engine.reset_stream(stream_id)
    assert len(said) in (0, 12) or said[-12:-8] == b"\0\3\0\0"


# --- Any bytes ----------------------------------------------------------------------------------

HEADER = struct.Struct("!BBHII")
U32 = st.one_of(
    st.integers(0, 8),
    st.sampled_from([255, 16_384, 262_143, 262_144, 262_145, 2**31, 2**32 - 262_144, 2**32 - 1]),
    st.integers(0, 2**32 - 1),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame that is nearly right: most headers make sense, and most bodies are whole."""
    kind = draw(st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3, 4]))
    version = draw(st.sampled_from([0] * 15 + [1]))
    flags = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 4, 8, 3, 5, 6, 9, 12, 16, 0xFFFF]))
    stream_id = draw(st.integers(0, 8)) if kind < 2 else draw(st.sampled_from([0] * 9 + [3]))
    if kind == 0:
        size = draw(st.one_of(st.integers(0, 30), st.sampled_from([262_144, 262_145])))
        cut = draw(st.sampled_from([0] * 15 + [1]))
        return HEADER.pack(version, kind, flags, stream_id, size + cut) + bytes(size)
    return HEADER.pack(version, kind, flags, stream_id, draw(U32))


WIRES = st.one_of(
    st.lists(frames(), max_size=40).map(b"".join),
    st.binary(max_size=200),
    st.tuples(st.lists(frames(), max_size=10).map(b"".join), st.binary(max_size=50)).map(b"".join),
)
CUTS = st.lists(st.integers(1, 300), min_size=1, max_size=20)


def answers(role: Role, wire: bytes, cuts: list[int]) -> list[object]:
    """What an engine says about these bytes, cut like that; pieces of data joined.

    Nothing is consumed: how much is granted when does depend on the pieces.
    """
    engine = Connection(
        role, Settings(max_inbound_streams=3, useless_frames_per_second=20), now=1.0
    )
    mine = [engine.open_stream() for _ in range(2)]
    engine.send_data(mine[0], b"hello")
    engine.send_eof(mine[0])
    engine.data_to_send(1.0)
    engine.ping()
    said: list[object] = []
    position = turn = 0
    while position < len(wire):
        size = cuts[turn % len(cuts)]
        engine.receive_data(wire[position : position + size], 1.0)
        position, turn = position + size, turn + 1
        try:
            while (event := engine.next_event()) is not NEED_DATA and event is not CLOSED:
                if isinstance(event, StreamOpened):
                    engine.accept_stream(event.stream_id)
                if isinstance(event, DataReceived):
                    stream_id, data = event.stream_id, bytes(event.data)
                    if said and isinstance(said[-1], tuple) and said[-1][0] == stream_id:
                        data = said.pop()[1] + data
                    said.append((stream_id, data))
                else:
                    said.append(event)
        except RemoteProtocolError as error:
            said.append(str(error))
            engine.receive_data(b"more", 1.0)
            parts = engine.data_to_send(1.0)
            assert [bytes(part) for part in parts] == [HEADER.pack(0, 3, 0, 0, 1)]
            check_end(engine, 1.0)
            break
    return [*said, b"".join(engine.data_to_send(1.0))]


def check_bytes(role: Role, wire: bytes, cuts: list[int]) -> None:
    """Any bytes give events or `RemoteProtocolError`, and the same ones however they are cut."""
    whole = answers(role, wire, [max(1, len(wire))])
    assert answers(role, wire, cuts) == whole
    if len(wire) < 2000:
        assert answers(role, wire, [1]) == whole


QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def fuzz_streams(profile: settings) -> None:
    """Two engines, and all that callers and networks do."""
    run_state_machine_as_test(YamuxMachine, settings=profile)


def fuzz_bytes(profile: settings) -> None:
    """One engine, and whatever a peer may send."""
    profile(given(role=st.sampled_from(Role), wire=WIRES, cuts=CUTS)(check_bytes))()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the Yamux engine.")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    start = time.monotonic()
    rounds = 0
    while (spent := time.monotonic() - start) < arguments.seconds:
        print(f"\r{spent:6.0f} s, {rounds} rounds", end="", flush=True)
        fuzz_streams(settings(QUICK, derandomize=False, max_examples=50, stateful_step_count=80))
        fuzz_bytes(settings(QUICK, derandomize=False, max_examples=200))
        rounds += 1
    print(f"\r{time.monotonic() - start:6.0f} s, {rounds} rounds, nothing found")


if __name__ == "__main__":
    main()
