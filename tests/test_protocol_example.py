"""The example on the protocol's page is right, and a client made of that page alone works."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import ssl
import struct
from pathlib import Path

import trio

from tests.rig import make_certificate, world
from tunnel.model import Address, RejectionCode, ResetCode
from tunnel.protocol import messages
from tunnel.protocol.handshake import Binding, ClientHandshake, ServerHandshake
from tunnel.protocol.keys import derive, generate_key
from tunnel.protocol.messages import (
    Bound,
    Capabilities,
    ProxyRequest,
    Rejected,
    Stopping,
    Target,
)
from tunnel.protocol.preamble import (
    PreambleDecoder,
    build_forwarded_preamble,
    build_preamble,
    build_visit_preamble,
)
from tunnel.protocol.proofs import VisitTranscript, visit_key
from tunnel.yamux import CLOSED, NEED_DATA, Connection, Role

PAGE = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")


# --- The example -----------------------------------------------------------------------------


def example() -> dict[str, str]:
    """Everything that the page's example calculates, by name, as it stands there."""
    text = PAGE.partition("\n## An example, byte by byte\n")[2]
    blocks = "\n".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    found = {}
    for name, value in re.findall(r"^(\w[^=\n]*?) +=((?: .*)?\n(?:  .*\n)*)", blocks, re.MULTILINE):
        found[name] = "".join(value.split())
    return found


EXAMPLE = example()
AUTH_KEY = generate_key(bytes(range(32)))
CERTIFICATE = b"example certificate"
REQUESTS = (ProxyRequest("web", "*", 8080, 0, 3000), ProxyRequest("ssh", "*", 22, 0, 22))
ANSWERS = (
    Bound(0, (Address("0.0.0.0", 8080), Address("::", 8080))),
    Rejected(1, RejectionCode.NOT_ALLOWED, "the server allows ports 1024-65535, not 22"),
)


def test_the_handshake_of_the_example():
    keys = derive(AUTH_KEY)
    binding = Binding("certificate", hashlib.sha256(CERTIFICATE).digest())
    server = ServerHandshake(
        lookup={keys.verifier.key_id: keys.verifier}.get,
        dummy=keys.verifier,
        binding=binding,
        nonce=bytes(range(0xA0, 0xC0)),
        session_id="33" * 16,
        capabilities=Capabilities(max_frame=65_536),
        server_version="2.0.0",
    )
    client = ClientHandshake(
        keys=keys,
        binding=binding,
        nonce=bytes(range(0xC0, 0xE0)),
        name="office",
        client_id="11" * 16,
        instance_id="22" * 16,
        attempt=1,
        capabilities=Capabilities(max_frame=65_536),
    )

    def move(frames: bytes, receiver, *names: str) -> None:
        assert frames.hex() == "".join(EXAMPLE[name] for name in names)
        receiver.receive_data(frames)
        receiver.next_event()

    move(server.challenge(), client, "challenge")
    move(client.authenticate(), server, "authenticate", "client proof")
    move(server.accept(name="office"), client, "authenticated", "server proof")
    move(client.configure(REQUESTS), server, "configure")
    move(server.configured(ANSWERS), client, "configured")
    assert client.trailing_data == b""


def h(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_the_formulas_of_the_page_give_the_example():
    """Written from the page, without the code."""
    told = {name: bytes.fromhex(value) for name, value in EXAMPLE.items() if name in FROM_PAGE}
    assert EXAMPLE["auth_key"] == AUTH_KEY
    root = h(b"tls-tunnel/1 auth_key", AUTH_KEY.encode())
    client_key = h(root, b"tls-tunnel/1 client key")
    stored_key = sha256(client_key)
    server_key = h(root, b"tls-tunnel/1 server key")
    bound_to = b"\1" + sha256(CERTIFICATE)
    start = b"tls-tunnel/1\0" + bound_to
    one, two_a, two_b, three_a = (
        bytes.fromhex(EXAMPLE[name])
        for name in ("challenge", "authenticate", "client proof", "authenticated")
    )
    first, second = sha256(start, one, two_a), sha256(start, one, two_a, two_b, three_a)
    mask = h(stored_key, b"tls-tunnel/1 client proof\0" + first)
    assert told == {
        "key_id": h(root, b"tls-tunnel/1 key id")[:16],
        "CK": client_key,
        "SK": stored_key,
        "VK": server_key,
        "B": bound_to,
        "T(1, 2a)": first,
        "M": mask,
        "T(1, 2a, 2b, 3a)": second,
    }
    proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
    assert json.loads(two_b[4:])["mac"] == proof.hex()
    answer = h(server_key, b"tls-tunnel/1 server proof\0" + second)
    assert json.loads(bytes.fromhex(EXAMPLE["server proof"])[4:])["mac"] == answer.hex()


FROM_PAGE = {"key_id", "CK", "SK", "VK", "B", "T(1, 2a)", "M", "T(1, 2a, 2b, 3a)"}


def test_the_key_that_a_person_made_up():
    key_id = derive("correct horse battery staple").verifier.key_id.hex()
    assert f"`key_id` is `{key_id}`" in PAGE
    root = hashlib.scrypt(
        b"correct horse battery staple",
        salt=b"tls-tunnel/1 auth_key",
        n=32768,
        r=8,
        p=1,
        maxmem=2**26,
        dklen=32,
    )
    assert h(root, b"tls-tunnel/1 key id")[:16].hex() == key_id


def test_the_json_beside_the_frames():
    shown = "\n".join(re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)).splitlines()
    frames = [value for value in EXAMPLE.values() if value.startswith("00000") and "7b22" in value]
    bodies = [bytes.fromhex(frame)[4:].decode() for frame in frames if frame[8:12] == "7b22"]
    assert len(bodies) == 8
    assert shown == bodies


