"""How many frames a second the Yamux engine alone parses and builds, on one core.

    python -m tests.benchmarks.bench_engine

No TLS, no sockets, no copies: what is measured is the engine's own share of the work for a frame.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from tunnel import limits
from tunnel.yamux import NEED_DATA, Connection, DataReceived, Role, Settings

HEADER = struct.Struct("!BBHII")
SYN, ACK = 1, 2
RUNS = 5


def received(payload: int, frames: int = 100_000) -> float:
    """Seconds to turn DATA frames of one stream into events, and to grant credit for them."""
    engine = Connection(Role.SERVER, Settings(keepalive_interval=None), now=0.0)
    engine.receive_data(HEADER.pack(0, 1, SYN, 1, 0), 0.0)
    engine.next_event()
    engine.accept_stream(1)
    batch = max(1, limits.INITIAL_WINDOW // 2 // payload)
    chunk = memoryview((HEADER.pack(0, 0, 0, 1, payload) + bytes(payload)) * batch)
    start = time.perf_counter()
    for _ in range(frames // batch):
        engine.receive_data(chunk, 0.0)
        size = 0
        while (event := engine.next_event()) is not NEED_DATA:
            assert type(event) is DataReceived
            size += len(event.data)
        engine.consumed(1, size, 0.0)
        engine.data_to_send(0.0)
    return (time.perf_counter() - start) / (frames // batch * batch)


def sent(streams: int, payload: int, frames: int = 100_000) -> float:
    """Seconds to queue, schedule and build a DATA frame, with so many streams taking turns."""
    settings = Settings(
        keepalive_interval=None,
        max_frame=payload,
        max_outbound_streams=streams,
        max_unacknowledged=streams,
    )
    engine = Connection(Role.CLIENT, settings, now=0.0)
    stream_ids = [engine.open_stream() for _ in range(streams)]
    engine.data_to_send(0.0)
    wire = b"".join(
        HEADER.pack(0, 1, ACK, n, 2**32 - 1 - limits.INITIAL_WINDOW) for n in stream_ids
    )
    engine.receive_data(wire, 0.0)
    engine.next_event()
    data = bytes(payload)
    built = 0
    start = time.perf_counter()
    while built < frames:
        for stream_id in stream_ids:
            engine.send_data(stream_id, data)
        while parts := engine.data_to_send(0.0, limits.BATCH):
            built += len(parts) // 2
    return (time.perf_counter() - start) / built


def report(name: str, goal: int | None, measure: Callable[[], float]) -> None:
    rate = 1 / min(measure() for _ in range(RUNS)) / 1000
    wanted = "" if goal is None else f"   goal {goal} k/s"
    print(f"{name:48}{rate:8.0f} k frames/s{wanted}")


def main() -> None:
    report("received, 16 KiB of payload", 500, lambda: received(16 * limits.KIB))
    report("received, 64 bytes", None, lambda: received(64))
    report("sent, 100 streams, 16 KiB", 300, lambda: sent(100, limits.FOREIGN_FRAME))
    report("sent, 100 streams, 64 bytes", None, lambda: sent(100, 64))
    report("sent, 1 stream, 16 KiB", None, lambda: sent(1, limits.FOREIGN_FRAME))


if __name__ == "__main__":
    main()
