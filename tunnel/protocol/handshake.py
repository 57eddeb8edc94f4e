"""The handshake: the five steps before Yamux, from each side, without I/O.

    1  server  challenge
    2  client  authenticate, proof
    3  server  authenticated, proof     (or refused, at any point)
    4  client  configure
    5  server  configured               (or refused)

Both proofs cover every frame before them exactly as it was sent, and the server's certificate: a
byte changed on the way, or another certificate in between, and they do not fit. The order of
messages is a table (`SERVER` and `CLIENT`); a message that it does not expect ends the connection.

The client proves itself first: a stranger learns nothing of a server but its certificate, and that
it speaks this protocol. The server lets no client send ahead: until it has proved itself, what
comes beyond the frame that was asked for is an error, which bounds what a stranger can make it
keep.

Either end is used the same way: `receive_data` what the wire brought, then `next_event` until it
says `NEED_DATA`, and send what the methods named after the steps return. Nothing here waits, and an
end that has failed stays failed.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

import attrs

from tunnel import limits
from tunnel.errors import LocalProtocolError, Refused, RemoteProtocolError
from tunnel.model import RefusalCode
from tunnel.protocol import messages
from tunnel.protocol.framing import FrameDecoder
from tunnel.protocol.keys import ClientKeys, Verifier
from tunnel.protocol.messages import (
    VERSION,
    Authenticate,
    Authenticated,
    Bound,
    Capabilities,
    Challenge,
    Configure,
    Configured,
    Message,
    Proof,
    ProxyRequest,
    RefusedMessage,
    Rejected,
    Unknown,
    VisitorRequest,
)
from tunnel.protocol.proofs import Binding as Binding
from tunnel.protocol.proofs import Transcript

# --- Events ----------------------------------------------------------------------------------


@attrs.frozen
class ClientProved:
    """Server: the client has proved that it knows the key that `key_id` names.

    Args:
      key_id: 16 bytes.
      name: how it wants to be called; nothing that the key proves.
      client_id: made once per configuration, 32 hexadecimal digits.
      instance_id: made once per process, 32 hexadecimal digits.
      attempt: counts the connections of that process from 1: of two, the greater is the later.
      capabilities: what it can take.
    """

    key_id: bytes
    name: str
    client_id: str
    instance_id: str
    attempt: int
    capabilities: Capabilities


@attrs.frozen
class ConfigureReceived:
    """Server: what the client wants published and visited; answer with `configured`."""

    proxies: tuple[ProxyRequest, ...]
    visitors: tuple[VisitorRequest, ...] = ()


@attrs.frozen
class ChallengeReceived:
    """Client: answer with `authenticate`."""


@attrs.frozen
class ServerProved:
    """Client: the server has proved that it knows the key too; go on with `configure`.

    Args:
      session: names the session in both logs, 32 hexadecimal digits.
      name: what the server calls this client.
      server_version: for log lines.
      capabilities: what the server can take.
    """

    session: str
    name: str
    server_version: str
    capabilities: Capabilities


@attrs.frozen
class ConfiguredReceived:
    """Client: what became of each proxy. Yamux begins."""

    answers: tuple[Bound | Rejected, ...]


ServerEvent: TypeAlias = ClientProved | ConfigureReceived
ClientEvent: TypeAlias = ChallengeReceived | ServerProved | ConfiguredReceived


# --- What both sides share -------------------------------------------------------------------


class Waiting(enum.Enum):
    """`next_event` needs more bytes."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = Waiting.NEED_DATA


class State(enum.Enum):
    """Where the handshake is; named for what this end waits for, or has to do."""

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


class _Handshake:
    """What both sides share: frames, their order, the transcript.

    Args:
      table: what this side waits for.
      state: where it begins.
      binding: what this end ties the proofs to.
    """

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
        """Bytes behind the last message; once the handshake is done, the first of Yamux."""
        return self._decoder.trailing

    def _next_message(self) -> tuple[Message, bytes] | None:
        """Take the next message and its frame, and move along the table; None for lack of bytes.

        Raises:
          LocalProtocolError: this end has something to send first.
          Refused: the other end refuses, or speaks another version of the protocol.
          RemoteProtocolError: a message that the table has not here, or the end of the bytes.
        """
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
            raise RemoteProtocolError("this handshake has failed before")
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
        """Raise RemoteProtocolError if anything came before it was asked for."""
        if self._decoder.trailing:
            raise RemoteProtocolError("the client sent more than it was asked for")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


