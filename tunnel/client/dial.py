"""Reaching the server: name, TCP, TLS, and whether it is the right one."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Awaitable, Callable

import attrs
import trio

from tunnel import remedies
from tunnel.errors import LinkLost, Untrusted
from tunnel.model import Address
from tunnel.net.contexts import ALPN
from tunnel.net.dial import connect_tcp
from tunnel.net.tls import TlsStream
from tunnel.net.transport import SocketTransport, Transport

#: TLS alerts (RFC 8446 section 6.2) about a certificate, as OpenSSL's names for them end.
_REFUSED = (
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
)

#: What OpenSSL calls an answer that is no TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
#: X509_V_ERR_…, of OpenSSL's x509_vfy.h; every other means that nobody vouches for the certificate.
_UNVERIFIED = {
    9: remedies.NOT_YET_VALID,
    10: remedies.EXPIRED,
    62: remedies.WRONG_NAME,
    64: remedies.WRONG_NAME,
}


async def reach(server: Address) -> Transport:
    """A connection of TCP to a server.

    Raises:
      OSError: it does not answer.
    """
    return SocketTransport(await connect_tcp(server.host, server.port))


@attrs.frozen
class Dialler:
    """Connects to the first server of a list that answers.

    Args:
      servers: tried in turn; names are looked up anew each time.
      context: what it trusts.
      pins: public keys to trust, as `pin_of` writes them; none for whatever the context says.
      pin_of: gives the pin of a certificate in DER.
      timeout: seconds for all of it, shared by the servers.
      reach: what TLS runs over.
    """

    servers: tuple[Address, ...]
    context: ssl.SSLContext
    pins: frozenset[str]
    pin_of: Callable[[bytes], str]
    timeout: float
    reach: Callable[[Address], Awaitable[Transport]] = reach

    async def __call__(self) -> TlsStream:
        """A TLS connection to a server that is trusted; nothing was said on it yet.

        Raises:
          LinkLost: none could be reached, or none is to be trusted; says why.
        """
        failure = LinkLost("no server to connect to")
        for server in self.servers:
            try:
                with trio.fail_after(self.timeout / len(self.servers)):
                    return await self._dial(server)
            except (OSError, trio.BrokenResourceError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
                text = _remedy(error).text(server=server, reason=reason, alpn=ALPN)
                failure = Untrusted(text) if _is_unverified(error) else LinkLost(text)
            except trio.TooSlowError:
                failure = LinkLost(remedies.NO_ANSWER.text(server=server))
            except LinkLost as error:
                failure = error
        raise failure

    async def _dial(self, server: Address) -> TlsStream:
        transport = await self.reach(server)
        tls = TlsStream(transport, self.context, server_side=False, server_hostname=server.host)
        try:
            await tls.do_handshake()
            self._check(tls, server)
        except BaseException:
            tls.abort()
            raise
        return tls

    def _check(self, tls: TlsStream, server: Address) -> None:
        if tls.alpn != ALPN:
            raise LinkLost(remedies.OTHER_PROTOCOL.text(server=server, alpn=ALPN))
        if self.pins:
            shown = self.pin_of(tls.peer_certificate() or b"")
            if shown not in self.pins:
                expected = ", ".join(sorted(self.pins))
                raise Untrusted(
                    remedies.WRONG_PIN.text(server=server, shown=shown, expected=expected)
                )


def _is_unverified(error: Exception) -> bool:
    return isinstance(error.__cause__, ssl.SSLCertVerificationError)


def _remedy(error: OSError | trio.BrokenResourceError) -> remedies.Remedy:
    """What to do about a server that was not reached."""
    if isinstance(error, socket.gaierror):
        return remedies.NAME_UNKNOWN
    if isinstance(error, ConnectionRefusedError):
        return remedies.NOTHING_LISTENS
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _UNVERIFIED.get(cause.verify_code, remedies.NOT_TRUSTED)
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return remedies.NOT_TLS
    if isinstance(cause, ssl.SSLError) and (cause.reason or "").endswith("APPLICATION_PROTOCOL"):
        return remedies.OTHER_PROTOCOL
    return remedies.CANNOT_REACH


def leaf_hash(tls: TlsStream) -> bytes:
    """What binds the proofs to the certificate that this end sees."""
    return hashlib.sha256(tls.peer_certificate() or b"").digest()


def certificate_remedy(error: trio.BrokenResourceError) -> str | None:
    """What to do if this end of a connection means that the server wants another certificate."""
    reason = getattr(error.__cause__, "reason", None) or ""
    if reason.endswith("ALERT_CERTIFICATE_REQUIRED"):
        return (
            "the server asks for a client certificate: set cert_path and key_path in [client] "
            "to one that an authority in the server's client_ca_path issued"
        )
    if reason.endswith(_REFUSED):
        why = reason.partition("ALERT_")[2].lower().replace("_", " ")
        return (
            f"the server does not accept this client's certificate ({why}): set cert_path and "
            "key_path to one that an authority in the server's client_ca_path issued"
        )
    return None
