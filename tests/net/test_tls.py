"""The TLS stream: how connections end, fail and refuse, and what one read may bring."""

import contextlib
import socket
import ssl

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import memory_transports, socket_pair, socket_transports, tls_pair
from tunnel import limits
from tunnel.net.contexts import client_context
from tunnel.net.tls import TlsStream
from tunnel.net.transport import SocketTransport, StreamTransport

BOTH = pytest.mark.parametrize("transports", [memory_transports, socket_transports])


def lockstep_transports():
    one, other = trio.testing.lockstep_stream_pair()
    return StreamTransport(one), StreamTransport(other)


async def test_conformance_where_every_send_waits_for_a_read(contexts):
    async def make():
        return await tls_pair(contexts, lockstep_transports)

    await trio.testing.check_two_way_stream(make, make)


async def test_conformance_where_the_kernel_takes_little(contexts):
    def small():
        one, other = socket_pair()
        for sock in (one, other):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return SocketTransport(one), SocketTransport(other)

    async def make():
        return await tls_pair(contexts, small)

    await trio.testing.check_two_way_stream(make, None)


# --- Ends -------------------------------------------------------------------------------------


@BOTH
async def test_a_goodbye_is_an_end(contexts, transports):
    one, other = await tls_pair(contexts, transports)
    await one.send_all(b"all of it")
    await one.aclose()
    assert await other.receive_some() == b"all of it"
    assert await other.receive_some() == b""
    assert await other.receive_some() == b""
    await other.aclose()


@BOTH
async def test_an_end_without_a_goodbye_is_none(contexts, transports):
    one, other = await tls_pair(contexts, transports)
    await one.send_all(b"half of it")
    await one.transport.aclose()
    assert await other.receive_some() == b"half of it"
    with pytest.raises(trio.BrokenResourceError, match="closed without a goodbye"):
        await other.receive_some()
    await other.aclose()


async def test_bytes_from_a_forger_are_no_end_either(contexts):
    one, other = await tls_pair(contexts)
    await one.send_all(b"true")
    await one.transport._stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert await other.receive_some() == b"true"
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()
    await other.aclose()
    await one.aclose()


@BOTH
async def test_a_goodbye_ends_one_direction_only(contexts, transports):
    one, other = await tls_pair(contexts, transports)
    one._say_goodbye()
    await one._send_outgoing()
    assert await other.receive_some() == b""
    await other.send_all(b"late answer")
    assert await one.receive_some() == b"late answer"
    one.abort()
    other.abort()


async def test_abort_is_a_reset(contexts):
    one, other = await tls_pair(contexts, socket_transports)
    await one.send_all(b"x")
    one.abort()
    one.abort()  # twice does no harm
    with pytest.raises(trio.BrokenResourceError):
        while await other.receive_some():
            pass
    with pytest.raises(trio.ClosedResourceError):
        await one.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()
    other.abort()


async def test_closing_does_not_wait_for_a_peer_that_does_not_read(contexts, autojump_clock):
    one, other = await tls_pair(contexts, lockstep_transports)
    began = trio.current_time()
    await one.aclose()
    assert trio.current_time() - began == pytest.approx(limits.GOODBYE)
    other.abort()


async def test_closing_while_another_task_is_stuck_sending(contexts):
    one, other = await tls_pair(contexts, lockstep_transports)
    async with trio.open_nursery() as nursery:

        async def send():
            with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
                await one.send_all(bytes(100_000))

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        await one.aclose()
    other.abort()


# --- Handshakes -------------------------------------------------------------------------------


async def shake(one, other):
    """Both handshakes to their ends; what each raised, or None."""
    results = {}

    async def do(stream):
        results[stream] = None
        try:
            await stream.do_handshake()
            await stream.receive_some()
        except trio.BrokenResourceError as error:
            results[stream] = str(error)
            stream.transport.abort()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do, one)
        nursery.start_soon(do, other)
    return results[one], results[other]


@BOTH
async def test_the_alert_of_a_failed_handshake_arrives(contexts, transports):
    server_context, _ = contexts
    one, other = transports()
    distrustful = client_context(ca_path=None, verify=True, check_hostname=True)
    client = TlsStream(one, distrustful, server_side=False, server_hostname="localhost")
    server = TlsStream(other, server_context, server_side=True)
    mine, theirs = await shake(client, server)
    assert mine.startswith("TLS: certificate verify failed")
    assert theirs == "TLS: tlsv1 alert unknown ca"


@BOTH
async def test_a_client_of_yesterday(contexts, transports):
    server_context, _ = contexts
    one, other = transports()
    old = client_context(ca_path=None, verify=False, check_hostname=False)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    client = TlsStream(one, old, server_side=False, server_hostname="localhost")
    server = TlsStream(other, server_context, server_side=True)
    mine, theirs = await shake(client, server)
    assert mine == "TLS: tlsv1 alert protocol version"
    assert theirs == "TLS: unsupported protocol"


