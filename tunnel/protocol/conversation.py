"""What both sides of the handshake share: frames, their order, and what the proofs cover."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

import attrs

from tunnel import limits
from tunnel.errors import LocalProtocolError, Refused, RemoteProtocolError
from tunnel.model import RefusalCode
from tunnel.protocol import messages
from tunnel.protocol.framing import FrameDecoder
from tunnel.protocol.messages import (
    BINDINGS,
    VERSION,
    Authenticate,
    Authenticated,
    Challenge,
    Configure,
    Configured,
    Message,
    Proof,
    RefusedMessage,
    Unknown,
)

_TRANSCRIPT_LABEL: Final = b"tls-tunnel/1\0"


class Waiting(enum.Enum):
    """`next_event` needs more bytes."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = Waiting.NEED_DATA


@attrs.frozen
class Binding:
    """What ties the proofs to the connection.

    Args:
      kind: "certificate", or "none" if both files say that a proxy in between ends TLS.
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
    """T of the protocol: the frames so far, exactly as sent, and the binding."""

    def __init__(self, binding: Binding) -> None:
        self._hash = hashlib.sha256(_TRANSCRIPT_LABEL + binding.to_bytes())

    def add(self, frame: bytes) -> None:
        """The next frame, its length included."""
        self._hash.update(frame)

    def digest(self) -> bytes:
        """T of what was added so far: 32 bytes."""
        return self._hash.copy().digest()


class State(enum.Enum):
    """Where the conversation is; named for what this end waits for, or has to do."""

    START = "has to begin"
    AWAIT_CHALLENGE = "waits for challenge"
    ANSWER_CHALLENGE = "has to authenticate"
    AWAIT_AUTHENTICATE = "waits for authenticate"
    AWAIT_CLIENT_PROOF = "waits for the client's proof"
    DECIDE = "has to accept or refuse"
    AWAIT_AUTHENTICATED = "waits for authenticated"
    AWAIT_SERVER_PROOF = "waits for the server's proof"
    CONFIGURE = "has to configure"
    AWAIT_CONFIGURE = "waits for configure"
    ANSWER_CONFIGURE = "has to answer configure"
    AWAIT_CONFIGURED = "waits for configured"
    DONE = "is done"
    FAILED = "has failed"


#: What each side waits for, message by message; anything else then is an error.
SERVER: Final = {
    State.AWAIT_AUTHENTICATE: (Authenticate, State.AWAIT_CLIENT_PROOF),
    State.AWAIT_CLIENT_PROOF: (Proof, State.DECIDE),
    State.AWAIT_CONFIGURE: (Configure, State.ANSWER_CONFIGURE),
}
CLIENT: Final = {
    State.AWAIT_CHALLENGE: (Challenge, State.ANSWER_CHALLENGE),
    State.AWAIT_AUTHENTICATED: (Authenticated, State.AWAIT_SERVER_PROOF),
    State.AWAIT_SERVER_PROOF: (Proof, State.CONFIGURE),
    State.AWAIT_CONFIGURED: (Configured, State.DONE),
}
Table: TypeAlias = dict[State, tuple[type, State]]
_M = TypeVar("_M")


class Conversation:
    """What both sides share: frames, order, transcript."""

    def __init__(self, table: Table, state: State, binding: Binding) -> None:
        self._table = table
        self._state = state
        self._decoder = FrameDecoder(limits.MAX_FRAME_BEFORE_AUTHENTICATION)
        self._transcript = Transcript(binding)
        self._binding = binding
        self._eof = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes that the wire brought; empty ones mean its end. After a failure: drop them."""
        if not data:
            self._eof = True
        elif self._state is not State.FAILED:
            self._decoder.feed(data)

    @property
    def trailing_data(self) -> bytes:
        """What came behind the last message: the first bytes of Yamux."""
        return self._decoder.trailing

    def _next_message(self) -> tuple[Message, bytes] | None:
        """The next message if this end waits for one, and the state moved along the table."""
        if self._state not in self._table:
            raise LocalProtocolError(f"this end {self._state.value}")
        frame = self._decoder.next_frame()
        if frame is None:
            if self._eof:
                middle = " in the middle of a message," if self._decoder.trailing else ""
                raise RemoteProtocolError(f"closed{middle} while this end {self._state.value}")
            return None
        message = messages.decode(frame)
        if isinstance(message, RefusedMessage):
            self._refused(message)
        if isinstance(message, Unknown) and message.version != VERSION:
            raise Refused(
                RefusalCode.VERSION,
                f"one end speaks version {message.version} of the protocol, "
                f"the other {VERSION}: update the older one",
            )
        expected, following = self._table[self._state]
        if not isinstance(message, expected):
            raise RemoteProtocolError(f"{message.kind} came while this end {self._state.value}")
        self._state = following
        return message, frame  # type: ignore[return-value]  # the table has no Unknown in it

    def _refused(self, message: RefusedMessage) -> None:
        raise RemoteProtocolError(f"only a server refuses, and this was a client: {message.code}")

    def _parse(self, read: Callable[[], _M]) -> _M:
        if self._state is State.FAILED:
            raise RemoteProtocolError("this conversation has failed before")
        try:
            return read()
        except (RemoteProtocolError, Refused):
            self._fail()
            raise

    def _fail(self) -> None:
        self._state = State.FAILED
        self._decoder.clear()

    def _move(self, expected: State, following: State) -> None:
        if self._state is not expected:
            raise LocalProtocolError(f"this end {self._state.value}")
        self._state = following

    def _no_read_ahead(self) -> None:
        """Nothing may come before it was asked for."""
        if self._decoder.trailing:
            raise RemoteProtocolError("the client sent more than it was asked for")
