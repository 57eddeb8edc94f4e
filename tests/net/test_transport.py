"""Sockets and other streams as TLS sees them, and how sockets end."""

import socket
import struct
import sys

import pytest
import trio
import trio.testing

from tests.net.rig import memory_transports, socket_pair, socket_transports
from tunnel import limits
from tunnel.model import Address
from tunnel.net.transport import (
    finish_on_close,
    keep_alive,
    own_address,
    peer_address,
    reset_on_close,
)

BOTH = pytest.mark.parametrize("transports", [memory_transports, socket_transports])


async def send_everything(transport, data):
    view = memoryview(data)
    while view:
        view = view[await transport.send_some((view,)) :]


@BOTH
async def test_bytes_and_their_end(transports):
    one, other = transports()
    await send_everything(one, b"hello")
    buffer = memoryview(bytearray(100))
    assert await other.receive_into(buffer) == 5
    assert bytes(buffer[:5]) == b"hello"
    await one.aclose()
    assert await other.receive_into(buffer) == 0
    await other.aclose()


async def test_a_reader_is_woken_when_this_end_closes(nursery):
    one, other = socket_transports()

    async def read():
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_into(memoryview(bytearray(1)))

    async with trio.open_nursery() as reading:
        reading.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        one.abort()
    other.abort()


async def test_a_full_kernel_takes_nothing_without_waiting():
    one, other = socket_transports()
    block = memoryview(bytes(1 << 20))
    while one.send_nowait([block]):
        pass
    assert one.send_nowait([block]) == 0
    with trio.move_on_after(0) as scope:
        await one.send_some((block,))
    assert scope.cancelled_caught
    one.abort()
    other.abort()


async def test_more_parts_than_the_kernel_takes_in_one_call():
    one, other = socket_transports()
    assert one.send_nowait([b"x"] * 3000) == 1024
    buffer = memoryview(bytearray(3000))
    assert await other.receive_into(buffer) == 1024
    one.abort()
    other.abort()


async def test_a_broken_socket_is_broken():
    one, other = socket_transports()
    other.abort()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await one.receive_into(memoryview(bytearray(1)))
    with pytest.raises(trio.BrokenResourceError):
        one.send_nowait([b"x"])
    await one.aclose()


def test_reset_and_finish():
    for arm, expected in ((reset_on_close, ConnectionResetError), (finish_on_close, None)):
        one, other = socket_pair()
        reset_on_close(one)
        arm(one)
        one.send(b"x")
        one.close()
        other.setblocking(True)
        assert other.recv(1) == b"x"
        if expected is None:
            assert other.recv(1) == b""
        else:
            with pytest.raises(expected):
                other.recv(1)
        other.close()


def test_a_socket_is_reset_by_default_only_if_armed():
    one, other = socket_pair()
    for arm, linger in ((reset_on_close, (1, 0)), (finish_on_close, (0, 0))):
        arm(one)
        value = one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert struct.unpack("ii", value) == linger
    one.close()
    other.close()


def test_addresses_are_what_people_call_them():
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client,
    ):
        server, _ = listener.accept()
        with server:
            assert peer_address(server) == Address(*client.getsockname())
            assert own_address(server) == Address(*client.getpeername())
    one, other = socket.socketpair()
    with one, other:
        assert peer_address(one) == Address("unix", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="others name the options in their own ways")
def test_keepalive_of_tcp_is_inherited_by_what_is_accepted():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        keep_alive(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            idle, interval, count = (sock.getsockopt(socket.IPPROTO_TCP, o) for o in options)
    assert (idle, interval, count) == (
        limits.TCP_KEEPALIVE_IDLE,
        limits.TCP_KEEPALIVE_INTERVAL,
        limits.TCP_KEEPALIVE_COUNT,
    )
    assert idle + interval * count == 120


def test_keepalive_is_no_matter_for_a_unix_socket():
    one, other = socket.socketpair()
    with one, other:
        keep_alive(one)
        one.sendall(b"x")
        assert other.recv(1) == b"x"