async def test_a_peer_that_goes_during_the_handshake(contexts):
    server_context, _ = contexts
    one, other = memory_transports()
    server = TlsStream(other, server_context, server_side=True)
    await one.aclose()
    with pytest.raises(trio.BrokenResourceError, match="closed during the TLS handshake"):
        await server.do_handshake()
    server.abort()


# --- Sending ----------------------------------------------------------------------------------


async def test_a_cancelled_send_never_leaves_half_a_record(contexts):
    """What follows comes whole behind it, or nothing more does: never garbage."""
    one, other = await tls_pair(contexts, lockstep_transports)
    scope = trio.CancelScope()

    async def send():
        with scope:
            await one.send_all(b"a" * 50_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        scope.cancel()  # in the midst of it, however slow the machine is
    assert scope.cancelled_caught
    received = bytearray()
    async with trio.open_nursery() as nursery:

        async def read():
            try:
                async for data in other:
                    received.extend(data)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(read)
        with contextlib.suppress(trio.BrokenResourceError):
            await one.send_all(b"b")
        await one.aclose()
    assert received in (b"", b"a" * 50_000 + b"b") or set(received) == {ord("a")}
    await other.aclose()


async def test_a_cancelled_send_over_a_socket_goes_on_with_the_next(contexts):
    one, other = await tls_pair(contexts, socket_transports)
    size = 0
    while one.send_nowait(bytes(65536)):  # until the kernel takes no more
        size += 65536
    size += 65536
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.drain()
    received = bytearray()

    async def read():
        async for data in other:
            received.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await one.send_all(b"the rest")
        await one.aclose()
    assert len(received) == size + 8
    assert received.endswith(b"the rest")
    await other.aclose()


async def test_send_nowait_says_what_is_left(contexts):
    one, other = await tls_pair(contexts, socket_transports)
    assert one.send_nowait(b"x")
    assert not one.blocked
    while one.send_nowait(bytes(65536)):
        pass
    assert one.blocked
    one.abort()
    other.abort()


# --- Reading ----------------------------------------------------------------------------------


async def test_many_records_in_one_read(contexts):
    one, other = await tls_pair(contexts)
    for number in range(100):
        await one.send_all(bytes([number]) * 1000)
    buffer = memoryview(bytearray(limits.TLS_CHUNK))
    assert await other.read_into(buffer) == 100_000
    assert bytes(buffer[:100_000]) == b"".join(bytes([number]) * 1000 for number in range(100))
    one.abort()
    other.abort()


async def test_records_in_single_bytes(contexts):
    one, other = await tls_pair(contexts)
    one._ssl.write(b"hello")
    record = one._outgoing.read()
    async with trio.open_nursery() as nursery:

        async def read():
            assert await other.receive_some() == b"hello"
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        for number in record:
            before = other.heard_at
            await one.transport._stream.send_all(bytes([number]))
            await wait_all_tasks_blocked()
            assert other.heard_at > before  # life, although there is nothing to read yet
    one.abort()
    other.abort()


async def test_a_small_buffer_gets_what_fits(contexts):
    one, other = await tls_pair(contexts)
    await one.send_all(b"0123456789" * 5000)
    received = b""
    while len(received) < 50_000:
        piece = await other.receive_some(7777)
        assert 0 < len(piece) <= 7777
        received += piece
    assert received == b"0123456789" * 5000
    with pytest.raises(ValueError, match="at least 1"):
        await other.receive_some(0)
    one.abort()
    other.abort()


async def test_a_cancelled_read_loses_nothing(contexts):
    one, other = await tls_pair(contexts)
    with trio.move_on_after(0.001):
        await other.receive_some()
    await one.send_all(b"x")
    assert await other.receive_some() == b"x"
    one.abort()
    other.abort()


# --- Refusing ---------------------------------------------------------------------------------


async def test_a_refusal_arrives_before_the_reset(contexts):
    """The peer has sent what nobody will read: a plain close would overtake the refusal."""
    one, other = await tls_pair(contexts, socket_transports)
    await one.send_all(bytes(limits.REFUSAL_DRAIN_BYTES // 2))
    await wait_all_tasks_blocked()
    await other.send_all(b"no")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.refuse)
        await wait_all_tasks_blocked()
        await one.send_all(b"and more")
        assert await one.receive_some() == b"no"
        assert await one.receive_some() == b""
        await one.aclose()


@pytest.mark.parametrize("flood", [True, False], ids=["flood", "silence"])
async def test_a_refusal_has_an_end(contexts, autojump_clock, flood):
    one, other = await tls_pair(contexts)
    await other.send_all(b"no")
    async with trio.open_nursery() as nursery:

        async def send_for_ever():
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await one.send_all(bytes(10_000))

        if flood:
            nursery.start_soon(send_for_ever)
        began = trio.current_time()
        await other.refuse()
        taken = trio.current_time() - began
        assert taken == pytest.approx(0 if flood else limits.REFUSAL_DRAIN_TIMEOUT)
    one.abort()
