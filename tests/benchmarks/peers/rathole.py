"""rathole over TLS: no multiplexing, a connection to the server for each visitor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509 import load_pem_x509_certificate

from tests.benchmarks.peers.certificate import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    SECRET,
    write_certificate,
)
from tests.benchmarks.peers.peer import Command, Peer, Place, output_of

IDENTITY = "server.p12"


class Rathole(Peer):
    """One server and one client, a service for each port. The rest is as rathole has it."""

    name = "rathole"
    programs = ("rathole",)
    install = "cargo install rathole"

    def version(self) -> str:
        return output_of("rathole", "-V").split()[-1]  # `--version` says how it was built, too

    def prepare(self, place: Place) -> None:
        write_certificate(place.directory, place.server_host)
        _write_identity(place.directory)
        services = (_published(place.server_host, port) for port, _ in place.published)
        (place.directory / "server.toml").write_text("\n".join([_server(place), *services]))
        services = (_local(*ports) for ports in place.published)
        (place.directory / "client.toml").write_text("\n".join([_client(place), *services]))

    def servers(self, place: Place) -> Sequence[Command]:
        return [Command(("rathole", "--server", str(place.directory / "server.toml")))]

    def clients(self, place: Place) -> Sequence[Command]:
        return [Command(("rathole", "--client", str(place.directory / "client.toml")))]


def _write_identity(directory: Path) -> None:
    """Certificate and key in one PKCS #12 file, the only form that rathole reads."""
    certificate = load_pem_x509_certificate((directory / CERTIFICATE).read_bytes())
    key = load_pem_private_key((directory / KEY).read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    encryption = BestAvailableEncryption(SECRET.encode())
    identity = serialize_key_and_certificates(None, key, certificate, None, encryption)
    (directory / IDENTITY).write_bytes(identity)


def _server(place: Place) -> str:
    return f"""\
[server]
bind_addr = "{place.server_host}:{place.server_port}"
default_token = "{SECRET}"

[server.transport]
type = "tls"

[server.transport.tls]
pkcs12 = "{place.directory / IDENTITY}"
pkcs12_password = "{SECRET}"
"""


def _client(place: Place) -> str:
    return f"""\
[client]
remote_addr = "{place.server_host}:{place.dialled_port}"
default_token = "{SECRET}"

[client.transport]
type = "tls"

[client.transport.tls]
trusted_root = "{place.directory / AUTHORITY}"
"""


def _published(host: str, published: int) -> str:
    return f'[server.services.port-{published}]\nbind_addr = "{host}:{published}"\n'


def _local(published: int, local: int) -> str:
    return f'[client.services.port-{published}]\nlocal_addr = "127.0.0.1:{local}"\n'
