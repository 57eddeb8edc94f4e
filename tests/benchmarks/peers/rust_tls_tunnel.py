"""The tls-tunnel written in Rust: one connection over rustls, multiplexed by the yamux crate."""

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

#: Not its own name, which is also the name of this project's command.
PROGRAM = "tls-tunnel-rust"


class RustTlsTunnel(Peer):
    """Version 1.5, with its own configuration. It is not the crate of that name.

    It carries at most 512 connections at a time, and publishes a local port only once. It would
    keep idle connections to every service, though those of TCP proxies are never used; they would
    block a service that has one visitor at a time, such as iperf3, so it is told to keep none.
    """

    name = "Rust tls-tunnel"
    programs = (PROGRAM,)
    install = f"a release of github.com/varphone/tls-tunnel, put on PATH as {PROGRAM}"
    ports = 1

    def version(self) -> str:
        return output_of(PROGRAM, "--version").split()[-1]

    def prepare(self, place: Place) -> None:
        write_certificate(place.directory, place.server_host)
        (place.directory / "server.toml").write_text(_server(place))
        proxies = (_proxy(place.server_host, *ports) for ports in place.published)
        (place.directory / "client.toml").write_text("\n".join([_client(place), *proxies]))

    def servers(self, place: Place) -> Sequence[Command]:
        return [Command((PROGRAM, "server", "-c", str(place.directory / "server.toml")))]

    def clients(self, place: Place) -> Sequence[Command]:
        argv = (PROGRAM, "client", "-c", str(place.directory / "client.toml"))
        return [Command(argv, {"TLS_TUNNEL_POOL_MIN_IDLE": "0"})]


def _server(place: Place) -> str:
    return f"""\
[server]
bind_addr = "{place.server_host}"
bind_port = {place.server_port}
auth_key = "{SECRET}"
cert_path = "{place.directory / CERTIFICATE}"
key_path = "{place.directory / KEY}"
"""


def _client(place: Place) -> str:
    return f"""\
[client]
server_addr = "{place.server_host}"
server_port = {place.dialled_port}
auth_key = "{SECRET}"
ca_cert_path = "{place.directory / AUTHORITY}"
"""


def _proxy(host: str, published: int, local: int) -> str:
    return f"""\
[[proxies]]
name = "port-{published}"
publish_addr = "{host}"
publish_port = {published}
local_port = {local}
"""
