"""The messages of the handshake and the control stream, as values; tables in `docs/protocol.md`.

`decode` checks everything about a message alone; whether it may come now is the handshake's
business. Keys that are not known are ignored, so that later versions can add some.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias, get_args

import attrs

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import RefusalCode
from tunnel.protocol import fields
from tunnel.protocol.framing import Json, decode_json, encode_frame, frame_body
from tunnel.protocol.publishing import (
    Bound,
    Configure,
    Configured,
    ProxyRequest,
    Reconfigure,
    Reconfigured,
    Rejected,
    Target,
    VisitorRequest,
)

__all__ = [
    "RECONFIGURE",
    "VERSION",
    "VISITORS",
    "Authenticate",
    "Authenticated",
    "Bound",
    "Capabilities",
    "Challenge",
    "Configure",
    "Configured",
    "Message",
    "Proof",
    "ProxyRequest",
    "Reconfigure",
    "Reconfigured",
    "RefusedMessage",
    "Rejected",
    "Stopping",
    "Target",
    "Unknown",
    "VisitorRequest",
    "decode",
    "encode",
]

VERSION: Final = 1
NONCE_SIZE: Final = 32
ID_SIZE: Final = 16
KEY_ID_SIZE: Final = 16
MAC_SIZE: Final = 32
#: The feature of an end that takes part in `Reconfigure`.
RECONFIGURE: Final = "reconfigure"
#: The feature of an end that takes part in visits.
VISITORS: Final = "visitors"
_U32: Final = 2**32 - 1


@attrs.frozen
class Capabilities:
    """What an end can take, announced to the other.

    Args:
      max_frame: largest DATA payload, bytes.
      max_streams: streams that may be open at once.
      backlog: streams that may be unacknowledged at once.
      window: reserved. It is sent, checked on receipt and not used: every stream begins with
        Yamux's 256 KiB, and windows grow by measurement.
      features: names of further abilities, such as `RECONFIGURE`.
    """

    max_frame: int = limits.OWN_FRAME
    max_streams: int = limits.OWN_STREAMS
    backlog: int = limits.OWN_BACKLOG
    window: int = limits.INITIAL_WINDOW
    features: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """As the key `capabilities` has it."""
        return attrs.asdict(self) | {"features": list(self.features)}

    @classmethod
    def from_json(cls, message: Json) -> Capabilities:
        """From the key `capabilities`; what is missing is as for any Yamux."""
        value = message.get("capabilities", {})
        if type(value) is not dict:
            raise RemoteProtocolError("capabilities is not an object")
        return cls(
            fields.integer(value, "max_frame", 1024, _U32, limits.FOREIGN_FRAME),
            fields.integer(value, "max_streams", 1, _U32, limits.FOREIGN_OUTBOUND_STREAMS),
            fields.integer(value, "backlog", 1, _U32, limits.FOREIGN_BACKLOG),
            fields.integer(value, "window", limits.INITIAL_WINDOW, _U32, limits.INITIAL_WINDOW),
            fields.texts(value, "features", 64, 64),
        )


@attrs.frozen
class Challenge:
    """1, server to client, as soon as TLS is up.

    Args:
      version: of the protocol.
      bindings: the kinds of `proofs.Binding` that the server accepts.
      nonce: 32 random bytes.
    """

    kind: ClassVar = "challenge"
    version: int
    bindings: tuple[str, ...]
    nonce: bytes

    def to_json(self) -> Json:
        """The message's keys."""
        return {"version": self.version, "bindings": self.bindings, "nonce": self.nonce.hex()}

    @classmethod
    def from_json(cls, message: Json) -> Challenge:
        """Read the message's keys."""
        return cls(
            fields.integer(message, "version", VERSION, VERSION),
            fields.texts(message, "bindings", 8, 32),
            fields.token(message, "nonce", NONCE_SIZE),
        )


@attrs.frozen
class Authenticate:
    """2a, client to server: who the client says it is.

    Args:
      version: of the protocol.
      binding: the kind that its proof is made with.
      nonce: 32 random bytes.
      key_id: names the key, 16 bytes.
      name: how it wants to be called.
      client_id, instance_id: of its configuration and its process, 32 hexadecimal digits.
      attempt: counts the connections of that process from 1.
      capabilities: what it can take.
    """

    kind: ClassVar = "authenticate"
    version: int
    binding: str
    nonce: bytes
    key_id: bytes
    name: str
    client_id: str
    instance_id: str
    attempt: int
    capabilities: Capabilities

    def to_json(self) -> Json:
        """The message's keys."""
        return {
            "version": self.version,
            "binding": self.binding,
            "nonce": self.nonce.hex(),
            "key_id": self.key_id.hex(),
            "name": self.name,
            "client_id": self.client_id,
            "instance_id": self.instance_id,
            "attempt": self.attempt,
            "capabilities": self.capabilities.to_json(),
        }

    @classmethod
    def from_json(cls, message: Json) -> Authenticate:
        """Read the message's keys."""
        return cls(
            fields.integer(message, "version", VERSION, VERSION),
            fields.text(message, "binding", 32),
            fields.token(message, "nonce", NONCE_SIZE),
            fields.token(message, "key_id", KEY_ID_SIZE),
            fields.name(message, "name"),
            fields.token(message, "client_id", ID_SIZE).hex(),
            fields.token(message, "instance_id", ID_SIZE).hex(),
            fields.integer(message, "attempt", 1, 2**53),
            Capabilities.from_json(message),
        )


