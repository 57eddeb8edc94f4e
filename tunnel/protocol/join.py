"""Join strings: all that a client needs to know of a server, as one word to copy."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from tunnel.errors import TunnelError
from tunnel.protocol.keys import (
    KEY_SIZE,
    MISTYPED,
    armoured,
    generate_key,
    key_bytes,
    read_armoured,
)

#: What join strings begin with, so that people and secret scanners know one when they see it.
PREFIX: Final = "ttj1_"
_LABEL: Final = b"tls-tunnel/1 join checksum\0"
_PIN: Final = "sha256:"
_PIN_SIZE: Final = 32
_PORT: Final = struct.Struct("!H")
_LONGEST_HOST: Final = 255
#: The text of the longest one, and room to spare: what is longer is not even decoded.
_LONGEST: Final = 1024


class JoinFormatError(TunnelError):
    """A text is no join string: it was mistyped or cut, or is something else."""


@attrs.frozen
class Join:
    """A server, the key for it, and what to trust it by. It is as secret as the key.

    Args:
      host: the server's name or address.
      port: where it listens for clients.
      key: the authentication key, a generated one.
      pin: its public key, as `pin` in ``client.toml`` has it.
    """

    host: str
    port: int
    key: str = attrs.field(repr=False)
    pin: str

    def to_text(self) -> str:
        """One word, with a checksum.

        Raises:
          JoinFormatError: a part cannot be written down.
        """
        key, host = key_bytes(self.key), self.host.encode()
        if key is None:
            raise JoinFormatError("only a key that `tls-tunnel keygen` made fits a join string")
        if not _is_host(host) or not 0 < self.port < 65536 or not self.pin.startswith(_PIN):
            raise JoinFormatError("this server has no name, port or pin that fits a join string")
        pin = bytes.fromhex(self.pin.removeprefix(_PIN))
        return armoured(PREFIX, _LABEL, key + pin + _PORT.pack(self.port) + host)

    @classmethod
    def from_text(cls, text: str) -> Join:
        """Read what `to_text` wrote.

        Raises:
          JoinFormatError: it is something else, or was mistyped or cut.
        """
        payload = _payload(text.strip())
        key, rest = payload[:KEY_SIZE], payload[KEY_SIZE:]
        pin, rest = rest[:_PIN_SIZE], rest[_PIN_SIZE:]
        host = rest[_PORT.size :]
        port: int = _PORT.unpack(rest[: _PORT.size])[0]
        if not _is_host(host) or not port:
            raise JoinFormatError("the join string names no server")
        return cls(host.decode(), port, generate_key(key), _PIN + pin.hex())


def _payload(text: str) -> bytes:
    """The bytes of a join string, which have key, pin, port and a part of the host at least.

    Raises:
      JoinFormatError: it is something else, or was mistyped or cut.
    """
    if not text.startswith(PREFIX):
        raise JoinFormatError(f"a join string begins with {PREFIX}; this text does not")
    payload = read_armoured(text, PREFIX, _LABEL) if len(text) <= _LONGEST else None
    if payload is None or len(payload) <= KEY_SIZE + _PIN_SIZE + _PORT.size:
        raise JoinFormatError(f"the join string has a wrong checksum: {MISTYPED}")
    return payload


def _is_host(host: bytes) -> bool:
    """True for what can be a name or an address; whether it is one, connecting shows."""
    try:
        text = host.decode()
    except UnicodeDecodeError:
        return False
    return 0 < len(host) <= _LONGEST_HOST and text.isprintable() and not set(" /,;@[]") & set(text)
