"""From an authentication key to what proves it; the key itself never crosses the wire.

The scheme is SCRAM's (RFC 5802 section 3): from the key come a client key, whose hash the server
keeps, and a server key. With the server's copy a client's proof can be checked and none be made.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import attrs

from tunnel.errors import TunnelError

#: What generated keys begin with, so that people and secret scanners know one when they see it.
PREFIX: Final = "ttk1_"
#: The same for what a server keeps of a key.
VERIFIER_PREFIX: Final = "ttv1_"
#: What to do about a word with a wrong checksum.
MISTYPED: Final = "it was mistyped or cut short; copy it again"
KEY_SIZE: Final = 32
_KEY_ID_SIZE: Final = 16
_HASH_SIZE: Final = 32
_CHECKSUM_SIZE: Final = 4
_KEY_LABEL: Final = b"tls-tunnel/1 key checksum\0"
_VERIFIER_LABEL: Final = b"tls-tunnel/1 verifier checksum\0"
_SALT: Final = b"tls-tunnel/1 auth_key"


class KeyFormatError(TunnelError):
    """A key looks like a generated one and is not (it was mistyped or cut), or is no text."""


def mac(key: bytes, message: bytes) -> bytes:
    """H(k, m) of the protocol: HMAC-SHA256, 32 bytes."""
    return hmac.digest(key, message, "sha256")


def generate_key(entropy: bytes) -> str:
    """A key as text, from 32 random bytes."""
    if len(entropy) != KEY_SIZE:
        raise ValueError(f"a key is made of {KEY_SIZE} random bytes, not {len(entropy)}")
    return armoured(PREFIX, _KEY_LABEL, entropy)


def is_generated_key(text: str) -> bool:
    """True if the text is a key that `generate_key` made.

    Raises:
      KeyFormatError: it begins like one, and its length or checksum is wrong; or it is a verifier,
        which is the server's and no key.
    """
    if text.startswith(VERIFIER_PREFIX):
        raise KeyFormatError(
            f"what begins with {VERIFIER_PREFIX} is a verifier and no key: "
            "it goes under verifier in the server's [[server.clients]]"
        )
    if not text.startswith(PREFIX):
        return False
    if _read(text, PREFIX, _KEY_LABEL, KEY_SIZE) is None:
        raise KeyFormatError(f"the key begins with {PREFIX} and its checksum is wrong: {MISTYPED}")
    return True


def key_bytes(text: str) -> bytes | None:
    """The 32 bytes that a generated key was made of; None for another key."""
    return _read(text, PREFIX, _KEY_LABEL, KEY_SIZE) if text.startswith(PREFIX) else None


def armoured(prefix: str, label: bytes, payload: bytes) -> str:
    """Bytes as a word to copy: base32 (RFC 4648 section 6, lower case) with four bytes of checksum.

    Args:
      prefix: what the word begins with.
      label: goes into the checksum, so that one kind of word cannot pass for another.
      payload: the bytes.
    """
    raw = payload + _checksum(label, payload)
    return prefix + base64.b32encode(raw).decode().rstrip("=").lower()


def read_armoured(text: str, prefix: str, label: bytes) -> bytes | None:
    """The bytes that `armoured` made a text of; None if it is not exactly what `armoured` makes.

    Args:
      text: the word.
      prefix, label: as `armoured` was given them.
    """
    body = text.removeprefix(prefix)
    try:
        raw = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError):
        return None
    payload = raw[:-_CHECKSUM_SIZE]
    # Written again: base32 has bits that say nothing, and letters that Python takes for others.
    return payload if armoured(prefix, label, payload) == text else None


def _read(text: str, prefix: str, label: bytes, size: int) -> bytes | None:
    payload = read_armoured(text, prefix, label)
    return payload if payload is not None and len(payload) == size else None


def _checksum(label: bytes, payload: bytes) -> bytes:
    return hashlib.sha256(label + payload).digest()[:_CHECKSUM_SIZE]


@attrs.frozen
class Verifier:
    """What a server needs to know of a key: it can check proofs with it, and not make a client's.

    Args:
      key_id: 16 bytes that name the key on the wire.
      stored_key: SHA-256 of the client key.
      server_key: what the server proves itself with.
    """

    key_id: bytes
    stored_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)

    def to_text(self) -> str:
        """One line for a server's file, with a checksum.

        It is not enough to pass for a client. But it is enough to pass for the server to a client
        that does not verify the certificate, and to try which key made up by a person fits it.
        """
        payload = self.key_id + self.stored_key + self.server_key
        return armoured(VERIFIER_PREFIX, _VERIFIER_LABEL, payload)

    @classmethod
    def from_text(cls, text: str) -> Verifier:
        """Read what `to_text` wrote.

        Raises:
          KeyFormatError: it is something else, or was mistyped or cut.
        """
        size = _KEY_ID_SIZE + 2 * _HASH_SIZE
        payload = _read(text, VERIFIER_PREFIX, _VERIFIER_LABEL, size)
        if payload is None:
            raise KeyFormatError(
                f"a verifier begins with {VERIFIER_PREFIX} and has a checksum, which is wrong "
                f"here: {MISTYPED}"
            )
        stored_key, server_key = payload[_KEY_ID_SIZE:-_HASH_SIZE], payload[-_HASH_SIZE:]
        return cls(payload[:_KEY_ID_SIZE], stored_key, server_key)


def root_key(secret: str, salt: bytes) -> bytes:
    """What all other keys are derived from, 32 bytes.

    A generated key is random already. One that a person made up goes through scrypt (RFC 7914),
    with parameters that cost 0.15 s and 32 MiB, so that guessing it from a proof is slow.

    Raises:
      KeyFormatError: see `derive`.
    """
    try:
        key = secret.encode()
    except UnicodeEncodeError:
        raise KeyFormatError("the key is not valid UTF-8") from None
    if is_generated_key(secret):
        return mac(salt, key)
    return hashlib.scrypt(key, salt=salt, n=2**15, r=8, p=1, maxmem=64 * 2**20, dklen=32)


@attrs.frozen
class ClientKeys:
    """What a client derives from its key; `verifier` is the server's half."""

    client_key: bytes = attrs.field(repr=False)
    verifier: Verifier


def derive(auth_key: str) -> ClientKeys:
    """Derive the keys; takes about 0.15 s and 32 MiB for a key that a person made up.

    Such a key may be guessed from one recorded proof, so guessing is made expensive; a generated
    key has 256 bits and needs no help.

    Raises:
      KeyFormatError: see `is_generated_key`; or it is not text that UTF-8 can carry, which an
        environment variable may hold.
    """
    root = root_key(auth_key, _SALT)
    client_key = mac(root, b"tls-tunnel/1 client key")
    verifier = Verifier(
        key_id=mac(root, b"tls-tunnel/1 key id")[:_KEY_ID_SIZE],
        stored_key=hashlib.sha256(client_key).digest(),
        server_key=mac(root, b"tls-tunnel/1 server key"),
    )
    return ClientKeys(client_key, verifier)
