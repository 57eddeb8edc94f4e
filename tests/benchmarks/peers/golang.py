"""The minimum that compiled tunnels do: `minimal-go/`, built when it is first needed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.peers.peer import Command, Peer, Place, find_program, output_of
from tunnel.certificates import make_certificate

SOURCE = Path(__file__).parent / "minimal-go"
BINARY = SOURCE / "build" / "minimal"


class Go(Peer):
    """TLS 1.3 of Go's library, hashicorp/yamux with windows of 1 MiB, and io.Copy."""

    name = "Go (minimal)"
    programs = ("go",)
    install = "https://go.dev/dl/"

    def missing(self) -> str | None:
        return super().missing() or _build()

    def version(self) -> str:
        yamux = output_of("go", "version", "-m", str(BINARY)).partition("hashicorp/yamux\t")[2]
        return f"{output_of('go', 'env', 'GOVERSION')}, yamux {yamux.split()[0]}"

    def prepare(self, place: Place) -> None:
        _build()
        pair = make_certificate(place.server_host)
        (place.directory / "cert.pem").write_bytes(pair.cert)
        (place.directory / "key.pem").write_bytes(pair.key)

    def servers(self, place: Place) -> Sequence[Command]:
        address = f"{place.server_host}:{place.server_port}"
        files = (str(place.directory / "cert.pem"), str(place.directory / "key.pem"))
        ports = (str(published) for published, _ in place.published)
        return [Command((str(BINARY), "server", address, *files, *ports))]

    def clients(self, place: Place) -> Sequence[Command]:
        address = f"{place.server_host}:{place.dialled_port}"
        ports = (str(local) for _, local in place.published)
        return [
            Command((str(BINARY), "client", address, str(place.directory / "cert.pem"), *ports))
        ]


def _build() -> str | None:
    """Build it if it is not up to date; returns what went wrong."""
    go = find_program("go")
    assert go is not None
    done = subprocess.run(
        [go, "build", "-o", str(BINARY), "."],
        cwd=SOURCE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return f"go build: {done.stderr.strip()}" if done.returncode else None
