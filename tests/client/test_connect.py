"""Reaching the server, and telling whether it is the right one."""

import hashlib
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.rig import make_certificate
from tunnel.client import dial as dial_module
from tunnel.client.dial import Dialler, leaf_hash
from tunnel.errors import LinkLost
from tunnel.model import Address
from tunnel.net.contexts import client_context, server_tls
from tunnel.net.tls import TlsStream
from tunnel.net.transport import SocketTransport, prepare


def pin_of(certificate: bytes) -> str:
    return "sha256:" + hashlib.sha256(certificate).hexdigest()[:8]


class Servers:
    """TLS servers on loopback that shake hands and say nothing."""

    def __init__(self, nursery, certificate):
        self.nursery = nursery
        self.tls = server_tls(certificate / "cert.pem", certificate / "key.pem")
        self.context = client_context(
            ca_path=certificate / "ca.pem", verify=True, check_hostname=True
        )
        self.reached = []

    async def start(self, context=None, host="127.0.0.1"):
        listener = trio.socket.socket()
        await listener.bind((host, 0))
        listener.listen()
        address = Address(host, listener.getsockname()[1])
        self.nursery.start_soon(self._accept, listener, address, context or self.tls.context)
        return address

    async def _accept(self, listener, address, context):
        with listener:
            while True:
                connection, _ = await listener.accept()
                self.reached.append(address)
                self.nursery.start_soon(self._shake_hands, connection, context)

    async def _shake_hands(self, connection, context):
        sock = socket.socket(fileno=connection.detach())
        prepare(sock)
        stream = TlsStream(SocketTransport(sock), context, server_side=True)
        try:
            await stream.do_handshake()
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass
        finally:
            stream.abort()

    def dialler(self, *servers, context=None, pins=(), timeout=10.0):
        return Dialler(servers, context or self.context, frozenset(pins), pin_of, timeout)


@asynccontextmanager
async def servers(certificate):
    async with trio.open_nursery() as nursery:
        yield Servers(nursery, certificate)
        nursery.cancel_scope.cancel()


