"""Visiting another client's proxy: what is asked for, what is told of it, and who proves what.

A proxy may have a secret that its visitors must know. It goes through the server as a proof only,
and the owner proves that it knows the secret too, before a byte of the service's is sent.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

import attrs

from tunnel import limits
from tunnel.protocol import fields
from tunnel.protocol.framing import Json
from tunnel.protocol.keys import mac, root_key

#: The feature of an end that takes part in visits.
VISITORS: Final = "visitors"
VISIT_NONCE_SIZE: Final = 32
VISIT_MAC_SIZE: Final = 32
_SALT: Final = b"tls-tunnel/1 visitor key"
_VISIT: Final = b"tls-tunnel/1 visit\0"
_VISITED: Final = b"tls-tunnel/1 visited\0"
_U16: Final = struct.Struct("!H")
_U32: Final = 2**32 - 1


@attrs.frozen
class VisitorRequest:
    """A proxy of some client that this client wants to visit.

    Args:
      visitor_id: chosen by the client; each stream says it.
      name: the proxy's name.
      publish_port: the proxy's; 0 is whatever it has, if there is only one of that name.
      owner: the name of the client that must have it; empty for any.
    """

    visitor_id: int
    name: str
    publish_port: int = 0
    owner: str = ""

    def to_json(self) -> Json:
        """An entry of `visitors`."""
        entry = {"id": self.visitor_id, "name": self.name, "publish_port": self.publish_port}
        return entry | ({"owner": self.owner} if self.owner else {})

    @classmethod
    def from_json(cls, message: Json) -> VisitorRequest:
        """Read an entry of `visitors`."""
        return cls(
            fields.integer(message, "id", 0, _U32),
            fields.name(message, "name"),
            fields.integer(message, "publish_port", 0, 65535),
            fields.name(message, "owner") if "owner" in message else "",
        )


@attrs.frozen
class Target:
    """A notice: what has become of a proxy that the client visits.

    Args:
      visitor_id: which visitor of the client's.
      owner: the name of the client that has it; empty if it cannot be visited now.
      port: the `publish_port` that its owner configured.
      nonce: for the proof, if it has a secret; else empty.
      reason: why it cannot be visited now; empty if it can.
    """

    kind: ClassVar = "target"
    visitor_id: int
    owner: str = ""
    port: int = 0
    nonce: bytes = b""
    reason: str = ""

    def to_json(self) -> Json:
        """The message's keys."""
        message: Json = {"id": self.visitor_id}
        if self.owner:
            message |= {"owner": self.owner, "publish_port": self.port}
        if self.nonce:
            message["nonce"] = self.nonce.hex()
        if self.reason:
            message["reason"] = fields.harmless(self.reason)
        return message

    @classmethod
    def from_json(cls, message: Json) -> Target:
        """Read the message's keys."""
        return cls(
            fields.integer(message, "id", 0, _U32),
            fields.name(message, "owner") if "owner" in message else "",
            fields.integer(message, "publish_port", 0, 65535, 0),
            fields.token(message, "nonce", VISIT_NONCE_SIZE) if "nonce" in message else b"",
            fields.harmless(fields.text(message, "reason", limits.MAX_REFUSAL_TEXT, "")),
        )


@attrs.frozen
class Visitation:
    """What both proofs of a visit are about; X of `docs/protocol.md`.

    Args:
      owner: the name of the client that has the proxy, as the server assigned it.
      proxy: the proxy's name.
      port: its `publish_port`, as configured.
      visitor: the name of the client that visits it, as the server assigned it.
      owner_nonce: made by the owner for each session.
      visitor_nonce: made by the visitor for each stream.
    """

    owner: str
    proxy: str
    port: int
    visitor: str
    owner_nonce: bytes
    visitor_nonce: bytes

    def visit_proof(self, key: bytes) -> bytes:
        """What shows that the visitor knows the secret; 32 bytes. `key` is of `visit_key`."""
        return mac(key, _VISIT + self._text())

    def visited_proof(self, key: bytes) -> bytes:
        """What shows that the owner knows it; 32 bytes, the first of the stream."""
        return mac(key, _VISITED + self._text())

    def _text(self) -> bytes:
        return (
            _prefixed(self.owner)
            + _prefixed(self.proxy)
            + _U16.pack(self.port)
            + _prefixed(self.visitor)
            + self.owner_nonce
            + self.visitor_nonce
        )


def _prefixed(name: str) -> bytes:
    encoded = name.encode()
    return _U16.pack(len(encoded)) + encoded


def visit_key(secret: str) -> bytes:
    """The key of a `visitor_secret`; takes as long as `derive` does.

    Raises:
      KeyFormatError: see `derive`.
    """
    return root_key(secret, _SALT)
