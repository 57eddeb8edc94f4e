"""What strangers send to a real server ends their own connection and nothing else."""

import contextlib
import json
import secrets
import ssl
import struct

import attrs
import pytest
import trio

from tests.server.rig import assert_one_line, place, proved, read_to_the_end
from tunnel import limits
from tunnel.errors import Refused
from tunnel.net.contexts import client_context
from tunnel.net.framed import next_event
from tunnel.protocol.keys import derive, generate_key

# --- Before the first frame -------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 5000, b"\x16\x03\x01\xff\xff" + b"x" * 70000],
    ids=["http", "zeros", "a huge record"],
)
async def test_garbage_instead_of_tls(certificate, garbage):
    async with place(certificate) as there:
        async with await there.tcp() as stream:
            with contextlib.suppress(trio.BrokenResourceError):  # it may have heard enough
                await stream.send_all(garbage)
            line = await there.lines.next()
            await read_to_the_end(stream)
        assert line.getMessage() == "Handshake failed"
        assert line.reason.startswith("TLS: ")
        assert line.address.startswith("127.0.0.1:")
    assert_one_line(there)


async def test_a_visitor_who_closes_at_once(certificate):
    async with place(certificate) as there:
        await (await there.tcp()).aclose()
        line = await there.lines.next()
        assert line.getMessage() == "Handshake failed"
    assert_one_line(there)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_silence(certificate, tls):
    async with place(certificate) as there:
        # The honest client of the end needs more time than this silent one is given.
        patient, there.tunnel.server.policy = there.tunnel.server.policy, impatient(there)
        stream = await there.tcp()
        if tls:
            await stream.aclose()
            assert (await there.lines.next()).getMessage() == "Handshake failed"
            there.tunnel.server.policy = impatient(there, seconds=0.3)
            stream = await there.tls()
        line = await there.lines.next()
        assert (line.getMessage(), line.reason) == ("Handshake failed", "too slow")
        there.tunnel.server.policy = patient
        await read_to_the_end(stream)
        await stream.aclose()
    assert_one_line(there, more=tls)


def impatient(there, seconds=0.05):
    return attrs.evolve(there.tunnel.server.policy, handshake_timeout=seconds)


@pytest.mark.parametrize("protocols", [None, ["h2", "http/1.1"]], ids=["none", "foreign"])
async def test_another_application_protocol(certificate, protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate / "ca.pem")
    if protocols:
        context.set_alpn_protocols(protocols)
    async with place(certificate) as there:
        stream = await there.tls(context)
        line = await there.lines.next()
        assert line.reason == "not a client: it does not speak tls-tunnel/1"
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()  # not one frame for it
        await stream.aclose()
    assert_one_line(there)


async def test_old_tls(certificate):
    context = client_context(ca_path=certificate / "ca.pem", verify=True, check_hostname=True)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with place(certificate) as there:
        with pytest.raises(trio.BrokenResourceError):
            await there.tls(context)
        assert (await there.lines.next()).reason == "TLS: unsupported protocol"
    assert_one_line(there)


# --- Frames -----------------------------------------------------------------------------------


def frame(body):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return struct.pack("!I", len(body)) + body


PROOF = {"type": "proof", "mac": "00" * 32}
HELLO = {
    "type": "authenticate",
    "version": 1,
    "binding": "certificate",
    "nonce": "00" * 32,
    "key_id": "00" * 16,
    "name": "x",
    "client_id": "00" * 16,
    "instance_id": "00" * 16,
    "attempt": 1,
}

ILLEGAL = {
    "4 GiB announced": b"\xff\xff\xff\xff",
    "more than 4 KiB announced": struct.pack("!I", 4097) + b"{",
    "nothing announced": bytes(4),
    "not UTF-8": frame(b'{"type": "\xff"}'),
    "not JSON": frame(b'{"type": '),
    "not an object": frame(b"[1, 2]"),
    "nested": frame(b"[" * 4000),
    "the same key twice": frame(b'{"type": "proof", "type": "proof"}'),
    "NaN": frame(b'{"type": "proof", "mac": NaN}'),
    "a lone surrogate": frame(b'{"type": "\\ud800"}'),
    "no type": frame({"mac": "00" * 32}),
    "a type that is a number": frame({"type": 7}),
    "a message of the future": frame({"type": "hello"}),
    "wrong order": frame(PROOF),
    "configure at once": frame({"type": "configure", "proxies": []}),
    "a server's message": frame({"type": "challenge", "version": 1, "nonce": "00" * 32}),
    "a refusal": frame({"type": "refused", "code": "x", "text": "y"}),
    "a name that is a number": frame(HELLO | {"name": 5}),
    "a name with a line break": frame(HELLO | {"name": "a\nb"}),
    "an attempt that is true": frame(HELLO | {"attempt": True}),
    "an id with spaces": frame(HELLO | {"client_id": " 0" * 16}),
    "twice": frame(HELLO) * 2,
    "more than asked for": frame(HELLO) + frame(PROOF) + b"x",
}


async def told(stream):
    """The refusal that the server sends, as a client reads it: with a clean end behind it."""
    data = b""
    while piece := await stream.receive_some():
        data += piece
    messages = []
    while data:
        (size,) = struct.unpack_from("!I", data)
        messages.append(json.loads(data[4 : 4 + size]))
        data = data[4 + size :]
    assert [message["type"] for message in messages] == ["challenge", "refused"]
    return messages[1]