@pytest.fixture
def nobody():
    """An address where nobody listens, and nobody else will."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield Address(*sock.getsockname())


@pytest.fixture
def silent():
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield Address(*sock.getsockname())


async def test_a_server(certificate):
    async with servers(certificate) as all_servers:
        tls = await all_servers.dialler(await all_servers.start())()
        assert tls.alpn == "tls-tunnel/1"
        assert leaf_hash(tls) == all_servers.tls.leaf_hash
        tls.abort()


async def test_by_name(certificate):
    async with servers(certificate) as all_servers:
        address = await all_servers.start()
        tls = await all_servers.dialler(Address("localhost", address.port))()
        tls.abort()


async def test_a_list_is_tried_in_turn(certificate, nobody):
    async with servers(certificate) as all_servers:
        first, second = await all_servers.start(), await all_servers.start()
        for _ in range(3):
            tls = await all_servers.dialler(nobody, first, second)()
            tls.abort()
        assert all_servers.reached == [first] * 3


async def test_silent_servers_share_the_time(certificate, autojump_clock):
    class Patient(Dialler):
        async def _dial(self, server):
            tried.append((server.port, trio.current_time() - began))
            await trio.sleep_forever()

    tried = []
    began = trio.current_time()
    context = client_context(ca_path=None, verify=True, check_hostname=True)
    all_of_them = tuple(Address("192.0.2.1", port) for port in (1, 2, 3))
    with pytest.raises(LinkLost, match="no answer in time"):
        await Patient(all_of_them, context, frozenset(), pin_of, 9.0)()
    assert tried == [(1, 0), (2, pytest.approx(3)), (3, pytest.approx(6))]
    assert trio.current_time() - began == pytest.approx(9)


async def test_nobody_there(certificate, nobody):
    async with servers(certificate) as all_servers:
        with pytest.raises(LinkLost, match=f"^cannot reach {nobody}: .*Connection refused.*port"):
            await all_servers.dialler(nobody)()


async def test_the_last_of_a_list_is_the_one_in_the_message(certificate, nobody, silent):
    async with servers(certificate) as all_servers:
        with pytest.raises(LinkLost, match=f"^cannot reach {silent}: no answer in time; "):
            await all_servers.dialler(nobody, silent, timeout=0.1)()


async def test_no_servers_at_all(certificate):
    async with servers(certificate) as all_servers:
        with pytest.raises(LinkLost, match="no server to connect to"):
            await all_servers.dialler()()


@pytest.mark.parametrize("name", ["a..b", "x" * 70])
async def test_a_name_that_can_be_none(certificate, name):
    async with servers(certificate) as all_servers:
        with pytest.raises(LinkLost, match=r"cannot reach .*cannot be a name"):
            await all_servers.dialler(Address(name, 80))()


async def test_a_certificate_that_nobody_vouches_for(certificate, tmp_path):
    make_certificate(tmp_path)
    stranger = server_tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with servers(certificate) as all_servers:
        address = await all_servers.start(stranger.context)
        with pytest.raises(LinkLost, match=f"cannot reach {address}: .*TLS: certificate verify"):
            await all_servers.dialler(address)()


async def test_a_certificate_for_another_name(certificate):
    async with servers(certificate) as all_servers:
        address = await all_servers.start(host="127.0.0.2")
        with pytest.raises(LinkLost, match=r"another name \(TLS: certificate verify failed"):
            await all_servers.dialler(address)()


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [(-9, -2, "has expired .*clock"), (2, 9, "not valid yet .*clocks of both")],
)
async def test_a_certificate_of_another_time(certificate, tmp_path, begins, ends, words):
    now = datetime.now(UTC)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert(
        "127.0.0.1",
        not_before=now + timedelta(days=begins),
        not_after=now + timedelta(days=ends),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    trusting = client_context(ca_path=tmp_path / "ca.pem", verify=True, check_hostname=True)
    async with servers(certificate) as all_servers:
        address = await all_servers.start(context)
        with pytest.raises(LinkLost, match=words):
            await all_servers.dialler(address, context=trusting)()


async def test_a_pin_replaces_authority_and_name(certificate):
    anybody = client_context(ca_path=None, verify=False, check_hostname=False)
    async with servers(certificate) as all_servers:
        address = await all_servers.start(host="127.0.0.2")
        seen = await all_servers.dialler(address, context=anybody)()
        pin = pin_of(seen.peer_certificate())
        seen.abort()
        tls = await all_servers.dialler(address, context=anybody, pins={"sha256:no", pin})()
        tls.abort()
        with pytest.raises(LinkLost) as caught:
            await all_servers.dialler(address, context=anybody, pins={"sha256:b", "sha256:a"})()
    assert str(caught.value).startswith(
        f"{address} is not the server that the pin names: it has {pin}, "
        "the configuration says sha256:a, sha256:b; "
    )


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_a_server_of_another_kind(certificate, protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    if protocols:
        context.set_alpn_protocols(protocols)
    async with servers(certificate) as all_servers:
        address = await all_servers.start(context)
        with pytest.raises(LinkLost, match="is not a tls-tunnel server"):
            await all_servers.dialler(address)()


async def test_a_server_without_tls(certificate):
    async with servers(certificate) as all_servers:
        listeners = await all_servers.nursery.start(_serve_text)
        address = Address("127.0.0.1", listeners[0].socket.getsockname()[1])
        with pytest.raises(LinkLost, match=f"cannot reach {address}: it does not speak TLS"):
            await all_servers.dialler(address)()


async def _serve_text(*, task_status):
    async def handler(stream):
        await stream.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")

    await trio.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)


async def test_a_failed_or_cancelled_dial_leaves_no_socket(certificate, silent, monkeypatch):
    made = []

    async def remember(host, port, really=dial_module.connect_tcp):
        made.append(await really(host, port))
        return made[-1]

    monkeypatch.setattr(dial_module, "connect_tcp", remember)
    async with servers(certificate) as all_servers:
        dialler = all_servers.dialler(silent)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialler)
            while not made:
                await wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()
        address = await all_servers.start()
        with pytest.raises(LinkLost):
            await all_servers.dialler(address, pins={"sha256:another"})()
    assert [sock.fileno() for sock in made] == [-1, -1]
