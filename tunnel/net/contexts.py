"""TLS contexts: 1.3, one application protocol, no session tickets."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import attrs

from tunnel.errors import StoreError

ALPN = "tls-tunnel/1"


@attrs.frozen
class ServerTls:
    """A context and the hash of the certificate that it shows: one value, swapped whole."""

    context: ssl.SSLContext
    #: The certificate itself, in DER.
    leaf: bytes = attrs.field(repr=False)
    leaf_hash: bytes = attrs.field(init=False, repr=False)

    @leaf_hash.default
    def _hash(self) -> bytes:
        return hashlib.sha256(self.leaf).digest()


def server_tls(cert_path: Path, key_path: Path, client_ca: Path | None = None) -> ServerTls:
    """Load a certificate and its key, and the authorities of clients' certificates if there are.

    The certificate is learned by shaking hands with ourselves: that is the one that peers will
    see, and it proves that key and certificate belong together.

    Raises:
      StoreError: a file cannot be read, or the two do not match.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    with _naming(cert_path, key_path):
        # Without a password OpenSSL would ask for one at the terminal, and all tasks would wait.
        context.load_cert_chain(cert_path, key_path, password="")
        leaf = _shown_certificate(context)
    if client_ca is not None:
        # Only behind the handshake with ourselves, and only these: no public authority may say who
        # our clients are.
        _trust(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return ServerTls(context, leaf)


def client_context(
    *,
    ca_path: Path | None,
    verify: bool,
    check_hostname: bool,
    own: tuple[Path, Path] | None = None,
) -> ssl.SSLContext:
    """A context that trusts the file's certificates, or the system's, or any.

    Args:
      ca_path: PEM file with the certificates to trust, instead of the system's.
      verify: False to trust any certificate (a pin is checked by the caller, then).
      check_hostname: whether the certificate must be for the name that was dialled.
      own: PEM files with the client's own certificate and its key, for a server that asks for one.

    Raises:
      StoreError: a file cannot be read.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname and verify
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if own is not None:
        with _naming(*own):
            context.load_cert_chain(*own, password="")  # as above
    if verify and ca_path is not None:
        _trust(context, ca_path)
    elif verify:
        context.load_default_certs()
    return context


@contextlib.contextmanager
def _naming(cert_path: Path, key_path: Path) -> Iterator[None]:
    """Whatever is wrong with a certificate, or with its key, says which files these are."""
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        raise StoreError(
            f"cannot use certificate {cert_path} with key {key_path}: {error}; "
            "check that both are PEM files, not encrypted, and belong together"
        ) from error


def _trust(context: ssl.SSLContext, ca_path: Path) -> None:
    try:
        context.load_verify_locations(ca_path)
    except (OSError, ssl.SSLError) as error:
        raise StoreError(f"cannot read certificates from {ca_path}: {error}") from error


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
