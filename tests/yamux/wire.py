"""A peer's side of the wire, written by hand: frames to hear, and what was said as text."""

from __future__ import annotations

import struct

from tunnel.yamux import CLOSED, NEED_DATA, Connection, Role, Settings

HEADER = struct.Struct("!BBHII")
DATA, UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
WINDOW = 256 * 1024

NAMES = {DATA: "DATA", UPDATE: "UPDATE", PING: "PING", GO_AWAY: "GO_AWAY"}
FLAGS = {SYN: "SYN", ACK: "ACK", FIN: "FIN", RST: "RST"}


def data(stream_id, body=b"", flags=0):
    return HEADER.pack(0, DATA, flags, stream_id, len(body)) + body


def update(stream_id, delta=0, flags=0):
    return HEADER.pack(0, UPDATE, flags, stream_id, delta)


def ping(value, flags=SYN):
    return HEADER.pack(0, PING, flags, 0, value)


def go_away(code=0):
    return HEADER.pack(0, GO_AWAY, 0, 0, code)


def server(now=0.0, **settings):
    """An engine whose peer opens the odd streams. No keepalive unless asked for."""
    return Connection(Role.SERVER, Settings(**{"keepalive_interval": None} | settings), now=now)


def client(now=0.0, **settings):
    return Connection(Role.CLIENT, Settings(**{"keepalive_interval": None} | settings), now=now)


def hear(engine, *frames, now=0.0):
    """Give the engine these frames; the events that they cause."""
    engine.receive_data(b"".join(frames), now)
    return told(engine)


def told(engine):
    events = []
    while (event := engine.next_event()) is not NEED_DATA and event is not CLOSED:
        events.append(event)
    return events


def said(engine, now=0.0, max_bytes=1 << 30):
    """What the engine sends, frame by frame, such as ``UPDATE|SYN 1 0``."""
    wire = b"".join(engine.data_to_send(now, max_bytes))
    frames = []
    while wire:
        version, kind, flags, stream_id, length = HEADER.unpack_from(wire)
        assert version == 0
        name = "|".join([NAMES[kind], *(text for flag, text in FLAGS.items() if flags & flag)])
        frames.append(f"{name} {stream_id} {length}")
        wire = wire[HEADER.size + (length if kind == DATA else 0) :]
    return frames


def accepted(engine, *stream_ids):
    """The peer opens these streams, and the engine has accepted them and said so."""
    hear(engine, *(update(stream_id, flags=SYN) for stream_id in stream_ids))
    for stream_id in stream_ids:
        engine.accept_stream(stream_id)
    said(engine)


def opened(engine, count=1):
    """The engine has opened streams and the peer has acknowledged them."""
    stream_ids = [engine.open_stream() for _ in range(count)]
    said(engine)
    hear(engine, *(update(stream_id, flags=ACK) for stream_id in stream_ids))
    return stream_ids
