"""What a visitor's stream begins with: a PROXY protocol v2 header.

A server opens one for a visitor of a public port, and for a visitor through another client; that
client has opened one to the server before. Private values tell what the addresses do not.

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
from tunnel.model import Address, name_fault
from tunnel.protocol import fields

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_HEADER: Final = struct.Struct("!12sBBH")
_PROXY_V2: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_TLV: Final = struct.Struct("!BH")
_UNIQUE_ID: Final = 0x05
_PROXY_ID: Final = 0xE0
_VISITOR_ID: Final = 0xE1
_PROOF: Final = 0xE2
_VISITOR: Final = 0xE3
_CLAIMED: Final = 0xE4
_U32: Final = struct.Struct("!I")
_CONNECTION_ID_SIZE: Final = 8
#: The whole header of a visitor of a public port over IPv4, as `build_preamble` makes it: most are
#: such, and taking it apart piece by piece costs three times as much.
_COMMON: Final = struct.Struct(f"!12sBBH4s4sHHBH{_CONNECTION_ID_SIZE}sBHI")
_COMMON_BODY: Final = _COMMON.size - _HEADER.size
#: A visitor's nonce and its proof.
PROOF_SIZE: Final = 64


@attrs.define  # not frozen: that is a microsecond for each visitor
class Preamble:
    """Where a stream comes from, and which proxy it is for.

    Args:
      source: the visitor's address; of one through another client, that client's.
      destination: the address that it reached.
      proxy_id: which proxy, on a stream that a server opened; else None.
      connection_id: 8 bytes that all logs use.
      visitor_id: which visitor of the client's, on a stream that a client opened; else None.
      proof: the visitor's nonce and proof, 32 bytes each, if the proxy has a secret; else empty.
      through: the name of the client that the visitor comes through, as the server calls it; None
        for the visitor of a public port.
      assigned: that name belongs to the client's key, and was not chosen by the client.
      claimed: where the visitor comes from, as that client says; for log lines.
    """

    source: Address
    destination: Address
    proxy_id: int | None
    connection_id: bytes
    visitor_id: int | None = None
    proof: bytes = b""
    through: str | None = None
    assigned: bool = False
    claimed: str = ""


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
    one, other = _packed(source), _packed(destination)
    if len(one) != 4 or len(other) != 4:
        tlvs = _tlv(_UNIQUE_ID, connection_id) + _tlv(_PROXY_ID, _U32.pack(proxy_id))
        return _v2(source, destination, tlvs)
    return _COMMON.pack(
        *(_SIGNATURE, _PROXY_V2, _TCP4, _COMMON_BODY),
        *(one, other, source.port, destination.port),
        *(_UNIQUE_ID, _CONNECTION_ID_SIZE, connection_id),
        *(_PROXY_ID, _U32.size, proxy_id),
    )


def build_visit_preamble(
    source: Address,
    destination: Address,
    visitor_id: int,
    connection_id: bytes,
    proof: bytes = b"",
) -> bytes:
    """The header that a client puts before the bytes of a visitor of one of its visit ports.

    Args:
      source, destination: of the visitor's connection to the client.
      visitor_id: as `configure` gave it.
      connection_id: 8 bytes that all logs use.
      proof: the visitor's nonce and proof, if the proxy has a secret.
    """
    tlvs = _tlv(_UNIQUE_ID, connection_id) + _tlv(_VISITOR_ID, _U32.pack(visitor_id))
    return _v2(source, destination, tlvs + (_tlv(_PROOF, proof) if proof else b""))


def build_forwarded_preamble(
    source: Address,
    destination: Address,
    proxy_id: int,
    visit: Preamble,
    through: str,
    *,
    assigned: bool,
) -> bytes:
    """The header that a server puts before a visit's bytes on their way to the proxy's owner.

    Args:
      source: the visiting client's address, as the server sees it.
      destination: the server's address that this client is connected to.
      proxy_id: as `configured` gave it to the owner.
      visit: what the visiting client sent.
      through: the name of that client.
      assigned: it belongs to the client's key.
    """
    tlvs = [
        _tlv(_UNIQUE_ID, visit.connection_id),
        _tlv(_PROXY_ID, _U32.pack(proxy_id)),
        _tlv(_VISITOR, bytes([assigned]) + through.encode()),
        _tlv(_CLAIMED, str(visit.source).encode()),
    ]
    if visit.proof:
        tlvs.append(_tlv(_PROOF, visit.proof))
    return _v2(source, destination, b"".join(tlvs))


def _tlv(kind: int, value: bytes) -> bytes:
    return _TLV.pack(kind, len(value)) + value


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
        return "{}.{}.{}.{}".format(*packed)  # a third less than joining them costs
    return str(ipaddress.IPv6Address(packed))


def _as_ipv6(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def _common(data: memoryview | bytes) -> Preamble | None:
    """What `_COMMON` is about, if the data begins with all of such a header; else None."""
    if len(data) < _COMMON.size:
        return None
    signature, command, family, size, *ends, kind, length, connection_id, kind2, length2, proxy = (
        _COMMON.unpack_from(data)
    )
    if (signature, command, family, size) != (_SIGNATURE, _PROXY_V2, _TCP4, _COMMON_BODY) or (
        (kind, length, kind2, length2) != (_UNIQUE_ID, _CONNECTION_ID_SIZE, _PROXY_ID, _U32.size)
    ):
        return None
    one, other, port, other_port = ends
    source, destination = Address(_unpacked(one), port), Address(_unpacked(other), other_port)
    return Preamble(source, destination, proxy, connection_id)


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
        if not self._buffer and (preamble := _common(data)) is not None:
            return _COMMON.size, preamble
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
        return _described(source, destination, _tlvs(body[2 * width + 4 :]))


def _described(source: Address, destination: Address, tlvs: dict[int, bytes]) -> Preamble:
    """Addresses and what goes with them; one of the two ids must be there."""
    connection_id = tlvs.get(_UNIQUE_ID, b"")
    if len(connection_id) != _CONNECTION_ID_SIZE:
        raise RemoteProtocolError("a PROXY header without a connection id, or with an odd one")
    proxy_id, visitor_id = (_number(tlvs.get(kind)) for kind in (_PROXY_ID, _VISITOR_ID))
    if (proxy_id is None) == (visitor_id is None):
        raise RemoteProtocolError("a PROXY header that is neither for a proxy nor of a visitor")
    if len(tlvs) == 2:
        return Preamble(source, destination, proxy_id, connection_id, visitor_id)
    return Preamble(
        source, destination, proxy_id, connection_id, visitor_id, *_visit_of(tlvs, proxy_id)
    )


def _number(value: bytes | None) -> int | None:
    if value is None:
        return None
    if len(value) != _U32.size:
        raise RemoteProtocolError("a PROXY header with an id that is no number")
    number: int = _U32.unpack(value)[0]
    return number


def _visit_of(tlvs: dict[int, bytes], proxy_id: int | None) -> tuple[bytes, str | None, bool, str]:
    """Proof, client that it comes through, whether that name was assigned, and what is claimed."""
    proof = tlvs.get(_PROOF, b"")
    if proof and len(proof) != PROOF_SIZE:
        raise RemoteProtocolError("a PROXY header with a proof of an odd size")
    if proxy_id is None or _VISITOR not in tlvs:
        return proof, None, False, ""
    value = tlvs[_VISITOR]
    try:
        through, claimed = value[1:].decode(), tlvs.get(_CLAIMED, b"").decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("a PROXY header with a name that is not UTF-8") from None
    if value[:1] not in (b"\0", b"\1") or name_fault(through):
        raise RemoteProtocolError("a PROXY header with a name that cannot be one")
    return proof, through, value[0] == 1, fields.harmless(claimed)


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