@pytest.mark.parametrize("sent", ILLEGAL.values(), ids=ILLEGAL.keys())
async def test_illegal_frames(certificate, sent):
    async with place(certificate) as there:
        stream = await there.tls()
        await stream.send_all(sent)
        line = await there.lines.next()
        refusal = await told(stream)
        await stream.aclose()
        assert line.getMessage() == "Refused"
        assert line.code == refusal["code"] == "protocol"
        assert line.reason.startswith(refusal["text"])
        assert line.reason.isprintable()
    assert_one_line(there)


async def test_frames_in_single_bytes(certificate):
    async with place(certificate) as there:
        stream = await there.tls()
        for number in frame(PROOF):
            await stream.send_all(bytes([number]))
        assert (await told(stream))["code"] == "protocol"
        await stream.aclose()
    assert_one_line(there)


async def test_half_a_frame_and_the_end(certificate):
    async with place(certificate) as there:
        stream = await there.tls()
        await stream.receive_some()  # the challenge; a close with something unread is a reset
        await stream.send_all(frame(HELLO)[:50])
        await stream.aclose()
        line = await there.lines.next()
        assert line.getMessage() == "Refused"
        assert line.reason.startswith("closed ")
        assert line.reason.endswith("while this end waits for authenticate")
    assert_one_line(there)


async def test_a_cut_in_the_middle_of_a_frame(certificate):
    async with place(certificate) as there:
        stream = await there.tls()
        await stream.send_all(frame(HELLO)[:50])
        stream.abort()
        assert (await there.lines.next()).getMessage() == "Handshake failed"
    assert_one_line(there)


async def test_a_refusal_arrives_although_the_client_keeps_sending(certificate):
    async with place(certificate) as there:
        stream = await there.tls()
        await stream.send_all(frame(PROOF) + bytes(limits.REFUSAL_DRAIN_BYTES // 2))
        refusal = await told(stream)
        assert refusal["code"] == "protocol"
        assert "proof came" in refusal["text"]
        await stream.aclose()
    assert_one_line(there)


# --- Proofs -----------------------------------------------------------------------------------


async def refused(handshake, stream):
    with pytest.raises(Refused) as caught:
        await next_event(handshake, stream)
    await stream.aclose()
    return caught.value


async def test_a_wrong_key(certificate):
    async with place(certificate) as there:
        stream = await there.tls()
        keys = derive(generate_key(secrets.token_bytes(32)))
        handshake = there.handshake(stream, keys=keys)
        await next_event(handshake, stream)
        await stream.send_all(handshake.authenticate())
        refusal = await refused(handshake, stream)
        assert refusal.code == "authentication"
        assert refusal.text == "the server does not accept this auth_key"
        assert (await there.lines.next()).getMessage() == "Authentication failed"
    assert_one_line(there)


async def test_a_proof_replayed_from_another_connection(certificate):
    async with place(certificate) as there:
        first = await there.tls()
        handshake = there.handshake(first)
        await next_event(handshake, first)
        said = handshake.authenticate()
        await first.send_all(said)
        await next_event(handshake, first)  # there it is right
        first.abort()
        assert (await there.lines.next()).getMessage() == "Handshake failed"

        second = await there.tls()
        handshake = there.handshake(second)
        await next_event(handshake, second)
        handshake.authenticate()
        await second.send_all(said)
        assert (await refused(handshake, second)).code == "authentication"
        assert (await there.lines.next()).getMessage() == "Authentication failed"
    assert_one_line(there, more=1)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"version": 2}, "version"), ({"binding": "none"}, "binding")],
    ids=["version", "binding"],
)
async def test_what_the_server_does_not_do(certificate, change, code):
    async with place(certificate) as there:
        stream = await there.tls()
        await stream.send_all(frame(HELLO | change) + frame(PROOF))
        assert (await told(stream))["code"] == code
        line = await there.lines.next()
        assert (line.getMessage(), line.code) == ("Refused", code)
        await stream.aclose()
    assert_one_line(there)


@pytest.mark.parametrize(
    "configure",
    [
        {"type": "configure"},
        {"type": "configure", "proxies": [5]},
        {"type": "configure", "proxies": [{"name": "x", "publish_addr": "example.org"}]},
        {"type": "configure", "proxies": [{}] * 257},
        PROOF,
    ],
    ids=["nothing", "numbers", "a name", "too many", "out of order"],
)
async def test_illegal_configurations(certificate, configure):
    async with place(certificate) as there:
        stream, handshake = await proved(there)
        handshake.configure(())
        await stream.send_all(frame(configure))
        assert (await refused(handshake, stream)).code == "protocol"
        line = await there.lines.next()
        assert (line.getMessage(), line.code) == ("Refused", "protocol")
    assert_one_line(there)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "protocol error: "),
        (struct.pack("!BBHII", 0, 0, 1, 1, 300_000), "protocol error: 300000 bytes on stream 1"),
        (struct.pack("!BBHII", 0, 3, 0, 0, 2), "the other side ended the session with code 2"),
    ],
    ids=["http", "beyond the window", "an error"],
)
async def test_illegal_yamux(certificate, sent, reason):
    async with place(certificate) as there:
        stream, handshake = await proved(there)
        await stream.send_all(handshake.configure(()))
        await next_event(handshake, stream)
        assert (await there.lines.next()).getMessage() == "Client connected"
        await stream.send_all(sent)
        line = await there.lines.next()
        assert line.getMessage() == "Client disconnected"
        assert line.reason.startswith(reason)
        await read_to_the_end(stream)
        await stream.aclose()
    assert_one_line(there, more=-1)