@attrs.frozen
class Proof:
    """2b and 3b: shows that the sender has the key; fits this connection only."""

    kind: ClassVar = "proof"
    mac: bytes = attrs.field(repr=False)

    def to_json(self) -> Json:
        """The message's keys."""
        return {"mac": self.mac.hex()}

    @classmethod
    def from_json(cls, message: Json) -> Proof:
        """Read the message's keys."""
        return cls(fields.token(message, "mac", MAC_SIZE))


@attrs.frozen
class Authenticated:
    """3a, server to client: it is accepted.

    Args:
      session: names the session in both logs, 32 hexadecimal digits.
      name: what the server calls the client.
      server_version: for log lines.
      capabilities: what the server can take.
    """

    kind: ClassVar = "authenticated"
    session: str
    name: str
    server_version: str
    capabilities: Capabilities

    def to_json(self) -> Json:
        """The message's keys."""
        return {
            "session": self.session,
            "name": self.name,
            "server_version": self.server_version,
            "capabilities": self.capabilities.to_json(),
        }

    @classmethod
    def from_json(cls, message: Json) -> Authenticated:
        """Read the message's keys."""
        return cls(
            fields.token(message, "session", ID_SIZE).hex(),
            fields.name(message, "name"),
            fields.harmless(fields.text(message, "server_version", 64)),
            Capabilities.from_json(message),
        )


@attrs.frozen
class RefusedMessage:
    """Server to client, instead of 3a or 5; nothing follows.

    Args:
      code: the reason, for programs.
      text: the reason, for people.
      retry_after: seconds that the client is asked to wait.
    """

    kind: ClassVar = "refused"
    code: RefusalCode
    text: str
    retry_after: float | None = None

    def to_json(self) -> Json:
        """The message's keys."""
        hint = {} if self.retry_after is None else {"retry_after": self.retry_after}
        return {"code": self.code, "text": fields.harmless(self.text)} | hint

    @classmethod
    def from_json(cls, message: Json) -> RefusedMessage:
        """Read the message's keys; the text, which a stranger may have written, made harmless."""
        return cls(
            fields.code(message, RefusalCode, RefusalCode.INTERNAL),
            fields.harmless(fields.text(message, "text", limits.MAX_FRAME_BEFORE_AUTHENTICATION)),
            fields.seconds(message, "retry_after"),
        )


@attrs.frozen
class Stopping:
    """A notice: the server stops, and takes no new visitors for this client."""

    kind: ClassVar = "stopping"

    def to_json(self) -> Json:
        """The message has no keys."""
        return {}

    @classmethod
    def from_json(cls, _message: Json) -> Stopping:
        """Nothing to read."""
        return cls()


@attrs.frozen
class Unknown:
    """A notice of a later version; or the first message of one, of which only that was read."""

    kind: str
    version: int = VERSION


Message: TypeAlias = (
    Challenge
    | Authenticate
    | Proof
    | Authenticated
    | RefusedMessage
    | Configure
    | Configured
    | Bound
    | Rejected
    | Reconfigure
    | Reconfigured
    | Stopping
    | Target
)

_READERS: Final[dict[str, Callable[[Json], Message]]] = {
    message.kind: message.from_json for message in get_args(Message)
}

#: What each end says first, with the version of all that follows.
_VERSIONED: Final = {Challenge.kind, Authenticate.kind}


def encode(message: Message) -> bytes:
    """The message as a frame."""
    return encode_frame({"type": message.kind} | message.to_json())


def decode(frame: bytes) -> Message | Unknown:
    """The message in a frame.

    Raises:
      RemoteProtocolError: anything is wrong with it; says which key.
    """
    value = decode_json(frame_body(frame))
    kind = fields.harmless(fields.text(value, "type", 64))
    reader = _READERS.get(kind)
    if reader is None:
        return Unknown(kind)
    try:
        # Before anything else is read: a later version may have changed it all.
        version = _version(kind, value)
        return reader(value) if version == VERSION else Unknown(kind, version)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"{kind}: {error}") from None


def _version(kind: str, value: Json) -> int:
    """The version that a first message says; what follows it is of the same one as it."""
    return fields.integer(value, "version", 1, _U32) if kind in _VERSIONED else VERSION
