"""Bytes cut to fit TLS records, on both their ways into OpenSSL.

What is to be encrypted should fill records: each costs a call here and another at the other end.
What is to be decrypted should be whole ones: that the rest is missing OpenSSL says by an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from tunnel import limits

Buffer: TypeAlias = bytes | bytearray | memoryview

#: Of a record: type, version, length (RFC 8446 section 5.1).
_HEADER_SIZE: Final = 5
#: What one holds at most, and how long it then is at most (sections 5.1 and 5.2).
_PLAIN: Final = 1 << 14
_LONGEST: Final = _PLAIN + 256


def pieces(parts: Sequence[Buffer]) -> list[Buffer]:
    """Cut bytes into what is encrypted piece by piece: short parts joined, long ones cut.

    What is short, a frame's header above all, takes as much of the long part behind it along as
    fills a record. Long parts are not copied otherwise.
    """
    if sum(map(len, parts)) < limits.TLS_JOIN:
        return [b"".join(parts)]  # most batches, where latency is what counts
    found: list[Buffer] = []
    short: list[Buffer] = []
    for part in parts:
        if len(part) < limits.TLS_JOIN:
            short.append(part)
            continue
        view = memoryview(part)
        if short:
            fill = -sum(map(len, short)) % _PLAIN
            _cut(b"".join((*short, view[:fill])), found)
            short.clear()
            view = view[fill:]
        _cut(view, found)
    _cut(b"".join(short), found)
    return found


def _cut(data: bytes | memoryview, found: list[Buffer]) -> None:
    if len(data) <= limits.TLS_SLICE:
        if data:
            found.append(data)
        return
    view = memoryview(data)
    step = limits.TLS_SLICE
    found.extend([view[start : start + step] for start in range(0, len(view), step)])


class RecordEnds:
    """Follows the records of a connection from its first byte on, by nothing but their headers."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        #: Bytes that are missing to the record under way.
        self._left = 0
        #: What has come of a header that is not complete.
        self._header = b""

    def find(self, data: memoryview) -> list[int]:
        """Where to cut `data`, the next bytes, so that each piece ends with a record.

        Each is about `limits.TLS_SLICE` long. What is behind the last cut is the beginning of a
        record, or nothing. One that is too long ends at once: OpenSSL is to say so.
        """
        size = len(data)
        end = self._left
        if self._header:
            header = self._header + data[: _HEADER_SIZE - len(self._header)]
            if len(header) < _HEADER_SIZE:
                self._header = header
                return []
            length = header[3] << 8 | header[4]
            end = _HEADER_SIZE - len(self._header) + (length if length <= _LONGEST else 0)
        cuts: list[int] = []
        start = last = 0
        while end <= size:
            last = end
            if last - start >= limits.TLS_SLICE:
                cuts.append(last)
                start = last
            if end + _HEADER_SIZE > size:
                break
            length = data[end + 3] << 8 | data[end + 4]
            end += _HEADER_SIZE + (length if length <= _LONGEST else 0)
        if last > start:
            cuts.append(last)
        self._left = max(0, end - size)
        self._header = bytes(data[end:])
        return cuts
