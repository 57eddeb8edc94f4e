"""frp: one connection over TLS, multiplexed by its own version of hashicorp's yamux."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.peers.certificate import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    SECRET,
    write_certificate,
)
from tests.benchmarks.peers.peer import Command, Peer, Place, output_of


class Frp(Peer):
    """frps and frpc. Where nothing is said of it here, frp's default holds.

    Its client takes any certificate unless it is given an authority, so it is given one. Only
    warnings are logged: a line for each connection would be measured with the rest.
    """

    name = "frp"
    programs = ("frps", "frpc")
    install = "frps and frpc of a release, github.com/fatedier/frp/releases"

    def version(self) -> str:
        return output_of("frps", "--version")

    def prepare(self, place: Place) -> None:
        write_certificate(place.directory, place.server_host)
        (place.directory / "frps.toml").write_text(_server(place))
        proxies = (_proxy(*ports) for ports in place.published)
        (place.directory / "frpc.toml").write_text("\n".join([_client(place), *proxies]))

    def servers(self, place: Place) -> Sequence[Command]:
        return [Command(("frps", "-c", str(place.directory / "frps.toml")))]

    def clients(self, place: Place) -> Sequence[Command]:
        return [Command(("frpc", "-c", str(place.directory / "frpc.toml")))]


def _server(place: Place) -> str:
    return f"""\
bindAddr = "{place.server_host}"
bindPort = {place.server_port}
auth.token = "{SECRET}"
log.level = "warn"
transport.tls.force = true
transport.tls.certFile = "{place.directory / CERTIFICATE}"
transport.tls.keyFile = "{place.directory / KEY}"
"""


def _client(place: Place) -> str:
    return f"""\
serverAddr = "{place.server_host}"
serverPort = {place.dialled_port}
auth.token = "{SECRET}"
log.level = "warn"
transport.tls.trustedCaFile = "{place.directory / AUTHORITY}"
"""


def _proxy(published: int, local: int) -> str:
    return f"""\
[[proxies]]
name = "port-{published}"
type = "tcp"
localIP = "127.0.0.1"
localPort = {local}
remotePort = {published}
"""
