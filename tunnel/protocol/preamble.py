"""What a visitor's stream begins with: a PROXY protocol v2 header.

Source: "The PROXY protocol", HAProxy, sections 2.1 (version 1), 2.2 (version 2), 2.2.5 (unique
id, PP2_TYPE_UNIQUE_ID) and 2.2.8 (types 0xE0 to 0xEF are for applications).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

import attrs

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import Address

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_HEADER: Final = struct.Struct("!12sBBH")
_PROXY_V2: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_TLV: Final = struct.Struct("!BH")
_UNIQUE_ID: Final = 0x05
_PROXY_ID: Final = 0xE0
_U32: Final = struct.Struct("!I")
_CONNECTION_ID_SIZE: Final = 8


@attrs.frozen
class Preamble:
    """Who visits, and what."""

    source: Address
    destination: Address
    proxy_id: int
    connection_id: bytes


def build_preamble(
    source: Address, destination: Address, proxy_id: int, connection_id: bytes
) -> bytes:
    """The header that a server puts before a visitor's bytes.

    Args:
      source: the visitor's address.
      destination: the address that it reached.
      proxy_id: as `configured` gave it.
      connection_id: 8 bytes that both logs use.
    """
    tlvs = (
        _TLV.pack(_UNIQUE_ID, len(connection_id))
        + connection_id
        + _TLV.pack(_PROXY_ID, _U32.size)
        + _U32.pack(proxy_id)
    )
    return _v2(source, destination, tlvs)


def proxy_v2(source: Address, destination: Address) -> bytes:
    """The header for a local service that asks for version 2."""
    return _v2(source, destination, b"")


def proxy_v1(source: Address, destination: Address) -> bytes:
    """The header for a local service that asks for version 1; without addresses if they mix."""
    one, other = _packed(source), _packed(destination)
    if len(one) != len(other):
        return b"PROXY UNKNOWN\r\n"
    family = "TCP4" if len(one) == 4 else "TCP6"
    # Written anew: the format has no room for a zone.
    hosts = f"{_unpacked(one)} {_unpacked(other)}"
    return f"PROXY {family} {hosts} {source.port} {destination.port}\r\n".encode()


def _v2(source: Address, destination: Address, tlvs: bytes) -> bytes:
    one, other = _packed(source), _packed(destination)
    if len(one) != len(other):
        one, other = _as_ipv6(one), _as_ipv6(other)
    family = _TCP4 if len(one) == 4 else _TCP6
    body = one + other + struct.pack("!HH", source.port, destination.port) + tlvs
    return _HEADER.pack(_SIGNATURE, _PROXY_V2, family, len(body)) + body


def _packed(address: Address) -> bytes:
    # IPv4 by hand: `ipaddress` would cost more than all the rest of a header.
    host = address.host
    if ":" in host:
        return ipaddress.IPv6Address(host).packed
    return bytes(map(int, host.split(".")))


def _unpacked(packed: bytes) -> str:
    if len(packed) == 4:
        return ".".join(map(str, packed))
    return str(ipaddress.IPv6Address(packed))


def _as_ipv6(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


class PreambleDecoder:
    """Reads exactly one header, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._size = _HEADER.size
        self._family = 0

    def feed(self, data: memoryview | bytes) -> tuple[int, Preamble | None]:
        """Take bytes; return how many belong to the header, and the header if it is whole.

        Raises:
          RemoteProtocolError: it is not a header that a server of this protocol sends.
        """
        taken = 0
        while taken < len(data):
            piece = data[taken : taken + self._size - len(self._buffer)]
            self._buffer += piece
            taken += len(piece)
            if len(self._buffer) == self._size:
                if self._family:
                    return taken, self._parse()
                self._parse_fixed()
        return taken, None

    def _parse_fixed(self) -> None:
        signature, command, family, size = _HEADER.unpack(self._buffer)
        if signature != _SIGNATURE or command != _PROXY_V2 or family not in (_TCP4, _TCP6):
            raise RemoteProtocolError("a visitor's stream does not begin with a PROXY v2 header")
        least = 12 if family == _TCP4 else 36
        if not least <= size <= limits.MAX_PREAMBLE - _HEADER.size:
            raise RemoteProtocolError(f"a PROXY header of {size} bytes")
        self._family = family
        self._size += size

    def _parse(self) -> Preamble:
        width = 4 if self._family == _TCP4 else 16
        body = bytes(self._buffer[_HEADER.size :])
        ports = struct.unpack_from("!HH", body, 2 * width)
        hosts = (body[:width], body[width : 2 * width])
        source, destination = (
            Address(_unpacked(host), port) for host, port in zip(hosts, ports, strict=True)
        )
        tlvs = _tlvs(body[2 * width + 4 :])
        try:
            (proxy_id,) = _U32.unpack(tlvs[_PROXY_ID])
            connection_id = tlvs[_UNIQUE_ID]
        except (KeyError, struct.error):
            raise RemoteProtocolError("a PROXY header without proxy or connection id") from None
        if len(connection_id) != _CONNECTION_ID_SIZE:
            raise RemoteProtocolError("a PROXY header with an odd connection id")
        return Preamble(source, destination, proxy_id, connection_id)


def _tlvs(body: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    position = 0
    while position < len(body):
        if len(body) - position < _TLV.size:
            raise RemoteProtocolError("a PROXY header with half a TLV")
        kind, size = _TLV.unpack_from(body, position)
        position += _TLV.size
        if len(body) - position < size or kind in values:
            raise RemoteProtocolError("a PROXY header with a TLV cut short, or twice")
        values[kind] = body[position : position + size]
        position += size
    return values
