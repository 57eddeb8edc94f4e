"""What the adapters write and start: read back as the tunnel's own program would read it."""

from __future__ import annotations

import base64
import hashlib
import ssl
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from tests.benchmarks.peers import peer as peer_module
from tests.benchmarks.peers.bore import Bore
from tests.benchmarks.peers.certificate import SECRET, write_certificate
from tests.benchmarks.peers.chisel import Chisel
from tests.benchmarks.peers.frp import Frp
from tests.benchmarks.peers.peer import Peer, Place
from tests.benchmarks.peers.rathole import Rathole
from tests.benchmarks.peers.rust_tls_tunnel import RustTlsTunnel

HOST = "127.33.44.55"
PUBLISHED = ((7001, 8001), (7002, 8002), (7003, 8003))
OVER_TLS = [Frp(), Rathole(), RustTlsTunnel()]
ALL = [*OVER_TLS, Chisel(), Bore()]


def names(peer: Peer) -> str:
    return peer.name


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, HOST, 7000, PUBLISHED)


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one directory where programs are looked for, still empty."""
    monkeypatch.setattr(peer_module, "SYSTEM_PROGRAMS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def through(place: Place) -> Place:
    return Place(place.directory, HOST, 7000, PUBLISHED, through=9000)


def read(place: Place, name: str) -> dict[str, Any]:
    return tomllib.loads((place.directory / name).read_text())


def handshake(server: ssl.SSLContext, host: str, authority: Path) -> None:
    """A whole TLS handshake in memory; raises `ssl.SSLError` as the client would."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=authority)
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def serving(certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class TestCertificate:
    def test_the_authority_vouches_for_the_address(self, tmp_path: Path) -> None:
        write_certificate(tmp_path, HOST)
        server = serving(tmp_path / "server.pem", tmp_path / "server.key")
        handshake(server, HOST, tmp_path / "ca.pem")

    def test_and_for_no_other(self, tmp_path: Path) -> None:
        write_certificate(tmp_path, HOST)
        server = serving(tmp_path / "server.pem", tmp_path / "server.key")
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            handshake(server, "127.33.44.56", tmp_path / "ca.pem")

    def test_two_places_have_different_ones(self, tmp_path: Path) -> None:
        places = tmp_path / "a", tmp_path / "b"
        for directory in places:
            directory.mkdir()
            write_certificate(directory, HOST)
        server = serving(places[0] / "server.pem", places[0] / "server.key")
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, HOST, places[1] / "ca.pem")


class TestFrp:
    def test_server(self, place: Place) -> None:
        Frp().prepare(place)
        config = read(place, "frps.toml")
        assert (config["bindAddr"], config["bindPort"]) == (HOST, 7000)
        tls = config["transport"]["tls"]
        assert tls["force"] is True
        handshake(serving(tls["certFile"], tls["keyFile"]), HOST, place.directory / "ca.pem")

    def test_client_checks_the_certificate(self, place: Place) -> None:
        Frp().prepare(place)
        config = read(place, "frpc.toml")
        assert config["transport"]["tls"] == {"trustedCaFile": str(place.directory / "ca.pem")}

    def test_the_token_is_the_same(self, place: Place) -> None:
        Frp().prepare(place)
        tokens = [read(place, name)["auth"]["token"] for name in ("frps.toml", "frpc.toml")]
        assert tokens == [SECRET, SECRET]

    def test_proxies(self, place: Place) -> None:
        Frp().prepare(place)
        proxies = read(place, "frpc.toml")["proxies"]
        assert {proxy["type"] for proxy in proxies} == {"tcp"}
        assert {proxy["localIP"] for proxy in proxies} == {"127.0.0.1"}
        assert tuple((p["remotePort"], p["localPort"]) for p in proxies) == PUBLISHED

    def test_proxies_of_one_service_have_different_names(self, tmp_path: Path) -> None:
        place = Place(tmp_path, HOST, 7000, tuple((port, 80) for port in range(7001, 7101)))
        Frp().prepare(place)
        assert len({proxy["name"] for proxy in read(place, "frpc.toml")["proxies"]}) == 100

    def test_the_client_dials_the_forwarder(self, place: Place) -> None:
        Frp().prepare(through(place))
        assert read(place, "frps.toml")["bindPort"] == 7000
        assert read(place, "frpc.toml")["serverPort"] == 9000


