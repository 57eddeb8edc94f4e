"""Frames: the header, and cutting a byte stream into headers and pieces of bodies.

The header is 12 bytes, big-endian:

    version: u8 | type: u8 | flags: u16 | stream id: u32 | length: u32

Source: the Yamux specification, "Framing". Only a DATA frame has a body, of `length` bytes; for
the others `length` is the credit, the opaque value of a ping, or the code of a go-away.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

VERSION: Final = 0
HEADER: Final = struct.Struct("!BBHII")
HEADER_SIZE: Final = HEADER.size

Buffer: TypeAlias = bytes | bytearray | memoryview
#: Version, type, flags, stream id, length.
Header: TypeAlias = tuple[int, int, int, int, int]
#: Called with a direction ("in" or "out") and a header as text.
Trace: TypeAlias = Callable[[str, str], None]


class FrameType(enum.IntEnum):
    """What a frame is for."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(enum.IntFlag):
    """What a frame says about its stream, beside what it carries."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAwayCode(enum.IntEnum):
    """Why a session ends (specification, "Go Away")."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


# Plain integers for the code that runs for every frame: an IntEnum member costs a lookup there.
DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3
SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8


def describe(kind: int, flags: int, stream_id: int, length: int) -> str:
    """A header as a trace shows it, such as ``DATA|FIN stream=3 length=12``; any numbers will do.

    Args:
      kind, flags, stream_id, length: its fields but the version.
    """
    try:
        name = FrameType(kind).name
    except ValueError:
        name = f"type {kind}"
    flag_names = [flag.name or "" for flag in Flag if flags & flag]
    return f"{'|'.join([name, *flag_names])} stream={stream_id} length={length}"


_NOTHING: Final = memoryview(b"")


class FrameParser:
    """Cuts a byte stream into frame headers and pieces of bodies, without copying bodies.

    Holds at most one chunk of the caller's and at most 11 bytes of a header.

    The order of calls is the order of the wire: `header`, and after a header with a body `body`
    until all of it has come, then `header` again.
    """

    __slots__ = ("_chunk", "_head", "_position")

    def __init__(self) -> None:
        self._chunk = _NOTHING
        self._position = 0
        self._head = bytearray()

    def feed(self, data: Buffer) -> None:
        """Take the next chunk. It is copied only if the one before was not used up."""
        rest = self._chunk[self._position :]
        self._chunk = memoryview(bytes(rest) + bytes(data) if rest else data)
        self._position = 0

    @property
    def at_boundary(self) -> bool:
        """True if nothing is held; with no body under way, that is between two frames."""
        return not self._head and self._position == len(self._chunk)

    def header(self) -> Header | None:
        """The next header, or None until more bytes come."""
        start = self._position
        if not self._head and len(self._chunk) - start >= HEADER_SIZE:
            self._position = start + HEADER_SIZE
            return HEADER.unpack_from(self._chunk, start)
        return self._split_header()

    def _split_header(self) -> Header | None:
        """A header of which some bytes came with an earlier chunk: the only copy made here."""
        self._head += self.body(HEADER_SIZE - len(self._head))
        if len(self._head) < HEADER_SIZE:
            self.release()
            return None
        header: Header = HEADER.unpack(self._head)
        self._head.clear()
        return header

    def body(self, most: int) -> memoryview:
        """Up to `most` of the bytes at hand; empty until more come."""
        piece = self._chunk[self._position : self._position + most]
        self._position += len(piece)
        if not piece:
            self.release()
        return piece

    def release(self) -> None:
        """Let go of the caller's buffer: it may be used again, or resized, now."""
        self._chunk, self._position = _NOTHING, 0
