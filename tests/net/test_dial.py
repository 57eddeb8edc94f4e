"""Connecting to names, addresses and Unix sockets."""

import errno
import os
import socket

import pytest
import trio

from tests.needs import needs_ipv6
from tunnel.net.dial import connect_address, connect_tcp, connect_unix


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def nobody():
    """A port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("connect", "host"),
    [(connect_tcp, "localhost"), (connect_tcp, "127.0.0.1"), (connect_address, "127.0.0.1")],
)
async def test_a_connection_is_ready_for_use(listener, connect, host):
    with await connect(host, listener.getsockname()[1]) as sock:
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with listener.accept()[0] as other:
            other.sendall(b"x")
            await trio.lowlevel.wait_readable(sock)
            assert sock.recv(9) == b"x"


@needs_ipv6
async def test_ipv6():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        (await connect_address("::1", listener.getsockname()[1])).close()


async def test_a_unix_socket(tmp_path):
    path = str(tmp_path / "service")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with await connect_unix(path) as sock:
            assert not sock.getblocking()


@pytest.mark.parametrize("connect", [connect_tcp, connect_address])
async def test_nobody_there(nobody, connect):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConnectionRefusedError, match="Connection refused"):
        await connect("127.0.0.1", nobody)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_no_such_unix_socket(tmp_path):
    with pytest.raises(FileNotFoundError):
        await connect_unix(str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ""])
async def test_what_can_be_no_name(name):
    with pytest.raises(OSError) as caught:  # noqa: PT011  # any, as long as it is one
        await connect_tcp(name, 1)
    assert str(caught.value)


async def test_a_name_of_impossible_form_is_named():
    with pytest.raises(OSError, match=r"'a\.\.b' cannot be a name") as caught:
        await connect_tcp("a..b", 1)
    assert caught.value.errno == errno.EINVAL


async def test_a_cancelled_dial_leaves_no_socket():
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full:
        address = full.getsockname()
        waiting = []
        for _ in range(4):  # until the kernel answers no more
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(address)
            waiting.append(sock)
        with trio.move_on_after(0.05):
            (await connect_address(*address)).close()
        for sock in waiting:
            sock.close()
    assert len(os.listdir("/proc/self/fd")) == before