class TestRathole:
    def test_server(self, place: Place) -> None:
        Rathole().prepare(place)
        server = read(place, "server.toml")["server"]
        assert server["bind_addr"] == f"{HOST}:7000"
        assert server["default_token"] == SECRET
        assert server["transport"]["type"] == "tls"

    def test_the_identity_is_the_certificate(self, place: Place) -> None:
        Rathole().prepare(place)
        tls = read(place, "server.toml")["server"]["transport"]["tls"]
        identity = load_pkcs12(Path(tls["pkcs12"]).read_bytes(), tls["pkcs12_password"].encode())
        assert identity.cert is not None
        assert identity.key is not None
        written = (place.directory / "server.pem").read_bytes()
        assert identity.cert.certificate.public_bytes(Encoding.PEM) == written
        assert identity.key.public_key() == identity.cert.certificate.public_key()

    def test_client(self, place: Place) -> None:
        Rathole().prepare(place)
        client = read(place, "client.toml")["client"]
        assert client["remote_addr"] == f"{HOST}:7000"
        assert client["default_token"] == SECRET
        authority = str(place.directory / "ca.pem")
        assert client["transport"] == {"type": "tls", "tls": {"trusted_root": authority}}

    def test_both_sides_have_the_same_services(self, place: Place) -> None:
        Rathole().prepare(place)
        server = read(place, "server.toml")["server"]["services"]
        client = read(place, "client.toml")["client"]["services"]
        assert list(server) == list(client)
        found = [(server[name]["bind_addr"], client[name]["local_addr"]) for name in server]
        assert found == [(f"{HOST}:{port}", f"127.0.0.1:{local}") for port, local in PUBLISHED]

    def test_the_client_dials_the_forwarder(self, place: Place) -> None:
        Rathole().prepare(through(place))
        assert read(place, "server.toml")["server"]["bind_addr"] == f"{HOST}:7000"
        assert read(place, "client.toml")["client"]["remote_addr"] == f"{HOST}:9000"


class TestRustTlsTunnel:
    def test_server(self, place: Place) -> None:
        RustTlsTunnel().prepare(place)
        server = read(place, "server.toml")["server"]
        assert (server["bind_addr"], server["bind_port"]) == (HOST, 7000)
        keys = serving(server["cert_path"], server["key_path"])
        handshake(keys, HOST, place.directory / "ca.pem")

    def test_client_checks_the_certificate(self, place: Place) -> None:
        RustTlsTunnel().prepare(place)
        client = read(place, "client.toml")["client"]
        assert (client["server_addr"], client["server_port"]) == (HOST, 7000)
        assert client["ca_cert_path"] == str(place.directory / "ca.pem")
        assert "skip_verify" not in client

    def test_the_key_is_the_same_and_long_enough(self, place: Place) -> None:
        RustTlsTunnel().prepare(place)
        key = read(place, "server.toml")["server"]["auth_key"]
        assert key == read(place, "client.toml")["client"]["auth_key"]
        assert len(key) >= 16

    def test_proxies(self, place: Place) -> None:
        RustTlsTunnel().prepare(place)
        proxies = read(place, "client.toml")["proxies"]
        assert tuple((p["publish_port"], p["local_port"]) for p in proxies) == PUBLISHED
        assert {proxy["publish_addr"] for proxy in proxies} == {HOST}
        assert len({proxy["name"] for proxy in proxies}) == len(PUBLISHED)

    def test_the_client_dials_the_forwarder(self, place: Place) -> None:
        RustTlsTunnel().prepare(through(place))
        assert read(place, "client.toml")["client"]["server_port"] == 9000

    def test_the_client_keeps_no_idle_connections_to_services(self, place: Place) -> None:
        [client] = RustTlsTunnel().clients(place)
        assert client.environ == {"TLS_TUNNEL_POOL_MIN_IDLE": "0"}

    def test_our_own_command_is_not_taken_for_it(self) -> None:
        assert "tls-tunnel" not in RustTlsTunnel.programs


