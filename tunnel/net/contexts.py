"""TLS contexts: 1.3, one application protocol, no session tickets."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import attrs

from tunnel.errors import StoreError

ALPN = "tls-tunnel/1"


@attrs.frozen
class ServerTls:
    """A context and the hash of the certificate that it shows: one value, swapped whole."""

    context: ssl.SSLContext
    leaf_hash: bytes


def server_tls(cert_path: Path, key_path: Path) -> ServerTls:
    """Load a certificate and its key.

    The hash is learned by shaking hands with ourselves: that is the certificate that peers will
    see, and it proves that key and certificate belong together.

    Raises:
      StoreError: a file cannot be read, or the two do not match.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(cert_path, key_path)
        leaf = _shown_certificate(context)
    except (OSError, ssl.SSLError) as error:
        raise StoreError(
            f"cannot use certificate {cert_path} with key {key_path}: {error}; "
            "check that both are PEM files and belong together"
        ) from error
    return ServerTls(context, hashlib.sha256(leaf).digest())


def client_context(*, ca_path: Path | None, verify: bool, check_hostname: bool) -> ssl.SSLContext:
    """A context that trusts the file's certificates, or the system's, or anybody.

    Args:
      ca_path: PEM file with the certificates to trust, instead of the system's.
      verify: False to trust any certificate (a pin is checked by the caller, then).
      check_hostname: whether the certificate must be for the name that was dialled.

    Raises:
      StoreError: the file cannot be read.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname and verify
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if not verify:
        return context
    try:
        if ca_path is not None:
            context.load_verify_locations(ca_path)
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        raise StoreError(f"cannot read certificates from {ca_path}: {error}") from error
    return context


def _context(protocol: int) -> ssl.SSLContext:
    # Not create_default_context: that one honours SSLKEYLOGFILE.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    return context


def _shown_certificate(context: ssl.SSLContext) -> bytes:
    """What a client of `context` sees as the server's certificate, in DER."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(up, down, server_side=True)
    observer = client_context(ca_path=None, verify=False, check_hostname=False)
    client = observer.wrap_bio(down, up)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    leaf = client.getpeercert(binary_form=True)
    if leaf is None:
        raise ssl.SSLError("no certificate in the file")
    return leaf