class ServerHandshake(_Handshake):
    """The server's side.

    Args:
      lookup: gives what the server knows of a key id, or None.
      dummy: takes the place of an unknown key, so that it is refused as a wrong one is; made of
        random bytes that nobody knows.
      binding: what this end ties the proofs to.
      nonce: 32 random bytes.
      session_id: names the session in both logs; 32 hexadecimal digits.
      capabilities: what this end can take.
      server_version: told once the client has proved itself.
    """

    def __init__(
        self,
        *,
        lookup: Callable[[bytes], Verifier | None],
        dummy: Verifier,
        binding: Binding,
        nonce: bytes,
        session_id: str,
        capabilities: Capabilities,
        server_version: str,
    ) -> None:
        super().__init__(SERVER, State.START, binding)
        self.session_id = session_id
        self._lookup = lookup
        self._dummy = dummy
        self._nonce = nonce
        self._capabilities = capabilities
        self._server_version = server_version
        self._verifier = dummy
        self._hello: Authenticate | None = None

    def challenge(self) -> bytes:
        """1: the first frame to send."""
        self._move(State.START, State.AWAIT_AUTHENTICATE)
        frame = messages.encode(Challenge(VERSION, (self._binding.kind,), self._nonce))
        self._transcript.add(frame)
        return frame

    def next_event(self) -> ServerEvent | Waiting:
        """What the client has said, or `NEED_DATA`.

        Raises:
          Refused: the client is not accepted; send `refuse` with what the error says.
          RemoteProtocolError: the client broke the rules; the same, with code `protocol`.
        """
        return self._parse(self._next_event)

    def _next_event(self) -> ServerEvent | Waiting:
        while (step := self._next_message()) is not None:
            message, frame = step
            if isinstance(message, Authenticate):
                self._check_hello(message)
                self._transcript.add(frame)
            elif isinstance(message, Proof):
                return self._check_proof(message, frame)
            elif isinstance(message, Configure):
                self._no_read_ahead()
                return ConfigureReceived(message.proxies, message.visitors)
        return NEED_DATA

    def _check_hello(self, hello: Authenticate) -> None:
        if hello.binding != self._binding.kind:
            raise Refused(
                RefusalCode.BINDING,
                f"this server binds proofs to: {self._binding.kind}",
            )
        self._hello = hello

    def _check_proof(self, proof: Proof, frame: bytes) -> ClientProved:
        self._no_read_ahead()
        hello = self._hello
        assert hello is not None  # the table has authenticate before proof  # noqa: S101
        known = self._lookup(hello.key_id)
        # An unknown key takes the same steps as a wrong proof: time does not tell which keys exist.
        verifier = known or self._dummy
        mask = self._transcript.client_mask(verifier.stored_key)
        client_key = _xor(proof.mac, mask)
        fits = hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)
        if not fits or known is None:
            raise Refused(RefusalCode.AUTHENTICATION, "the server does not accept this auth_key")
        self._transcript.add(frame)
        self._verifier = verifier
        return ClientProved(
            hello.key_id,
            hello.name,
            hello.client_id,
            hello.instance_id,
            hello.attempt,
            hello.capabilities,
        )

    def accept(self, *, name: str) -> bytes:
        """3a and 3b: accept the client, under this name; it goes on with `configure`.

        Raises:
          LocalProtocolError: the client has not proved itself, or was answered.
        """
        self._move(State.DECIDE, State.AWAIT_CONFIGURE)
        frame = messages.encode(
            Authenticated(self.session_id, name, self._server_version, self._capabilities)
        )
        self._transcript.add(frame)
        proof = self._transcript.server_proof(self._verifier.server_key)
        self._decoder.limit = limits.MAX_FRAME_AFTER_AUTHENTICATION
        return frame + messages.encode(Proof(proof))

    def configured(self, answers: tuple[Bound | Rejected, ...]) -> bytes:
        """5: an answer for each proxy. Yamux begins behind it."""
        self._move(State.ANSWER_CONFIGURE, State.DONE)
        return messages.encode(Configured(answers))

    def refuse(self, code: str, text: str, retry_after: float | None = None) -> bytes:
        """Refuse the client, at any point before `configured`; close once it is sent.

        Args:
          code: a `RefusalCode`.
          text: the reason, for people; sent up to `limits.MAX_REFUSAL_TEXT` characters.
          retry_after: seconds that the client is asked to wait.

        Raises:
          LocalProtocolError: the handshake is done.
        """
        if self._state is State.DONE:
            raise LocalProtocolError("Yamux has begun; it is too late to refuse")
        self._fail()
        return messages.encode(RefusedMessage(RefusalCode(code), text, retry_after))


