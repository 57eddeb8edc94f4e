"""Trio's own conformance checks, run on our streams."""

import pytest
import trio
import trio.testing

from tests.net.rig import link_pair, memory_transports, socket_transports, tls_pair


@pytest.mark.parametrize("transports", [memory_transports, socket_transports])
async def test_tls_stream_conforms(contexts, transports):
    async def make():
        return await tls_pair(contexts, transports)

    async def make_clogged():
        client, server = await tls_pair(contexts, trio_lockstep)
        return client, server

    await trio.testing.check_two_way_stream(make, None)


def trio_lockstep():
    from tunnel.net.transport import StreamTransport

    one, other = trio.testing.lockstep_stream_pair()
    return StreamTransport(one), StreamTransport(other)


async def test_mux_stream_conforms(contexts):
    async with link_pair(contexts) as pair:

        async def make():
            return await pair.streams()

        async def make_clogged():
            one, other = await pair.streams()
            for stream in (one, other):
                while room := stream._link.room(stream.stream_id):
                    stream._link.send(stream.stream_id, bytes(room))
                    stream._link.flush()
            return one, other

        await trio.testing.check_half_closeable_stream(make, make_clogged)
