"""The secret of a proxy: the visiting client proves that it knows it, and then so does the owner.

The owner, the client that published the proxy, has a `Guard` look at the proof that comes with each
visitor's stream. The visiting client has a `ProvingEndpoint` wait for the owner's proof before a
byte of the visitor is read. The server passes both on and takes no part.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Callable

import attrs
import trio

from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.net.transport import reset_on_close
from tunnel.protocol.preamble import Preamble
from tunnel.protocol.proofs import VISIT_MAC_SIZE, VISIT_NONCE_SIZE, VisitTranscript

# --- The owner --------------------------------------------------------------------------------


def _nothing() -> None:
    """What a renewed nonce changes while there is no session."""


@attrs.define(eq=False)
class Guard:
    """What a proxy with a secret asks of visitors through other clients. Every proof counts once.

    Whoever passes a proof on, as the server does, could do so twice. So what was shown is kept, as
    long as the nonce that it was made for is good. That is replaced after `limits.VISIT_PROOFS`,
    and no longer good after twice as many, or when its successor is replaced; so this is bounded.

    Args:
      key: from the secret by `visit_key`; None for a proxy without.
    """

    _key: bytes | None = attrs.field(default=None, repr=False)
    #: What the server calls this client.
    _owner: str = attrs.field(default="", init=False)
    #: Called when there is another nonce in a session.
    on_renewal: Callable[[], None] = attrs.field(default=_nothing, init=False)
    #: By nonce, the newest last, the visitors' nonces of the proofs that were shown.
    _shown: dict[bytes, set[bytes]] = attrs.field(factory=dict, init=False, repr=False)

    def begin(self, owner: str) -> None:
        """A session begins; no earlier proof counts.

        Args:
          owner: what the server calls this client in it.
        """
        self._owner = owner
        self._shown.clear()
        if self._key is not None:
            self._shown[secrets.token_bytes(VISIT_NONCE_SIZE)] = set()

    def end(self) -> None:
        """The session is over; no proof counts."""
        self._shown.clear()
        self.on_renewal = _nothing

    def update(self, key: bytes | None) -> None:
        """Ask for another secret from now on, or for none; proofs of the former count no more.

        Args:
          key: as for the constructor.
        """
        if self._key != key:
            self._key = key
            self.begin(self._owner)

    @property
    def asks(self) -> bool:
        """True if there is a secret."""
        return self._key is not None

    @property
    def nonce(self) -> bytes:
        """What proofs are to be made for now; empty if none is asked for."""
        return next(reversed(self._shown), b"")

    def answer(self, proxy: str, port: int, visitor: Preamble) -> bytes | str:
        """The answer to a proof, to be sent before anything else; or why there is none.

        Args:
          proxy, port: what is visited, as configured.
          visitor: what its client sent first, with the proof.
        """
        if not visitor.proof:
            return "its client showed no visitor_secret"
        nonce, proof = visitor.proof[:VISIT_NONCE_SIZE], visitor.proof[VISIT_NONCE_SIZE:]
        key = self._key or b""
        for own, shown in self._shown.items():
            about = VisitTranscript(self._owner, proxy, port, visitor.through or "", own, nonce)
            if hmac.compare_digest(proof, about.visit_proof(key)):
                if nonce in shown or len(shown) >= 2 * limits.VISIT_PROOFS:
                    return "its proof is used up: it was shown before, or is too old"
                shown.add(nonce)
                self._renew_if_used_up()
                return about.visited_proof(key)
        return "its client showed another visitor_secret, or a proof of a session that is over"

    def _renew_if_used_up(self) -> None:
        former, *newer = self._shown
        if len(self._shown[newer[-1] if newer else former]) < limits.VISIT_PROOFS:
            return
        if newer:
            del self._shown[former]
        self._shown[secrets.token_bytes(VISIT_NONCE_SIZE)] = set()
        self.on_renewal()


# --- The visiting client ----------------------------------------------------------------------


class ProvingEndpoint(Endpoint):
    """Reads the owner's proof, and hands visitor and stream to the carrier if it is right.

    Until then nothing is read from the visitor and nothing is sent to it, so an owner that does not
    know the secret gets no byte and gives none.

    Args:
      link: whose stream it is.
      stream_id: the stream; this client's own proof is on its way.
      visitor: its connection, owned from here.
      carried: for counting and logging; told also of an end before the beginning.
      expected: the owner's proof.
    """

    __slots__ = ("_carried", "_expected", "_got", "_link", "_scope", "_stream_id", "_visitor")

    def __init__(
        self,
        link: Link,
        stream_id: int,
        visitor: socket.socket,
        carried: CarriedConnection,
        expected: bytes,
    ) -> None:
        self._link = link
        self._stream_id = stream_id
        self._visitor = visitor
        self._carried = carried
        self._expected = expected
        self._got = b""
        #: Of the task that waits; cancelled when there is nothing to wait for.
        self._scope = trio.CancelScope()

    def begin(self) -> None:
        """Wait for the proof from now on. Flush the link after it."""
        reset_on_close(self._visitor)
        self._link.attach(self._stream_id, self)
        if not self._link.spawn(self._wait):
            self._refuse(ResetCode.LINK_LOST)

    async def _wait(self) -> None:
        with self._scope:
            await trio.sleep(limits.VISIT_PROOF_TIMEOUT)
            self._refuse(ResetCode.UNPROVED)
            self._link.flush()

    def deliver(self, data: memoryview) -> int:
        """See `Endpoint`. The proof is consumed here, the rest by the carrier."""
        proof = data[: VISIT_MAC_SIZE - len(self._got)]
        self._got += proof
        if len(self._got) == VISIT_MAC_SIZE:
            if hmac.compare_digest(self._got, self._expected):
                self._scope.cancel()
                rest = bytes(data[len(proof) :])
                self._link.carrier.adopt(self._visitor, self._stream_id, self._carried, parked=rest)
            else:
                self._refuse(ResetCode.UNPROVED)
        return len(proof)

    def finish(self) -> None:
        """See `Endpoint`: the end came in the place of a proof."""
        self._refuse(ResetCode.UNPROVED)

    def resume(self) -> None:
        """See `Endpoint`; nothing of the visitor's was sent yet."""

    def reset(self, code: int) -> None:
        """See `Endpoint`: a reset stays a reset."""
        self._close(ResetCode.of(code))

    def _refuse(self, code: ResetCode) -> None:
        self._link.reset(self._stream_id, code)
        self._close(code)

    def _close(self, code: ResetCode) -> None:
        self._scope.cancel()
        self._visitor.close()
        if self._carried.on_end is not None:
            self._carried.on_end(code)
