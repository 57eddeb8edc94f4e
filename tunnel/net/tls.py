"""TLS over a transport, many records a pass.

`trio.SSLStream` hands out one record (16 KiB at most) for each checkpoint and allocates each
time. Here one read from the kernel is decrypted record after record into a buffer that is used
again, and a batch is encrypted and sent without a task switch where the kernel takes it.
"""

from __future__ import annotations

import contextlib
import operator
import ssl
from collections.abc import Sequence

import trio

from tunnel import limits
from tunnel.net.conflict import ConflictDetector
from tunnel.net.records import Buffer, RecordEnds, pieces
from tunnel.net.scratch import scratch
from tunnel.net.transport import Transport


class TlsStream(trio.abc.Stream):
    """A TLS connection. One task may read and one may send at a time.

    The end of TCP without TLS's own goodbye is `BrokenResourceError`, not an end: what came may be
    less than what was sent.

    Cancelling a read loses nothing. Of a cancelled `send_all` everything was encrypted and waits:
    it goes out before what is sent next.
    """

    def __init__(
        self,
        transport: Transport,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        self.transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        #: Where records end in what comes.
        self._ends = RecordEnds()
        #: OpenSSL may have a whole record already.
        self._more = True
        #: Ciphertext that the kernel has not taken.
        self._unsent: list[Buffer] = []
        self._scratch = scratch()
        self._ended = False
        self._closed = False
        self._send_conflict = ConflictDetector("another task sends on this TLS stream")
        self._receive_conflict = ConflictDetector("another task reads this TLS stream")
        #: When the last byte came, by Trio's clock; a record need not be complete.
        self.heard_at = trio.current_time()

    # --- Handshake ---------------------------------------------------------------------------

    async def do_handshake(self) -> None:
        """Shake hands; put a deadline around it.

        Raises:
          BrokenResourceError: the peer went away, or TLS could not agree; the cause says why. An
            alert, if there is one, has been sent.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_outgoing()
                cipher = await self._receive()
                if not cipher:
                    raise trio.BrokenResourceError("closed during the TLS handshake") from None
                self._ends.find(cipher)
                self._incoming.write(cipher)
            except ssl.SSLError as error:
                await self._send_outgoing()
                raise trio.BrokenResourceError(f"TLS: {_reason(error)}") from error
            else:
                await self._send_outgoing()
                return

    @property
    def server_hostname(self) -> str | None:
        """The server's name or address, as a client dialled it."""
        return self._ssl.server_hostname

    @property
    def alpn(self) -> str | None:
        """The application protocol that both ends agreed on."""
        return self._ssl.selected_alpn_protocol()

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER."""
        return self._ssl.getpeercert(binary_form=True)

    # --- Reading -----------------------------------------------------------------------------

    async def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes and decrypt as many as there are into `buffer`; 0 at the peer's end.

        Nothing is awaited between the decryption and the return, so that `buffer` may be shared.
        For the same reason this is not always a checkpoint: it yields only if it has to wait.
        """
        with self._receive_conflict:
            self._check_open()
            size = 0
            if self._more:
                await trio.lowlevel.checkpoint_if_cancelled()
                size = self._decrypt(buffer, 0)
            while not size and not self._ended:
                cipher = await self._receive()
                if not cipher:
                    raise trio.BrokenResourceError("closed without a goodbye")
                size = self._decrypt_all(cipher, buffer)
            return size

    def _decrypt_all(self, cipher: memoryview, buffer: memoryview) -> int:
        """Decrypt the next bytes into `buffer`; how many that gave."""
        start = size = 0
        for end in self._ends.find(cipher):
            self._incoming.write(cipher[start:end])
            size = self._decrypt(buffer, size)
            start = end
        if start < len(cipher):
            self._incoming.write(cipher[start:])  # not a whole record: nothing to ask for yet
        return size

    def _decrypt(self, buffer: memoryview, size: int) -> int:
        """Decrypt behind the `size` bytes that are in `buffer`; how many there are then."""
        incoming, tls = self._incoming, self._ssl
        try:
            self._more = True
            while size < len(buffer):
                count = int(tls.read(len(buffer) - size, buffer[size:]))
                if not count:
                    self._ended = True
                    break
                size += count
                # Asked for more than it has, it would say so by an exception.
                if not (incoming.pending or tls.pending()):
                    self._more = False
                    break
        except ssl.SSLWantReadError:
            self._more = False
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            if not size:
                raise trio.BrokenResourceError(f"TLS: {_reason(error)}") from error
            # It is said again when it is asked for more: what came before is delivered first.
        return size

    async def _receive(self) -> memoryview:
        """Wait for ciphertext, in the shared buffer; nothing at the end."""
        cipher = self._scratch.cipher
        size = await self.transport.receive_into(cipher)
        self.heard_at = trio.current_time()
        return cipher[:size]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        plain = scratch().plain[: max_bytes or 65536]
        size = await self.read_into(plain)
        return bytes(plain[:size])

    # --- Sending -----------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """True while something encrypted waits for the kernel; `drain` sends it."""
        return bool(self._unsent or self._outgoing.pending)

    def send_nowait(self, *parts: Buffer) -> bool:
        """Encrypt and send these, without waiting. False if some of it waits now: call `drain`.

        Raises:
          BrokenResourceError: the connection cannot send any more.
        """
        self._check_open()
        if self.blocked:
            self._encrypt(parts)
            return False
        cipher = self._encrypt(parts)
        cipher.append(self._outgoing.read())
        self._unsent = cipher
        self._sent(self.transport.send_nowait(cipher))
        return not self._unsent

    def _encrypt(self, parts: Sequence[Buffer]) -> list[Buffer]:
        """What comes out, but for the last slice, which stays with OpenSSL; all, if some did."""
        cipher: list[Buffer] = []
        take = not self.blocked
        try:
            for piece in pieces(parts):
                self._ssl.write(piece)
                if take and self._outgoing.pending >= limits.TLS_SLICE:
                    cipher.append(self._outgoing.read())
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(f"TLS: {_reason(error)}") from error
        return cipher

    def _sent(self, size: int) -> None:
        """The kernel has taken so many bytes of what waits."""
        for number, piece in enumerate(self._unsent):
            if size < len(piece):
                self._unsent[: number + 1] = [memoryview(piece)[size:]]
                return
            size -= len(piece)
        self._unsent = []

    async def drain(self) -> None:
        """Send what waits."""
        with self._send_conflict:
            await self._drain()

    async def _drain(self) -> None:
        while self.blocked:
            if not self._unsent:
                self._unsent = [self._outgoing.read()]
            # Kept until it was sent: whoever comes after a cancellation goes on here.
            self._sent(await self.transport.send_some(self._unsent))

    async def _send_outgoing(self) -> None:
        with self._send_conflict:
            await self._drain()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        with self._send_conflict:
            self._check_open()
            await trio.lowlevel.checkpoint()
            if not self.blocked:
                self._unsent = self._encrypt((data,))
            else:
                self._encrypt((data,))
            await self._drain()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        with self._send_conflict:
            self._check_open()
            await self.transport.wait_writable()

    # --- Ending ------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")

    async def refuse(self) -> None:
        """End after a refusal so that it arrives: goodbye, FIN, then read and drop what comes.

        (A close with unread bytes in the kernel is a reset, and a reset overtakes what was sent.)
        """
        with trio.move_on_after(limits.REFUSAL_DRAIN_TIMEOUT):
            try:
                self._say_goodbye()
                await self._send_outgoing()
                await self.transport.send_eof()
                left = limits.REFUSAL_DRAIN_BYTES
                while left > 0 and (size := await self.transport.receive_into(scratch().cipher)):
                    left -= size
            except trio.BrokenResourceError:
                pass  # it went before it heard us; nothing is left to do for it
        await self.aclose()

    def _say_goodbye(self) -> None:
        # (It wants the peer's goodbye too, which is not waited for.)
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()

    def abort(self) -> None:
        """Close at once: a reset, without a goodbye. May be called twice."""
        self._closed = True
        self.transport.abort()

    async def aclose(self) -> None:
        """Say goodbye and close; see `trio.abc.AsyncResource`.

        The goodbye is dropped if the peer does not take it in `limits.GOODBYE` seconds, or if
        another task is stuck sending. If cancelled, it closes all the same, without the goodbye.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        self._say_goodbye()
        try:
            with trio.move_on_after(limits.GOODBYE) as patience:
                await self._send_outgoing()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # the peer is gone, or another task is stuck with what goes before the goodbye
        finally:
            if self.blocked or patience.cancelled_caught:
                self.transport.abort()
            with trio.CancelScope(shield=True):
                await self.transport.aclose()
        await trio.lowlevel.checkpoint()


def _reason(error: ssl.SSLError) -> str:
    reason = (error.reason or error.strerror or str(error)).lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{reason}: {error.verify_message}"  # such as "certificate has expired"
    return reason