def test_the_yamux_frames_of_the_example():
    client, server = Connection(Role.CLIENT, now=0.0), Connection(Role.SERVER, now=0.0)

    def move(sender: Connection, receiver: Connection, name: str) -> None:
        data = b"".join(sender.data_to_send(0.0))
        assert data.hex() == EXAMPLE[name]
        receiver.receive_data(data, 0.0)
        while receiver.next_event() not in (NEED_DATA, CLOSED):
            pass

    control = client.open_stream()
    move(client, server, "client opens")
    server.accept_stream(control)
    move(server, client, "server welcomes")
    visitor = server.open_stream()
    source, destination = Address("192.0.2.7", 50000), Address("198.51.100.1", 8080)
    server.send_data(visitor, build_preamble(source, destination, 0, b"\x44" * 8) + b"hi")
    move(server, client, "visitor comes")
    client.accept_stream(visitor)
    move(client, server, "client welcomes")
    client.reset_stream(visitor, ResetCode.LOCAL_REFUSED)
    move(client, server, "local refused")
    server.send_data(control, messages.encode(Stopping()))
    server.close()
    move(server, client, "stopping")


SECRET = generate_key(bytes(range(32, 64)))
OWNER_NONCE, VISITOR_NONCE = b"\x50" * 32, b"\x60" * 32


def test_the_visit_of_the_example():
    about = VisitTranscript("office", "db", 5432, "laptop", OWNER_NONCE, VISITOR_NONCE)
    key = visit_key(SECRET)
    assert EXAMPLE["visitor_secret"] == SECRET
    assert EXAMPLE["V"] == key.hex()
    assert EXAMPLE["visit"] == about.visit_proof(key).hex()
    assert EXAMPLE["visited"] == about.visited_proof(key).hex()
    notice = Target(0, "office", 5432, OWNER_NONCE)
    assert EXAMPLE["target"] == messages.encode(notice).hex()
    source, destination = Address("127.0.0.1", 50001), Address("127.0.0.1", 15432)
    proof = VISITOR_NONCE + about.visit_proof(key)
    header = build_visit_preamble(source, destination, 0, b"\x55" * 8, proof)
    assert EXAMPLE["visit header"] == header.hex()
    _, visit = PreambleDecoder().feed(header)
    client, server = Address("203.0.113.5", 40000), Address("198.51.100.1", 8443)
    header = build_forwarded_preamble(client, server, 2, visit, "laptop", assigned=True)
    assert EXAMPLE["forwarded header"] == header.hex()


def test_the_formulas_of_the_page_give_the_visit():
    """Written from the page, without the code."""
    key = h(b"tls-tunnel/1 visitor key", EXAMPLE["visitor_secret"].encode())
    about = (
        b"\0\6office\0\2db"
        + (5432).to_bytes(2, "big")
        + b"\0\6laptop"
        + OWNER_NONCE
        + VISITOR_NONCE
    )
    proof = h(key, b"tls-tunnel/1 visit\0" + about)
    assert EXAMPLE["V"] == key.hex()
    assert EXAMPLE["X"] == about.hex()
    assert EXAMPLE["visit"] == proof.hex()
    assert EXAMPLE["visited"] == h(key, b"tls-tunnel/1 visited\0" + about).hex()
    for name in ("visit header", "forwarded header"):
        assert b"\xe2\0\x40" + VISITOR_NONCE + proof in bytes.fromhex(EXAMPLE[name])


# --- A client written from the page ----------------------------------------------------------

HEADER = struct.Struct("!BBHII")
DATA, WINDOW_UPDATE, SYN, ACK, FIN = 0, 1, 1, 2, 4


