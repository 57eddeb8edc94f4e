"""A guest's stream until the owner of what it visits has proved that it knows the secret."""

from __future__ import annotations

import hmac
import socket

import trio

from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.net.transport import reset_on_close
from tunnel.protocol.proofs import VISIT_MAC_SIZE


class ProvingEndpoint(Endpoint):
    """Reads the owner's proof, and hands guest and stream to the carrier if it is right.

    Until then nothing is read of the guest and nothing is sent to it, so whoever is visited without
    knowing the secret gets no byte and gives none.

    Args:
      link: whose stream it is.
      stream_id: the stream; the visitor's own proof is on its way.
      guest: its connection, owned from here.
      visit: who it is; told also of an end before the beginning.
      expected: the owner's proof.
    """

    __slots__ = ("_expected", "_got", "_guest", "_link", "_scope", "_stream_id", "_visit")

    def __init__(
        self,
        link: Link,
        stream_id: int,
        guest: socket.socket,
        visit: CarriedConnection,
        expected: bytes,
    ) -> None:
        self._link = link
        self._stream_id = stream_id
        self._guest = guest
        self._visit = visit
        self._expected = expected
        self._got = b""
        #: Of the task that waits; cancelled when there is nothing to wait for.
        self._scope = trio.CancelScope()

    def begin(self) -> None:
        """Wait for the proof from now on. Flush the link after it."""
        reset_on_close(self._guest)
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
                self._link.carrier.adopt(self._guest, self._stream_id, self._visit, parked=rest)
            else:
                self._refuse(ResetCode.UNPROVED)
        return len(proof)

    def finish(self) -> None:
        """See `Endpoint`: the end came in the place of a proof."""
        self._refuse(ResetCode.UNPROVED)

    def resume(self) -> None:
        """See `Endpoint`; nothing of the guest's was sent yet."""

    def reset(self, code: int) -> None:
        """See `Endpoint`: a reset stays a reset."""
        self._close(ResetCode.of(code))

    def _refuse(self, code: ResetCode) -> None:
        self._link.reset(self._stream_id, code)
        self._close(code)

    def _close(self, code: ResetCode) -> None:
        self._scope.cancel()
        self._guest.close()
        if self._visit.on_end is not None:
            self._visit.on_end(code)
