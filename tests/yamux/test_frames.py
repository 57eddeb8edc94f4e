import pytest

from tunnel.yamux import frames
from tunnel.yamux.frames import HEADER, Flag, FrameType, GoAwayCode, describe


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
