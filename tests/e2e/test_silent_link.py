"""A link that dies without a word: hosts of their own, and a cable that is really pulled.

Needs root and network namespaces. With RELIABILITY=full in the environment the default keepalive
is used, which takes ten seconds each time.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

import pytest
import trio

from tests.e2e.rig import Lab, Process, is_free, lab, published
from tests.namespaces import Cable, Host, Missing, cable
from tests.rig import echo, read_all
from tunnel import limits
from tunnel.model import Address

pytestmark = pytest.mark.e2e

FULL = os.environ.get("RELIABILITY") == "full"
INTERVAL, TIMEOUT = (5.0, 5.0) if FULL else (0.6, 0.6)
KEEPALIVE = {"keepalive_interval": INTERVAL, "keepalive_timeout": TIMEOUT}
DEFAULT_KEEPALIVE = {"keepalive_interval": 5.0, "keepalive_timeout": 5.0}
#: Between the client's attempts.
DELAY = 0.2
#: For processes to be woken and to say so, on a busy machine.
SLACK = 0.5
#: How soon a client must serve again, once it can.
BACK = DELAY + 1.0


@pytest.fixture
def wire():
    """Two hosts and a cable: the server and the visitors are on a, client and service on b."""
    try:
        with cable() as pair:
            yield pair
    except Missing as error:
        pytest.skip(str(error))


@asynccontextmanager
async def apart(directory, certificate, wire: Cable, **keys):
    """A lab whose server and client are on hosts of their own, and the server is running."""
    async with lab(directory, certificate) as place:
        place.prefixes = {"server": wire.a.prefix, "client": wire.b.prefix}
        place.host = wire.a.address
        yield place, await place.start_server(**KEEPALIVE | keys)


async def serve(place: Lab, host: Host, handler=echo) -> int:
    """A service on that host; its port."""
    with host.entered():
        sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    sock.listen()
    place.nursery.start_soon(trio.serve_listeners, handler, [trio.SocketListener(sock)])
    return sock.getsockname()[1]


async def visit(host: Host, address: Address) -> trio.SocketStream:
    with host.entered():
        sock = trio.socket.socket()
    await sock.connect((address.host, address.port))
    return trio.SocketStream(sock)


async def ask(host: Host, address: Address) -> bytes:
    async with await visit(host, address) as visitor:
        await visitor.send_all(b"hello")
        await visitor.send_eof()
        return await read_all(visitor)


@contextmanager
def timed(what: str, within: float):
    """Fail if the block takes longer; print how long it took (`pytest -rP` shows it)."""
    begin = trio.current_time()
    with trio.fail_after(within):
        yield
    print(f"{what} after {trio.current_time() - begin:.2f} s, allowed {within:.1f}")


async def is_noticed(server: Process, client: Process) -> None:
    """Both sides say that the link is dead, as soon as the keepalive allows."""
    with timed("noticed", INTERVAL + TIMEOUT + SLACK):
        line = await server.wait_for("Client disconnected")
        assert line["reason"] == "no sign of life"
        line = await client.wait_for("Connection lost")
        assert line["reason"] == "no sign of life"


async def is_back(wire: Cable, client: Process, *addresses: Address, within: float = BACK) -> None:
    """The client serves again, on the same ports; behind the last of them is an echo."""
    with timed("back", within):
        for address in addresses:
            assert await published(client) == address
        assert await ask(wire.a, addresses[-1]) == b"hello"


class Transfer:
    """A bulk transfer between a visitor and a service, and how each saw it end."""

    def __init__(self, enough: int = 4_000_000) -> None:
        self._enough = enough
        self._total = 0
        self.under_way = trio.Event()
        self.ends: dict[str, bool] = {}
        self.over = trio.Event()

    async def send(self, stream: trio.SocketStream) -> None:
        """Send until that fails."""
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(65536))
        self._end("sender", reset=True)

    async def receive(self, stream: trio.SocketStream) -> None:
        """Read until the end, whatever it is."""
        try:
            async for data in stream:
                self._total += len(data)
                if self._total > self._enough:
                    self.under_way.set()
            self._end("receiver", reset=False)
        except trio.BrokenResourceError:
            self._end("receiver", reset=True)

    def _end(self, side: str, *, reset: bool) -> None:
        self.ends[side] = reset
        self.under_way.set()  # nobody needs to wait any longer
        if len(self.ends) == 2:
            self.over.set()


@pytest.mark.parametrize("end", ["client's end", "server's end"])
async def test_an_idle_link_goes_silent(tmp_path, certificate, wire, end):
    host = wire.b if end == "client's end" else wire.a
    async with apart(tmp_path, certificate, wire) as (place, server):
        port = await serve(place, wire.b)
        client, [address] = await place.publish(
            {"local_port": port}, reconnect_delay=DELAY, **KEEPALIVE
        )
        async with await visit(wire.a, address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
            wire.down(host)
            await is_noticed(server, client)
            with wire.a.entered():
                assert is_free(address)
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()
        wire.up(host)
        await is_back(wire, client, address)


@pytest.mark.parametrize("direction", ["download", "upload"])
async def test_a_link_goes_silent_in_the_middle_of_a_transfer(
    tmp_path, certificate, wire, direction
):
    wire.shape(50_000_000)
    async with apart(tmp_path, certificate, wire) as (place, server):
        transfer = Transfer()
        local, remote = transfer.send, transfer.receive
        if direction == "upload":
            local, remote = remote, local
        ports = [await serve(place, wire.b, handler) for handler in (local, echo)]
        client, [bulk, address] = await place.publish(
            *({"local_port": port} for port in ports), reconnect_delay=DELAY, **KEEPALIVE
        )
        async with await visit(wire.a, bulk) as visitor:
            place.nursery.start_soon(remote, visitor)
            await transfer.under_way.wait()
            wire.down()
            await is_noticed(server, client)
            with wire.a.entered():
                assert is_free(bulk) and is_free(address)
            await transfer.over.wait()
        assert transfer.ends == {"sender": True, "receiver": True}, "a cut transfer looks whole"
        wire.up()
        await is_back(wire, client, bulk, address)


async def test_a_client_back_from_another_address_is_served_at_once(tmp_path, certificate, wire):
    """The server would notice by itself, but much later."""
    later = {"keepalive_interval": 30, "keepalive_timeout": 30}
    async with apart(tmp_path, certificate, wire, **later) as (place, server):
        port = await serve(place, wire.b)
        client, [address] = await place.publish(
            {"local_port": port}, reconnect_delay=DELAY, **KEEPALIVE
        )
        async with await visit(wire.a, address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
            wire.b.drop_addresses()
            wire.b.take_address("10.213.0.3")
            await client.wait_for("Connection lost")
            await is_back(wire, client, address)
            await server.wait_for("Session taken over")
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()


async def test_a_client_started_anew_elsewhere_takes_over(tmp_path, certificate, wire):
    """Nobody can know that the old one is gone: it is asked, and does not answer."""
    later = {"keepalive_interval": 30, "keepalive_timeout": 30}
    async with apart(tmp_path, certificate, wire, **later) as (place, server):
        port = await serve(place, wire.b)
        keys = {"reconnect_delay": DELAY, **KEEPALIVE}
        client, [address] = await place.publish({"local_port": port}, **keys)
        wire.b.drop_addresses()
        await client.kill()
        wire.b.take_address("10.213.0.3")
        proxy = {"local_port": port, "publish_port": address.port}
        client = await place.start_client(proxy, **keys)
        await client.wait_for("Connecting")
        await is_back(wire, client, address, within=limits.PROBE_LONGEST + BACK)
        assert "Refused" not in client.events()
        assert "Session taken over" in server.events()


@pytest.mark.parametrize("slow", ["from the start", *(["all at once"] if FULL else [])])
@pytest.mark.parametrize("direction", ["download", "upload", "both ways"])
@pytest.mark.timeout(300)
async def test_a_slow_link_is_not_a_dead_one(tmp_path, certificate, wire, direction, slow):
    """128 kbit/s, and two seconds of round trip when it is full, with the default keepalive.

    Four transfers at once: credit for each comes back only after eight seconds.
    """
    slowly = partial(wire.shape, 128_000, queue=1.0, burst=4096)
    if slow == "from the start":
        slowly()
    async with apart(tmp_path, certificate, wire, **DEFAULT_KEEPALIVE) as (place, server):
        down, up = (Transfer(enough=16_000 * (60 if FULL else 15)) for _ in range(2))
        ports = [await serve(place, wire.b, handler) for handler in (down.send, up.receive)]
        client, [source, sink] = await place.publish(*({"local_port": port} for port in ports))
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            visitors = [await visit(wire.a, bulk) for bulk in (source, sink) for _ in range(4)]
            for visitor in visitors:
                await stack.enter_async_context(visitor)
            slowly()
            if direction != "upload":
                for visitor in visitors[:4]:
                    nursery.start_soon(down.receive, visitor)
            if direction != "download":
                for visitor in visitors[4:]:
                    nursery.start_soon(up.send, visitor)
            with trio.fail_after(240 if FULL else 60):
                await (up if direction == "upload" else down).under_way.wait()
            nursery.cancel_scope.cancel()
        assert "Client disconnected" not in server.events(), server.lines
        assert "Connection lost" not in client.events(), client.lines