class PageClient:
    """Made of the page and the standard library, without a line of the product."""

    def __init__(self, tls: trio.SSLStream[trio.SocketStream]) -> None:
        self.tls = tls
        self.buffer = b""

    async def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = await self.tls.receive_some()
            assert data, "the server has closed"
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    async def frame(self) -> bytes:
        size = await self.exactly(4)
        return size + await self.exactly(int.from_bytes(size, "big"))

    async def yamux(self) -> tuple[int, int, int, int, bytes]:
        _, kind, flags, stream, length = HEADER.unpack(await self.exactly(12))
        return kind, flags, stream, length, await self.exactly(0 if kind else length)

    async def send_yamux(self, kind: int, flags: int, stream: int, data: bytes = b"") -> None:
        await self.tls.send_all(HEADER.pack(0, kind, flags, stream, len(data)) + data)

    async def introduce(self, key: str, proxies: list[dict[str, object]]) -> dict[str, object]:
        """TLS and the handshake; returns frame 5."""
        await self.tls.do_handshake()
        root = h(b"tls-tunnel/1 auth_key", key.encode())
        client_key = h(root, b"tls-tunnel/1 client key")
        bound_to = b"\1" + sha256(self.tls.getpeercert(binary_form=True))
        challenge = await self.frame()
        hello = framed(
            type="authenticate",
            version=1,
            binding="certificate",
            nonce="0f" * 32,
            key_id=h(root, b"tls-tunnel/1 key id")[:16].hex(),
            name="page",
            client_id="1f" * 16,
            instance_id="2f" * 16,
            attempt=1,
        )
        seen = b"tls-tunnel/1\0" + bound_to + challenge + hello
        mask = h(sha256(client_key), b"tls-tunnel/1 client proof\0" + sha256(seen))
        mac = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        proof = framed(type="proof", mac=mac.hex())
        await self.tls.send_all(hello + proof)
        authenticated = await self.frame()
        seen += proof + authenticated
        server_key = h(root, b"tls-tunnel/1 server key")
        mac = h(server_key, b"tls-tunnel/1 server proof\0" + sha256(seen))
        assert json.loads((await self.frame())[4:]) == {"type": "proof", "mac": mac.hex()}
        await self.tls.send_all(framed(type="configure", proxies=proxies))
        return json.loads((await self.frame())[4:])


def framed(**message: object) -> bytes:
    """With blanks and escapes, unlike ours: any JSON will do."""
    encoded = json.dumps(message, indent=1).encode("ascii")
    return struct.pack("!I", len(encoded)) + encoded


async def test_a_client_written_from_the_page_serves_a_visitor(tmp_path):
    make_certificate(tmp_path)
    async with world(tmp_path) as there:
        there.keys = derive(AUTH_KEY)
        await there.start_server()
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        context.set_alpn_protocols(["tls-tunnel/1"])
        tcp = await trio.open_tcp_stream("127.0.0.1", there.address.port)
        async with trio.SSLStream(
            tcp, context, server_hostname="127.0.0.1", https_compatible=True
        ) as tls:
            await serve_a_visitor(PageClient(tls))


async def serve_a_visitor(client: PageClient) -> None:
    wanted = {"name": "web", "publish_addr": "127.0.0.1", "publish_port": 0}
    configured = await client.introduce(AUTH_KEY, [wanted])
    [answer] = configured["proxies"]
    [published] = answer["bound"]
    await client.send_yamux(WINDOW_UPDATE, SYN, 1)
    assert await client.yamux() == (WINDOW_UPDATE, ACK, 1, 0, b"")

    async with await trio.open_tcp_stream("127.0.0.1", published["port"]) as visitor:
        assert await client.yamux() == (WINDOW_UPDATE, SYN, 2, 0, b"")
        source, port = visitor.socket.getsockname()[1], published["port"]
        *_, stream, size, header = await client.yamux()
        assert (stream, size) == (2, 16 + 12 + 11 + 7)
        assert header[:16] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", size - 16)
        assert header[16:28] == struct.pack("!4B4BHH", 127, 0, 0, 1, 127, 0, 0, 1, source, port)
        assert header[28:31] == b"\5\0\x08"
        assert header[39:] == b"\xe0\0\4" + struct.pack("!I", answer["id"])
        await client.send_yamux(WINDOW_UPDATE, ACK, 2)
        await client.send_yamux(DATA, 0, 2, b"welcome")
        await client.send_yamux(WINDOW_UPDATE, FIN, 2)
        assert await visitor.receive_some() == b"welcome"
        assert await visitor.receive_some() == b""
        await visitor.send_all(b"thanks")
        assert await client.yamux() == (DATA, 0, 2, 6, b"thanks")
        await visitor.send_eof()
        assert await client.yamux() == (WINDOW_UPDATE, FIN, 2, 0, b"")
