"""The faulty network does what it is told, at the byte that it is told."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio

from tests.faults.proxy import Action, Fault, FaultProxy, Way
from tests.rig import read_all
from tunnel.model import Address


@asynccontextmanager
async def wire(*planned: Fault):
    """A proxy, and both ends of a connection through it."""
    accepted_in, accepted = trio.open_memory_channel(10)
    over = trio.Event()

    async def accept(stream):
        await accepted_in.send(stream)
        await over.wait()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(_serve, accept)
        proxy = FaultProxy(Address("127.0.0.1", listeners[0].socket.getsockname()[1]))
        proxy.planned = list(planned)
        address = await nursery.start(proxy.run)
        near = await trio.open_tcp_stream(address.host, address.port)
        async with near:
            with trio.fail_after(10):
                yield proxy, near, accepted
        over.set()
        nursery.cancel_scope.cancel()


async def _serve(handler, *, task_status):
    await trio.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)


async def test_it_carries_both_ways_and_each_end():
    async with wire() as (_, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"question")
        await near.send_eof()
        assert await read_all(far) == b"question"
        await far.send_all(b"answer")
        await far.send_eof()
        assert await read_all(near) == b"answer"


async def test_a_reset_of_one_end_is_a_reset_of_the_other():
    async with wire() as (_, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"
        near.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: on, 0 seconds
        await near.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()


async def test_cut_at_a_byte_is_an_end_behind_it_for_both():
    async with wire(Fault(Action.CUT, Way.UP, 3)) as (_, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"abcdef")
        assert await read_all(far) == b"abc"
        assert await read_all(near) == b""
        await far.aclose()


async def test_reset_at_a_byte():
    async with wire(Fault(Action.RESET, Way.DOWN, 2)) as (_, near, accepted):
        far = await accepted.receive()
        await far.send_all(b"abc")
        with pytest.raises(trio.BrokenResourceError):
            await read_all(near)
        with pytest.raises(trio.BrokenResourceError):
            await read_all(far)


async def test_truncation_ends_one_direction_and_leaves_the_other():
    async with wire(Fault(Action.TRUNCATE, Way.UP, 3)) as (_, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"abcdef")
        assert await read_all(far) == b"abc"
        await far.send_all(b"still here")
        await far.send_eof()
        assert await read_all(near) == b"still here"


async def test_corruption_is_one_byte():
    async with wire(Fault(Action.CORRUPT, Way.UP, 3)) as (_, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"abcdefg")
        await near.send_eof()
        assert await read_all(far) == b"abc$efg"  # "d" with one bit turned round


async def test_a_fault_before_the_first_byte():
    async with wire(Fault(Action.CUT, Way.UP, 0)) as (_, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"abc")
        assert await read_all(far) == b""
        await far.aclose()


async def test_faults_in_the_middle_of_a_connection_count_from_now():
    async with wire() as (proxy, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"12345")
        assert await far.receive_some() == b"12345"
        while proxy.connections[0].carried[Way.UP] < 5:
            await trio.lowlevel.checkpoint()
        proxy.at(Action.CORRUPT, Way.UP, 1)
        await near.send_all(b"abc")
        await near.send_eof()
        assert await read_all(far) == b'a"c'


async def test_stall_carries_nothing_and_resume_carries_all():
    async with wire() as (proxy, near, accepted):
        far = await accepted.receive()
        await near.send_all(b"1")
        assert await far.receive_some() == b"1"
        proxy.stall(Way.UP)
        await near.send_all(b"2")
        await far.send_all(b"down is not stalled")
        assert await near.receive_some() == b"down is not stalled"
        assert proxy.connections[0].carried[Way.UP] == 1
        proxy.resume()
        assert await far.receive_some() == b"2"


async def test_delay_and_drip():
    async with wire() as (proxy, near, accepted):
        far = await accepted.receive()
        proxy.delay(0.05)
        began = trio.current_time()
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"
        assert trio.current_time() - began >= 0.05
        proxy.delay(0)
        proxy.drip(1, 0.01, Way.DOWN)
        began = trio.current_time()
        await far.send_all(b"abcde")
        assert await near.receive_some(1) == b"a"
        assert await near.receive_some(1) == b"b"
        assert await near.receive_some(1) == b"c"
        assert trio.current_time() - began >= 0.02
        proxy.drip(0, 0)
        await far.send_eof()
        assert await read_all(near) == b"de"


async def test_new_connections_swallowed_and_refused():
    async with wire() as (proxy, _, _accepted):
        proxy.swallows = True
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            await stream.send_all(b"hello?")
            with trio.move_on_after(0.05) as patience:
                await stream.receive_some()
            assert patience.cancelled_caught
            proxy.connections[-1].reset()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        proxy.refuses = True
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_by_itself_it_obeys_lines():
    async with wire() as (first, _, accepted):
        far = await accepted.receive()
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, "-m", "tests.faults.proxy"),
                *("--target", f"127.0.0.1:{first.port}"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        async with process.stdin, process.stdout:
            address = (await next_line(process.stdout)).decode()
            through = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))
            other = await accepted.receive()
            for line, answer in [
                (b"at cut up 3\n", b"ok"),
                (b"dance\n", b"what is 'dance'? See the source."),
            ]:
                await process.stdin.send_all(line)
                assert await next_line(process.stdout) == answer
            await through.send_all(b"abcdef")
            assert await read_all(other) == b"abc"
            await through.aclose()
        assert await process.wait() == 0
        await far.aclose()


async def next_line(stream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some(1)
    return line[:-1]
