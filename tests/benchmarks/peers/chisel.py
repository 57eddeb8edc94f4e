"""chisel: SSH over a WebSocket, ports published with `R:`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.benchmarks.peers.certificate import SECRET
from tests.benchmarks.peers.peer import Command, Peer, Place, output_of

KEY = "host.key"
FINGERPRINT = "fingerprint"


class Chisel(Peer):
    """One server and one client.

    SSH is what protects the link: the client knows the server by its key's fingerprint, and the
    server the client by a password. TLS around it would encrypt everything a second time, so the
    WebSocket goes over plain HTTP, as by default.
    """

    name = "chisel"
    programs = ("chisel",)
    install = "chisel of a release, github.com/jpillora/chisel/releases"

    def version(self) -> str:
        return output_of("chisel", "--version")

    def prepare(self, place: Place) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (place.directory / KEY).write_bytes(pem)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (place.directory / FINGERPRINT).write_text(_fingerprint(public))

    def servers(self, place: Place) -> Sequence[Command]:
        listening = ("--host", place.server_host, "--port", str(place.server_port))
        key = str(place.directory / KEY)
        return [_command("server", *listening, "--reverse", "--keyfile", key)]

    def clients(self, place: Place) -> Sequence[Command]:
        host = place.server_host
        fingerprint = (place.directory / FINGERPRINT).read_text()
        remotes = (f"R:{host}:{port}:127.0.0.1:{local}" for port, local in place.published)
        server = f"http://{host}:{place.dialled_port}"
        return [_command("client", "--fingerprint", fingerprint, server, *remotes)]


def _command(*argv: str) -> Command:
    return Command(("chisel", *argv), {"AUTH": f"bench:{SECRET}"})


def _fingerprint(public: bytes) -> str:
    """The SHA-256 of a public key (in the form of `authorized_keys`), as chisel writes it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return base64.b64encode(digest).decode()