class TestChisel:
    def test_server(self, place: Place) -> None:
        Chisel().prepare(place)
        [server] = Chisel().servers(place)
        key = str(place.directory / "host.key")
        listening = ("--host", HOST, "--port", "7000")
        assert server.argv == ("chisel", "server", *listening, "--reverse", "--keyfile", key)

    def test_client(self, place: Place) -> None:
        Chisel().prepare(place)
        [client] = Chisel().clients(place)
        remotes = tuple(f"R:{HOST}:{port}:127.0.0.1:{local}" for port, local in PUBLISHED)
        assert client.argv[4:] == (f"http://{HOST}:7000", *remotes)

    def test_the_client_knows_the_key(self, place: Place) -> None:
        Chisel().prepare(place)
        [client] = Chisel().clients(place)
        key = load_ssh_private_key((place.directory / "host.key").read_bytes(), None)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        wire = base64.b64decode(public.partition(b" ")[2])
        assert client.argv[2] == "--fingerprint"
        assert base64.b64decode(client.argv[3]) == hashlib.sha256(wire).digest()

    def test_the_password_is_the_same_and_in_no_argument(self, place: Place) -> None:
        Chisel().prepare(place)
        [server], [client] = Chisel().servers(place), Chisel().clients(place)
        assert server.environ == client.environ == {"AUTH": f"bench:{SECRET}"}
        assert not any(SECRET in text for text in (*server.argv, *client.argv))

    def test_the_client_dials_the_forwarder(self, place: Place) -> None:
        Chisel().prepare(place)
        [server], [client] = Chisel().servers(through(place)), Chisel().clients(through(place))
        assert "7000" in server.argv
        assert f"http://{HOST}:9000" in client.argv


class TestBore:
    def test_a_client_for_each_port(self, place: Place) -> None:
        between = ("--local-host", "127.0.0.1", "--to", HOST, "--port")
        clients = Bore().clients(place)
        assert [client.argv for client in clients] == [
            ("bore", "local", str(local), *between, str(port)) for port, local in PUBLISHED
        ]

    def test_server(self, place: Place) -> None:
        [server] = Bore().servers(place)
        assert server.argv == ("bore", "server", "--bind-addr", HOST)

    def test_the_secret_is_the_same_and_in_no_argument(self, place: Place) -> None:
        commands = [*Bore().servers(place), *Bore().clients(place)]
        assert {command.environ["BORE_SECRET"] for command in commands} == {SECRET}
        assert not any(SECRET in text for command in commands for text in command.argv)

    def test_what_it_cannot_do_is_said(self) -> None:
        assert "no TLS" in Bore.name
        assert Bore.server_port == 7835
        assert not Bore.reconnects


class TestAll:
    @pytest.mark.parametrize("peer", OVER_TLS, ids=names)
    def test_commands_name_files_that_were_written(self, peer: Peer, place: Place) -> None:
        peer.prepare(place)
        for command in (*peer.servers(place), *peer.clients(place)):
            assert Path(command.argv[-1]).is_file()
            assert Path(command.argv[-1]).parent == place.directory

    @pytest.mark.parametrize("peer", ALL, ids=names)
    def test_only_programs_that_were_looked_for_are_started(self, peer: Peer, place: Place) -> None:
        peer.prepare(place)
        commands = [*peer.servers(place), *peer.clients(place)]
        assert {command.argv[0] for command in commands} == set(peer.programs)

    @pytest.mark.usefixtures("only_path")
    @pytest.mark.parametrize("peer", ALL, ids=names)
    def test_missing_names_programs_and_remedy(self, peer: Peer) -> None:
        missing = peer.missing()
        assert missing is not None
        assert all(program in missing for program in peer.programs)
        assert peer.install in missing

    @pytest.mark.parametrize(
        ("peer", "option", "printed", "version"),
        [
            (Frp(), "--version", "0.70.1", "0.70.1"),
            (Chisel(), "--version", "1.11.5", "1.11.5"),
            (Bore(), "--version", "bore-cli 0.6.0", "0.6.0"),
            (Rathole(), "-V", "rathole 0.5.0", "0.5.0"),
            (RustTlsTunnel(), "--version", "tls-tunnel 1.5.1", "1.5.1"),
        ],
        ids=["frp", "chisel", "bore", "rathole", "Rust tls-tunnel"],
    )
    def test_version(
        self, peer: Peer, option: str, printed: str, version: str, only_path: Path
    ) -> None:
        for name in peer.programs:
            program = only_path / name
            program.write_text(f"#!/bin/sh\n[ \"$*\" = {option} ] && echo '{printed}'\n")
            program.chmod(0o755)
        assert peer.missing() is None
        assert peer.version() == version
