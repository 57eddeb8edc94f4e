"""HTTP over real sockets, with clients that are slow, silent or many."""

from __future__ import annotations

import contextlib
import functools
import json
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.ops.views import connections, program
from tests.rig import is_free, read_all
from tunnel import limits
from tunnel.net.listen import open_listeners
from tunnel.net.transport import own_address, reset_on_close
from tunnel.ops.http import Application
from tunnel.ops.http_server import serve_http
from tunnel.ops.statistics import Statistics
from tunnel.views import Snapshots

UPGRADE = (
    b"GET /stats HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\n"
    b"upgrade: %s\r\n%s\r\n"
)
WEBSOCKET = b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


class Place:
    def __init__(self, nursery):
        application = Application(Statistics(Snapshots("server", program, connections, tuple)))
        listeners = open_listeners("127.0.0.1", 0)
        self.address = own_address(listeners[0])
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        nursery.start_soon(functools.partial(self.run, application, listeners))

    async def run(self, application, listeners):
        with self.scope:
            await serve_http(application, listeners)
        self.ended.set()

    async def connect(self):
        return await trio.open_tcp_stream(self.address.host, self.address.port)

    async def ask(self, path="/stats", method="GET", more=""):
        stream = await self.connect()
        request = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n"
        await stream.send_all(request.encode())
        with trio.fail_after(20):
            head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        await stream.aclose()
        return int(head.split()[1]), head.lower(), body

    async def end(self):
        self.scope.cancel()
        with trio.fail_after(5):  # and not as long as somebody keeps it waiting
            await self.ended.wait()
        assert is_free(self.address)


@pytest.fixture
def place(nursery):
    return Place(nursery)


async def test_an_answer(place):
    status, head, body = await place.ask()
    assert status == 200
    assert json.loads(body)[0]["name"] == "web"
    assert f"content-length: {len(body)}".encode() in head
    assert b"server:" not in head


async def test_head_has_the_length_and_no_body(place):
    _, _, body = await place.ask("/healthz")
    status, head, nothing = await place.ask("/healthz", method="HEAD")
    assert (status, nothing) == (200, b"")
    assert f"content-length: {len(body)}".encode() in head


async def test_several_requests_on_one_connection(place):
    stream = await place.connect()
    for _ in range(3):
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = b""
        with trio.fail_after(20):
            while b"}" not in answer:
                answer += await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 200")
    await stream.aclose()


async def test_a_body_that_nobody_wants(place):
    status, _, _ = await place.ask(more="content-length: 1000000\r\n")
    assert status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"nonsense\r\n\r\n",
        b"GET /stats HTTP/1.1\r\n\r\n",
        b"GET /stats HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        UPGRADE % (b"h2c", b"http2-settings: A\r\n"),
        UPGRADE % (b"h2c", b"http2-settings: AAMAAABkAAQAAP__\r\n") + b"garbage" * 9,
        UPGRADE % (b"websocket", WEBSOCKET) + b"\xff" * 60,
        UPGRADE % (b"websocket", WEBSOCKET) + UPGRADE % (b"websocket", WEBSOCKET),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)),
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("ending", ["end", "reset"])
async def test_odd_requests_harm_only_their_connection(place, request_, ending, caplog):
    stream = await place.connect()
    with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(request_)
        if ending == "end":
            await stream.send_eof()
            await read_all(stream)
        else:
            await stream.receive_some()
            reset_on_close(stream.socket)
    await stream.aclose()
    assert not caplog.records  # or a stranger could fill the log
    assert (await place.ask())[0] == 200


async def test_a_websocket_is_refused(place):
    more = (
        "upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    stream = await place.connect()
    request = f"GET /stats HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n{more}\r\n"
    await stream.send_all(request.encode())
    with trio.fail_after(20):
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 403")
    await stream.aclose()


async def test_many_silent_connections_do_not_keep_others_out(place):
    silent = [await place.connect() for _ in range(2 * limits.HTTP_CONNECTIONS)]
    assert (await place.ask())[0] == 200
    for stream in silent:
        await stream.aclose()
    await place.end()


async def test_the_oldest_connections_go_first(place):
    first = await place.connect()
    await wait_all_tasks_blocked()
    others = [await place.connect() for _ in range(limits.HTTP_CONNECTIONS)]
    with trio.fail_after(limits.HTTP_IDLE_TIMEOUT / 2):  # not merely because it is silent
        with contextlib.suppress(trio.BrokenResourceError):
            assert await first.receive_some() == b""
    await others[-1].send_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    with trio.fail_after(20):
        assert await others[-1].receive_some()
    for stream in (first, *others):
        await stream.aclose()


async def stuffed(place):
    """A client that asks and asks, and reads nothing: what it is sent has no room any more."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect((place.address.host, place.address.port))
    stream = trio.SocketStream(sock)
    with contextlib.suppress(trio.BrokenResourceError), trio.fail_after(40):
        stuck = trio.CancelScope()
        while not stuck.cancelled_caught:
            with trio.move_on_after(0.5) as stuck:
                await stream.send_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n" * 100)
    return stream


async def test_a_client_that_does_not_read_harms_nobody(place):
    stream = await stuffed(place)
    assert (await place.ask())[0] == 200
    await place.end()
    await stream.aclose()


async def test_a_client_that_does_not_read_is_hung_up_on(place, monkeypatch):
    monkeypatch.setattr(limits, "HTTP_IDLE_TIMEOUT", 0.5)
    stream = await stuffed(place)
    with trio.fail_after(20):
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x" * 10_000)
    await stream.aclose()


async def test_everything_is_closed_at_the_end(place):
    streams = [await place.connect() for _ in range(3)]
    await place.end()
    for stream in streams:
        await stream.aclose()
