"""What each proof of the protocol covers, and how it is made of it.

A proof is an HMAC over everything that both ends must agree on, so that it fits one connection and
no other: it can be neither replayed nor passed on. Those of the handshake cover a `Transcript`, its
frames and the server's certificate; those of a visit cover a `VisitTranscript`, who visits whose
proxy, and the nonces of both. None carries the secret.

Source: the SCRAM exchange (RFC 5802 section 3), and `docs/protocol.md`, "2b and 3b `proof`"
and "Visits".
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import attrs

from tunnel.protocol.keys import mac, root_key

#: How a proof is tied to the connection: to the server's certificate, or to nothing, which is for a
#: proxy in between that ends TLS. "none" is reserved: no end of ours offers or accepts it.
BINDINGS: Final = ("certificate", "none")
VISIT_NONCE_SIZE: Final = 32
VISIT_MAC_SIZE: Final = 32

_TRANSCRIPT_LABEL: Final = b"tls-tunnel/1\0"
_CLIENT_LABEL: Final = b"tls-tunnel/1 client proof\0"
_SERVER_LABEL: Final = b"tls-tunnel/1 server proof\0"
_VISIT_SALT: Final = b"tls-tunnel/1 visitor key"
_VISIT_LABEL: Final = b"tls-tunnel/1 visit\0"
_VISITED_LABEL: Final = b"tls-tunnel/1 visited\0"
_U16: Final = struct.Struct("!H")


@attrs.frozen
class Binding:
    """What ties the proofs to the connection.

    With the certificate in the proofs, an end in the middle that shows another certificate gets
    proofs that fit nowhere else. (RFC 5929 section 4, tls-server-end-point, is the same idea.)

    Args:
      kind: one of `BINDINGS`.
      leaf_hash: SHA-256 of the server's certificate in DER, as this end sees it; 32 bytes.
    """

    kind: str
    leaf_hash: bytes = b""

    def __attrs_post_init__(self) -> None:
        # Nothing downstream would notice: both ends would agree on a hash of nothing.
        if self.kind not in BINDINGS:
            raise ValueError(f"there is no binding {self.kind!r}")
        if len(self.leaf_hash) != (32 if self.kind == "certificate" else 0):
            raise ValueError(f"binding {self.kind} with a hash of {len(self.leaf_hash)} bytes")

    def to_bytes(self) -> bytes:
        """B of the protocol: 33 bytes."""
        if self.kind == "certificate":
            return b"\1" + self.leaf_hash
        return b"\0" + bytes(32)


class Transcript:
    """T of the protocol: the binding and the frames so far, exactly as they were sent.

    The bytes are hashed and not the values in them, so that no two ends can read one frame
    differently and still agree.

    Args:
      binding: what this end ties the proofs to.
    """

    def __init__(self, binding: Binding) -> None:
        self._hash = hashlib.sha256(_TRANSCRIPT_LABEL + binding.to_bytes())

    def add(self, frame: bytes) -> None:
        """Take the next frame, its length included."""
        self._hash.update(frame)

    def client_mask(self, stored_key: bytes) -> bytes:
        """M of the protocol, 32 bytes: what the client's key is XORed with to make its proof.

        The server XORs the proof with it again, and compares the hash of what comes out with
        `stored_key`. (RFC 5802 section 3 calls it ClientSignature.)
        """
        return mac(stored_key, _CLIENT_LABEL + self._hash.digest())

    def server_proof(self, server_key: bytes) -> bytes:
        """Q of the protocol, 32 bytes: what the server proves itself with (ServerSignature)."""
        return mac(server_key, _SERVER_LABEL + self._hash.digest())


@attrs.frozen
class VisitTranscript:
    """X of the protocol: what both proofs of a visit cover.

    Args:
      owner: the name of the client that has the proxy, as the server assigned it.
      proxy: the proxy's name.
      port: its `publish_port`, as configured.
      visitor: the name of the client that visits it, as the server assigned it.
      owner_nonce: made by the owner for each session, 32 bytes.
      visitor_nonce: made by the visiting client for each stream, 32 bytes.
    """

    owner: str
    proxy: str
    port: int
    visitor: str
    owner_nonce: bytes
    visitor_nonce: bytes

    def visit_proof(self, key: bytes) -> bytes:
        """What shows that the visitor's client knows the secret, by its `visit_key`; 32 bytes."""
        return mac(key, _VISIT_LABEL + self._text())

    def visited_proof(self, key: bytes) -> bytes:
        """What shows that the owner knows it; 32 bytes, the first of the stream."""
        return mac(key, _VISITED_LABEL + self._text())

    def _text(self) -> bytes:
        # Each name has its length before it: no two visits are the same text, wherever a name ends.
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
    """The key of a `visitor_secret`, 32 bytes; takes as long as `keys.derive` does.

    Raises:
      KeyFormatError: see `keys.derive`.
    """
    return root_key(secret, _VISIT_SALT)
