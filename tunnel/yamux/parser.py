"""Cuts a byte stream into frame headers and pieces of bodies, without copying bodies."""

from __future__ import annotations

from typing import Final, TypeAlias

from tunnel.yamux.frames import HEADER, HEADER_SIZE

Buffer: TypeAlias = bytes | bytearray | memoryview
Header: TypeAlias = tuple[int, int, int, int, int]

_NOTHING: Final = memoryview(b"")


class FrameParser:
    """Holds at most one chunk of the caller's and at most 11 bytes of a header.

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
