"""Frames of the handshake and of the control stream: u32 length, big-endian, and JSON.

JSON is read strictly (RFC 8259 leaves duplicate keys, NaN and lone surrogates to the reader). The
proofs cover bytes, so two ends that read one frame differently would agree on it all the same.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final, NoReturn, TypeAlias

from tunnel.errors import RemoteProtocolError

_LENGTH: Final = struct.Struct("!I")
_MAX_DIGITS: Final = 20

Json: TypeAlias = dict[str, Any]


def encode_frame(message: Json) -> bytes:
    """A message as it goes on the wire, length and all."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return _LENGTH.pack(len(body)) + body


def decode_json(body: bytes) -> Json:
    """The object in a frame's body.

    Raises:
      RemoteProtocolError: it is not UTF-8, not JSON, not an object, or one that lax readers let
        through; or it is nested more deeply than Python's reader goes.
    """
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_no_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_short_int,
        )
        if not isinstance(value, dict):
            raise RemoteProtocolError("a message is not a JSON object")
        # A lone surrogate, written as an escape, is valid JSON and no text.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise RemoteProtocolError("a message is not valid UTF-8") from error
    except ValueError as error:
        raise RemoteProtocolError("a message is not valid JSON") from error
    except RecursionError as error:
        raise RemoteProtocolError("a message is nested too deeply") from error
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Json:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise RemoteProtocolError("a message has the same key twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise RemoteProtocolError(f"a message has the number {name}")


def _short_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise RemoteProtocolError("a message has a number of too many digits")
    return int(digits)


class FrameDecoder:
    """Cuts a byte stream into frames.

    Args:
      limit: largest body in bytes; raise it once the peer has proved who it is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes that the wire brought."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """The next whole frame, with its length as it came; None until more bytes come.

        Raises:
          RemoteProtocolError: the announced length is 0, or beyond the limit; none of it is kept.
        """
        if len(self._buffer) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer)
        if not 0 < size <= self.limit:
            raise RemoteProtocolError(f"a message of {size} bytes; at most {self.limit} are taken")
        end = _LENGTH.size + size
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[:end])
        del self._buffer[:end]
        return frame

    def clear(self) -> None:
        """Drop what has come."""
        self._buffer.clear()

    @property
    def trailing(self) -> bytes:
        """What came behind the last frame that was taken out."""
        return bytes(self._buffer)


def frame_body(frame: bytes) -> bytes:
    """A frame without its length."""
    return frame[_LENGTH.size :]