class ClientHandshake(_Handshake):
    """The client's side.

    Args:
      keys: derived from the authentication key.
      binding: what this end ties the proofs to, with the certificate that it sees.
      nonce: 32 random bytes.
      name: how the client wants to be called.
      client_id: made once per configuration, 32 hexadecimal digits.
      instance_id: made once per process, 32 hexadecimal digits.
      attempt: counts the connections of this process from 1.
      capabilities: what this end can take.
    """

    def __init__(
        self,
        *,
        keys: ClientKeys,
        binding: Binding,
        nonce: bytes,
        name: str,
        client_id: str,
        instance_id: str,
        attempt: int,
        capabilities: Capabilities,
    ) -> None:
        super().__init__(CLIENT, State.AWAIT_CHALLENGE, binding)
        self._keys = keys
        self._authenticated: Authenticated | None = None
        self._asked = 0
        self._hello = Authenticate(
            VERSION,
            binding.kind,
            nonce,
            keys.verifier.key_id,
            name,
            client_id,
            instance_id,
            attempt,
            capabilities,
        )

    def next_event(self) -> ClientEvent | Waiting:
        """What the server has said, or `NEED_DATA`.

        Raises:
          Refused: the server refuses. Before `ServerProved` it is not known to be the server.
          RemoteProtocolError: the server broke the rules, or does not know the key.
        """
        return self._parse(self._next_event)

    def _next_event(self) -> ClientEvent | Waiting:
        while (step := self._next_message()) is not None:
            message, frame = step
            if isinstance(message, Challenge):
                self._check_challenge(message)
                self._transcript.add(frame)
                return ChallengeReceived()
            if isinstance(message, Authenticated):
                self._authenticated = message
                self._transcript.add(frame)
            elif isinstance(message, Proof):
                return self._check_proof(message)
            elif isinstance(message, Configured):
                if len(message.answers) != self._asked:
                    raise RemoteProtocolError("the server did not answer for every proxy")
                return ConfiguredReceived(message.answers)
        return NEED_DATA

    def _refused(self, message: RefusedMessage) -> None:
        raise Refused(message.code, message.text, message.retry_after)

    def _check_challenge(self, challenge: Challenge) -> None:
        # Never down: both files decide, and a server that offers something else is refused.
        if self._binding.kind not in challenge.bindings:
            raise Refused(
                RefusalCode.BINDING,
                f"the server does not bind proofs to: {self._binding.kind}",
            )

    def _check_proof(self, proof: Proof) -> ServerProved:
        expected = self._transcript.server_proof(self._keys.verifier.server_key)
        if not hmac.compare_digest(proof.mac, expected):
            raise RemoteProtocolError("the server could not prove that it knows the auth_key")
        answer = self._authenticated
        assert answer is not None  # the table has authenticated before proof  # noqa: S101
        self._decoder.limit = limits.MAX_FRAME_AFTER_AUTHENTICATION
        return ServerProved(answer.session, answer.name, answer.server_version, answer.capabilities)

    def authenticate(self) -> bytes:
        """2a and 2b, to be sent in one write: a stranger gets no answer between them."""
        self._move(State.ANSWER_CHALLENGE, State.AWAIT_AUTHENTICATED)
        frame = messages.encode(self._hello)
        self._transcript.add(frame)
        mask = self._transcript.client_mask(self._keys.verifier.stored_key)
        proof = messages.encode(Proof(_xor(self._keys.client_key, mask)))
        self._transcript.add(proof)
        return frame + proof

    def configure(
        self, proxies: tuple[ProxyRequest, ...], visitors: tuple[VisitorRequest, ...] = ()
    ) -> bytes:
        """4: what to publish, and what to visit."""
        self._move(State.CONFIGURE, State.AWAIT_CONFIGURED)
        self._asked = len(proxies)
        return messages.encode(Configure(proxies, visitors))
