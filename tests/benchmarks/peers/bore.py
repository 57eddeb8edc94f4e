"""bore: a client for each port and a connection for each visitor, and nothing is encrypted."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.peers.certificate import SECRET
from tests.benchmarks.peers.peer import Command, Peer, Place, output_of


class Bore(Peer):
    """It has no TLS: it shows what carrying alone costs. The secret only authenticates clients.

    Its client ends with its link, and dials port 7835 and no other. Only errors are logged: it
    would write lines for each connection, which would be measured with the rest.
    """

    name = "bore (no TLS)"
    programs = ("bore",)
    install = "cargo install bore-cli"
    reconnects = False
    ports = 1
    server_port = 7835

    def version(self) -> str:
        return output_of("bore", "--version").split()[-1]

    def prepare(self, place: Place) -> None:
        """There is nothing to write: all that it needs is in its arguments and environment."""

    def servers(self, place: Place) -> Sequence[Command]:
        return [_command("server", "--bind-addr", place.server_host)]

    def clients(self, place: Place) -> Sequence[Command]:
        return [_client(place.server_host, *ports) for ports in place.published]


def _client(host: str, published: int, local: int) -> Command:
    service = (str(local), "--local-host", "127.0.0.1")
    return _command("local", *service, "--to", host, "--port", str(published))


def _command(*argv: str) -> Command:
    return Command(("bore", *argv), {"BORE_SECRET": SECRET, "RUST_LOG": "error"})
