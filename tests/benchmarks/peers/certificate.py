"""Certificates for tunnels over TLS, made anew for each place: an authority, and the server's."""

from __future__ import annotations

from pathlib import Path

import trustme

#: Shared by the server and the client of a place, which live for seconds on this machine.
SECRET = "for-this-benchmark-only"

AUTHORITY = "ca.pem"
CERTIFICATE = "server.pem"
KEY = "server.key"


def write_certificate(directory: Path, host: str) -> None:
    """Write `AUTHORITY`, and `CERTIFICATE` and `KEY` (P-256) for this address, as PEM files."""
    authority = trustme.CA()
    server = authority.issue_cert(host)
    authority.cert_pem.write_to_path(directory / AUTHORITY)
    server.cert_chain_pems[0].write_to_path(directory / CERTIFICATE)
    server.private_key_pem.write_to_path(directory / KEY)
