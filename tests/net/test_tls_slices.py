"""TLS takes and gives its bytes in slices; nobody may notice."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from tests.net.rig import socket_transports, tls_pair
from tunnel import limits
from tunnel.net.scratch import scratch
from tunnel.net.tls import TlsStream


def pattern(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def read_exactly(stream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await stream.receive_some()
    return bytes(data)


@pytest.mark.parametrize(
    "size",
    [1, limits.TLS_SLICE - 1, limits.TLS_SLICE, limits.TLS_SLICE + 1, 5 * limits.TLS_SLICE],
)
async def test_every_slice_arrives_in_order(contexts, size):
    client, server = await tls_pair(contexts)
    sent = pattern(size)
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, sent)
        assert await read_exactly(server, size) == sent


async def test_parts_of_all_sizes_arrive_in_order(contexts):
    client, server = await tls_pair(contexts, socket_transports)
    join, cut = limits.TLS_JOIN, limits.TLS_SLICE
    sizes = [0, 12, 1, join - 1, join, 12, cut - 1, cut, cut + 1, 12, 12, 3 * cut + 5, 7]
    parts = [pattern(size) for size in sizes]
    async with client, server:
        assert client.send_nowait(*parts)
        assert await read_exactly(server, sum(sizes)) == b"".join(parts)


async def test_short_parts_are_one_record(contexts):
    client, server = await tls_pair(contexts, socket_transports)
    async with client, server:
        client.send_nowait(*[b"x" * 12] * 100)
        cipher = memoryview(bytearray(65536))
        assert await server.transport.receive_into(cipher) < 100 * 12 + 60


async def test_what_is_sent_while_something_waits_comes_behind_it(contexts):
    client, server = await tls_pair(contexts, socket_transports)
    # More than the kernel keeps for both ends.
    first, second, third = pattern(16 * limits.MIB), b"two", pattern(100_000)
    async with client, server, trio.open_nursery() as nursery:
        assert not client.send_nowait(first)
        assert not client.send_nowait(second)
        nursery.start_soon(client.drain)
        await trio.testing.wait_all_tasks_blocked()
        assert not client.send_nowait(third)
        everything = first + second + third
        assert await read_exactly(server, len(everything)) == everything


@pytest.mark.parametrize("most", [1, 2, 7, 100])
async def test_however_the_handshake_is_cut(contexts, monkeypatch, most):
    """What ends it may come with the beginning of what follows; no record is lost sight of."""

    def trickling():
        ends = socket_transports()
        for end in ends:
            really = end.receive_into
            monkeypatch.setattr(
                end, "receive_into", lambda buffer, really=really: really(buffer[:most])
            )
        return ends

    server_context, context = contexts
    one, other = trickling()
    client = TlsStream(one, context, server_side=False, server_hostname="localhost")
    server = TlsStream(other, server_context, server_side=True)
    sent = pattern(300)

    async def speak_first():
        await client.do_handshake()
        await client.send_all(sent)

    async with client, server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak_first)
            # Everything is there, with what follows, before the last of it is read.
            await server.do_handshake()
        with trio.fail_after(5):
            assert await read_exactly(server, len(sent)) == sent
            await server.send_all(sent)
            assert await read_exactly(client, len(sent)) == sent


async def test_what_came_before_a_broken_record_is_delivered(contexts):
    client, server = await tls_pair(contexts, socket_transports)
    sent = pattern(3 * limits.TLS_SLICE)
    async with client, server:
        client.send_nowait(sent)
        client.transport.send_nowait([b"\x17\x03\x03\x00\x20" + bytes(32)])
        got = bytearray()
        with pytest.raises(trio.BrokenResourceError, match="TLS: "):
            while True:
                got += await server.receive_some()
    assert got == sent


async def test_a_small_buffer_gets_all_slices(contexts):
    client, server = await tls_pair(contexts, socket_transports)
    sent = pattern(4 * limits.TLS_SLICE)
    buffer = scratch().plain[:1000]
    async with client, server:
        client.send_nowait(sent)
        got = bytearray()
        while len(got) < len(sent):
            got += buffer[: await server.read_into(buffer)]
    assert got == sent


async def test_nothing_that_was_sent_is_kept(contexts):
    client, server = await tls_pair(contexts, socket_transports)
    async with client, server:
        client.send_nowait(pattern(1000))
        assert client._unsent == []
        await server.receive_some()
