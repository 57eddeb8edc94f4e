"""Frames: the header, and cutting a byte stream into headers and pieces of bodies."""

import pytest

from tests.yamux.wire import DATA, SYN, data, go_away, ping, server, told, update
from tunnel.errors import RemoteProtocolError
from tunnel.yamux import GoAwayReceived, frames
from tunnel.yamux.frames import HEADER, Flag, FrameParser, FrameType, GoAwayCode, describe


def test_the_header_is_twelve_bytes_big_endian():
    packed = HEADER.pack(0, 1, 2, 3, 0x01020304)
    assert packed == bytes.fromhex("00 01 0002 00000003 01020304")


def test_the_plain_integers_are_the_named_ones():
    assert list(FrameType) == [frames.DATA, frames.WINDOW_UPDATE, frames.PING, frames.GO_AWAY]
    assert list(Flag) == [frames.SYN, frames.ACK, frames.FIN, frames.RST]


def test_the_reasons_to_go_away_are_those_of_the_specification():
    assert [(code.name, code) for code in GoAwayCode] == [
        ("NORMAL", 0),
        ("PROTOCOL_ERROR", 1),
        ("INTERNAL_ERROR", 2),
    ]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ((0, 0, 3, 12), "DATA stream=3 length=12"),
        ((0, 4, 3, 12), "DATA|FIN stream=3 length=12"),
        ((1, 3, 1, 0), "WINDOW_UPDATE|SYN|ACK stream=1 length=0"),
        ((2, 16, 0, 9), "PING stream=0 length=9"),
        ((77, 8, 1, 2), "type 77|RST stream=1 length=2"),
    ],
)
def test_describe_names_whatever_came(header, text):
    assert describe(*header) == text


# --- The parser ------------------------------------------------------------------------------


def test_a_header_in_one_piece():
    parser = FrameParser()
    parser.feed(ping(7))
    assert parser.header() == (0, 2, 1, 0, 7)
    assert parser.header() is None
    assert parser.at_boundary


@pytest.mark.parametrize("cut", range(1, HEADER.size))
def test_a_header_cut_anywhere(cut):
    parser = FrameParser()
    parser.feed(ping(7)[:cut])
    assert parser.header() is None
    assert not parser.at_boundary
    parser.feed(ping(7)[cut:] + ping(8))
    assert parser.header() == (0, 2, 1, 0, 7)
    assert parser.header() == (0, 2, 1, 0, 8)


def test_a_header_byte_by_byte():
    parser = FrameParser()
    for byte in ping(7)[:-1]:
        parser.feed(bytes([byte]))
        assert parser.header() is None
    parser.feed(ping(7)[-1:])
    assert parser.header() == (0, 2, 1, 0, 7)


def test_a_body_is_a_view_and_no_copy():
    chunk = bytearray(data(1, b"hello"))
    parser = FrameParser()
    parser.feed(chunk)
    assert parser.header() == (0, DATA, 0, 1, 5)
    body = parser.body(5)
    chunk[-5:] = b"HELLO"
    assert body == b"HELLO"


def test_a_body_in_pieces():
    parser = FrameParser()
    parser.feed(data(1, b"hello")[:14])
    parser.header()
    assert parser.body(5) == b"he"
    assert parser.body(3) == b""
    parser.feed(b"llo" + ping(1))
    assert parser.body(3) == b"llo"
    assert parser.header() == (0, 2, 1, 0, 1)


def test_a_chunk_that_comes_too_early_waits_behind_the_one_before():
    parser = FrameParser()
    parser.feed(ping(1) + ping(2))
    assert parser.header() == (0, 2, 1, 0, 1)
    parser.feed(ping(3))
    assert parser.header() == (0, 2, 1, 0, 2)
    assert parser.header() == (0, 2, 1, 0, 3)


def test_a_chunk_that_nobody_has_looked_at_is_held():
    parser = FrameParser()
    assert parser.at_boundary
    parser.feed(ping(1))
    assert not parser.at_boundary


def test_a_buffer_that_was_used_up_is_let_go():
    chunk = bytearray(ping(1))
    parser = FrameParser()
    parser.feed(chunk)
    parser.header()
    assert parser.header() is None
    chunk.clear()  # BufferError if a view of it were left


def test_a_buffer_is_let_go_when_it_ends_inside_a_header():
    engine = server()
    buffer = bytearray(ping(1) + ping(2)[:5])
    engine.receive_data(buffer, 0.0)
    assert told(engine) == []
    buffer.clear()  # BufferError if the engine still looks at it


def test_a_buffer_is_let_go_when_it_ends_inside_a_body():
    engine = server()
    buffer = bytearray(data(1, b"hello", SYN)[:14])
    engine.receive_data(buffer, 0.0)
    assert len(told(engine)) == 2
    buffer.clear()


def test_a_buffer_is_let_go_when_the_connection_ends():
    engine = server()
    buffer = bytearray(update(2, flags=1) + ping(1))
    engine.receive_data(buffer, 0.0)
    with pytest.raises(RemoteProtocolError):
        engine.next_event()
    buffer.clear()


def test_a_buffer_is_let_go_when_the_peer_ends_the_connection():
    engine = server()
    buffer = bytearray(go_away(1) + ping(1))
    engine.receive_data(buffer, 0.0)
    assert told(engine) == [GoAwayReceived(1)]
    buffer.clear()
