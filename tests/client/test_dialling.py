"""A visitor's stream from its preamble to the local service, over a real link."""

import contextlib
import os
import socket
from contextlib import asynccontextmanager, contextmanager, nullcontext

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.rig import OWN, Accepting, make_contexts, socket_transports, tls_pair
from tunnel import limits
from tunnel.client import proxy as proxy_module
from tunnel.client.proxy import DiallingEndpoint, LocalProxy
from tunnel.client.settings import ProxySpec
from tunnel.eventlog import logged_events
from tunnel.events import EventStream, VisitorClosed
from tunnel.model import Address, ResetCode
from tunnel.net import dial as dial_module
from tunnel.net.link import Link
from tunnel.net.muxstream import MuxStream
from tunnel.protocol.preamble import build_preamble, proxy_v1, proxy_v2
from tunnel.yamux import Role

SOURCE, DESTINATION = Address("192.0.2.7", 5555), Address("198.51.100.1", 80)
PROXY_ID = 7


def preamble(proxy_id=PROXY_ID):
    return build_preamble(SOURCE, DESTINATION, proxy_id, b"12345678")


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    return make_contexts(tmp_path_factory.mktemp("certificate"))


class Visitor:
    """The server's end of one visitor's stream."""

    def __init__(self, stream):
        self.stream = stream

    async def reset_code(self):
        """How the stream ends; there must be no byte before."""
        with pytest.raises(trio.BrokenResourceError):
            assert await self.stream.receive_some() == b"nothing"
        return ResetCode.of(self.stream.endpoint.reset_code)


class Ends:
    def __init__(self, server, client, proxy):
        self.server = server
        self.client = client
        self.proxy = proxy

    async def visitor(self, *pieces):
        """A visitor who sends these pieces, each in a frame of its own."""
        stream = MuxStream.open(self.server)
        self.server.flush()
        for piece in pieces:
            await stream.send_all(piece)
            await wait_all_tasks_blocked()
        return Visitor(stream)


@contextmanager
def telling(records):
    """A stream of events that puts each `VisitorClosed` into a list, if there is one."""

    def put(event):
        if isinstance(event, VisitorClosed):
            records.append(event)

    events = EventStream()
    with nullcontext() if records is None else events.subscribed(put, visitors=True):
        yield events


@asynccontextmanager
async def ends(contexts, proxy, carrier=None, told_of=None):
    """A server's link, and a client's that publishes `proxy`."""
    client_tls, server_tls = await tls_pair(contexts, socket_transports)
    with telling(told_of) as events:

        def accept(link, stream_id):
            return DiallingEndpoint(link, stream_id, {PROXY_ID: proxy}, events)

        client = Link(client_tls, Role.CLIENT, OWN, accept, carrier=carrier)
        server = Link(server_tls, Role.SERVER, OWN, Accepting(), carrier=carrier)
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve, logged_events())
            for link in (client, server):
                nursery.start_soon(link.run)
                await link.running.wait()
            yield Ends(server, client, proxy)
            nursery.cancel_scope.cancel()
    assert proxy.counters.active == 0
    assert client.carrier.count == 0


class Service:
    """A local service that hands out its connections."""

    def __init__(self, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.listener = trio.socket.socket(family)
        self.address = address

    async def __aenter__(self):
        await self.listener.bind(self.address)
        self.listener.listen()
        return self

    async def __aexit__(self, *exc_info):
        self.listener.close()

    @property
    def port(self):
        return self.listener.getsockname()[1]

    async def connection(self):
        sock, _ = await self.listener.accept()
        return trio.SocketStream(sock)


def local(port, addr="127.0.0.1", **settings):
    return LocalProxy(ProxySpec("web", "*", 80, addr, port, **{"retries": 0} | settings))


async def exactly(stream, size):
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        assert piece
        data += piece
    return data


def dial_with(monkeypatch, dial):
    """Nothing can be begun at once; the task that tries again dials like this."""

    def nothing(host, port):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(proxy_module, "begin_connect", nothing)
    monkeypatch.setattr(proxy_module, "connect_address", dial)


async def test_the_preamble_in_single_bytes(contexts, carrier):
    async with Service() as service, ends(contexts, local(service.port), carrier) as both:
        pieces = [bytes([number]) for number in preamble() + b"hello"]
        visitor = await both.visitor(*pieces)
        async with await service.connection() as connection:
            assert await exactly(connection, 5) == b"hello"
            await connection.send_all(b"answer")
            assert await visitor.stream.receive_some() == b"answer"


@pytest.mark.parametrize("networks", [("198.51.100.0/24",), ("::/0",), ("192.0.2.8/31",)])
async def test_whom_the_server_should_have_turned_away(contexts, carrier, networks, caplog):
    """A server that does not know `allow_from` lets everybody in; the client does not."""
    async with Service() as service:
        proxy = local(service.port, allow_from=networks)
        async with ends(contexts, proxy, carrier) as both:
            for _ in range(3):
                visitor = await both.visitor(preamble() + b"hello")
                assert await visitor.reset_code() is ResetCode.NOT_ALLOWED
        assert proxy.counters.total == 0
    [line] = caplog.records
    assert line.getMessage() == "Server ignores allow_from"
    assert line.address == "192.0.2.7:5555"


async def test_whom_the_server_let_in_rightly(contexts, carrier):
    async with Service() as service:
        proxy = local(service.port, allow_from=("2001:db8::/32", "192.0.2.0/24"))
        assert proxy.request().allow_from == ("2001:db8::/32", "192.0.2.0/24")
        async with ends(contexts, proxy, carrier) as both:
            await both.visitor(preamble() + b"hello")
            async with await service.connection() as connection:
                assert await exactly(connection, 5) == b"hello"


async def test_what_comes_before_the_connection_waits_for_it(contexts, carrier, monkeypatch):
    may_dial = trio.Event()

    async def dial(host, port, connect=proxy_module.connect_address):
        await may_dial.wait()
        return await connect(host, port)

    dial_with(monkeypatch, dial)
    early = os.urandom(100_000)
    async with Service() as service, ends(contexts, local(service.port), carrier) as both:
        visitor = await both.visitor(preamble() + early[:5], early[5:])
        await visitor.stream.send_eof()
        await wait_all_tasks_blocked()
        may_dial.set()
        async with await service.connection() as connection:
            assert await exactly(connection, len(early)) == early
            assert await connection.receive_some() == b""
            await connection.send_all(b"late answer")
            await connection.send_eof()
            assert await visitor.stream.receive_some() == b"late answer"
            assert await visitor.stream.receive_some() == b""


async def test_the_window_bounds_what_waits_for_a_connection(contexts, monkeypatch):
    async def dial(host, port):
        await trio.sleep_forever()

    dial_with(monkeypatch, dial)
    async with ends(contexts, local(1)) as both:
        visitor = await both.visitor(preamble())
        sent = 0

        async def flood():
            nonlocal sent
            while True:
                await visitor.stream.send_all(bytes(4096))
                sent += 4096

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            before = -1
            while before != sent:
                before = sent
                await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        [endpoint] = both.client._endpoints.values()
        assert len(endpoint.parked) <= limits.INITIAL_WINDOW
        assert sent < limits.INITIAL_WINDOW + limits.STREAM_QUEUE + 8192


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        preamble()[:12] + b"\x20\x11" + preamble()[14:],
        preamble()[:14] + b"\xff\xff",
        preamble()[:-11],
    ],
    ids=["http", "local command", "64 KiB", "cut short"],
)
async def test_a_bad_preamble(contexts, sent):
    async with ends(contexts, local(1)) as both:
        visitor = await both.visitor(sent)
        await visitor.stream.send_eof()
        assert await visitor.reset_code() is ResetCode.BAD_PREAMBLE
        assert both.client.carrying


async def test_an_unknown_proxy_is_never_dialled(contexts):
    async with Service() as service, ends(contexts, local(service.port)) as both:
        visitor = await both.visitor(preamble(proxy_id=8) + b"hello")
        assert await visitor.reset_code() is ResetCode.UNKNOWN_PROXY
        assert both.proxy.counters.total == 0


async def test_a_visitor_who_goes_while_it_is_dialled_cancels_the_dial(contexts, monkeypatch):
    dialling, cancelled = trio.Event(), trio.Event()

    async def dial(host, port):
        dialling.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    dial_with(monkeypatch, dial)
    async with ends(contexts, local(1, retries=5)) as both:
        visitor = await both.visitor(preamble())
        await dialling.wait()
        visitor.stream.reset(ResetCode.VISITOR_RESET)
        await cancelled.wait()
        await wait_all_tasks_blocked()
        assert both.client.carrying
        assert both.client.stream_count == 0
        assert not both.proxy._nursery.child_tasks


@contextlib.contextmanager
def deaf_service():
    """A port that answers nobody: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as s:
        for _ in range(4):
            sock = s.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_visitor_who_goes_while_a_begun_dial_waits(contexts, monkeypatch):
    begun = []

    def begin(host, port):
        begun.append(dial_module.begin_connect(host, port))
        return begun[-1]

    monkeypatch.setattr(proxy_module, "begin_connect", begin)
    with deaf_service() as port:
        async with ends(contexts, local(port)) as both:
            visitor = await both.visitor(preamble())
            await wait_all_tasks_blocked()
            [(sock, connected)] = begun
            assert not connected
            assert sock.fileno() != -1
            visitor.stream.reset(ResetCode.VISITOR_RESET)
            await wait_all_tasks_blocked()
            assert sock.fileno() == -1
            assert not both.proxy._nursery.child_tasks


async def test_a_service_that_does_not_answer_at_once(contexts, carrier, monkeypatch):
    monkeypatch.setattr(dial_module, "_is_connected", lambda _: False)
    async with Service() as service, ends(contexts, local(service.port), carrier) as both:
        await both.visitor(preamble() + b"hello")
        async with await service.connection() as connection:
            assert await exactly(connection, 5) == b"hello"


async def test_a_service_beside_us_needs_no_task(contexts, carrier, monkeypatch):
    monkeypatch.setattr(proxy_module.LocalProxy, "_connect", None)
    async with Service() as service, ends(contexts, local(service.port), carrier) as both:
        await both.visitor(preamble() + b"hello")
        async with await service.connection() as connection:
            assert await exactly(connection, 5) == b"hello"


async def test_a_visitor_who_goes_in_the_moment_of_the_connection(contexts, carrier, monkeypatch):
    # Both become known in one turn of the event loop: the dial cannot be cancelled any more.
    one, other = socket.socketpair()
    other.setblocking(False)
    gone = trio.Event()

    async def dial(host, port):
        with trio.CancelScope(shield=True):
            await gone.wait()
        return one

    dial_with(monkeypatch, dial)
    with one, other:
        async with ends(contexts, local(1), carrier) as both:
            visitor = await both.visitor(preamble())
            visitor.stream.reset(ResetCode.VISITOR_RESET)
            await wait_all_tasks_blocked()
            gone.set()
            await wait_all_tasks_blocked()
            assert one.fileno() == -1
            assert both.client.carrier.count == 0
            assert both.proxy.counters.total == 0
            assert both.client.carrying


async def test_a_refusing_service_is_a_reset_before_any_byte(contexts, caplog):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and does not listen
        async with ends(contexts, local(reserved.getsockname()[1])) as both:
            for _ in range(3):
                visitor = await both.visitor(preamble() + b"hello")
                assert await visitor.reset_code() is ResetCode.LOCAL_REFUSED
    told = [r for r in caplog.records if r.getMessage() == "Local service unreachable"]
    assert len(told) == 1  # not once a visitor
    assert told[0].reason == "Connection refused"


async def test_a_service_that_comes_and_goes_is_not_a_line_each_time(caplog, autojump_clock):
    proxy = local(1)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, logged_events())
        for _ in range(5):
            proxy._on_unreachable(OSError(111, "Connection refused"))
            proxy._unreachable = False  # as if the next visitor were lucky
            await trio.sleep(limits.LOCAL_FAILURE_LOG_INTERVAL / 2)
        nursery.cancel_scope.cancel()
    assert len(caplog.records) == 3


class Tries:
    """A dial that fails until it does not, and notes when it was tried."""

    def __init__(self, monkeypatch, *failures):
        self.failures = list(failures)
        self.at = []
        dial_with(monkeypatch, self)

    async def __call__(self, _host, _port):
        self.at.append(trio.current_time())
        failure = self.failures.pop(0)
        if failure is None:
            await trio.sleep_forever()
        if isinstance(failure, OSError):
            raise failure
        return failure

    @property
    def pauses(self):
        return [later - sooner for sooner, later in zip(self.at, self.at[1:], strict=False)]


def refused_locally():
    return ConnectionRefusedError(111, "Connection refused")


async def test_retries_and_then_no(monkeypatch, autojump_clock):
    tries = Tries(monkeypatch, *(refused_locally() for _ in range(4)))
    proxy = local(1, retries=3, retry_delay=1.5)
    assert await proxy._dial_patiently() is ResetCode.LOCAL_REFUSED
    assert tries.pauses == pytest.approx([1.5] * 3)


async def test_a_service_that_starts_late_is_reached(monkeypatch, autojump_clock):
    one, other = socket.socketpair()
    with one, other:
        tries = Tries(monkeypatch, refused_locally(), refused_locally(), one)
        assert await local(1, retries=3, retry_delay=1.0)._dial_patiently() is one
        assert tries.pauses == pytest.approx([1.0, 1.0])


async def test_a_service_that_does_not_answer(monkeypatch, autojump_clock):
    Tries(monkeypatch, None, None)
    began = trio.current_time()
    assert await local(1, retries=1)._dial_patiently() is ResetCode.LOCAL_TIMEOUT
    assert trio.current_time() - began == pytest.approx(2 * limits.LOCAL_CONNECT_TIMEOUT + 1)


async def test_an_unreachable_service(monkeypatch, autojump_clock):
    Tries(monkeypatch, OSError(113, "No route to host"))
    assert await local(1)._dial_patiently() is ResetCode.LOCAL_UNREACHABLE


@pytest.mark.parametrize(
    ("version", "header"),
    [("v1", proxy_v1(SOURCE, DESTINATION)), ("v2", proxy_v2(SOURCE, DESTINATION))],
)
async def test_who_visits_is_the_first_that_the_service_hears(contexts, carrier, version, header):
    async with (
        Service() as service,
        ends(contexts, local(service.port, proxy_protocol=version), carrier) as both,
    ):
        await both.visitor(preamble() + b"hello")
        async with await service.connection() as connection:
            assert await exactly(connection, len(header) + 5) == header + b"hello"


async def test_a_unix_socket(contexts, carrier, tmp_path):
    path = str(tmp_path / "service")
    async with (
        Service(socket.AF_UNIX, path) as service,
        ends(contexts, local(0, f"unix:{path}"), carrier) as both,
    ):
        visitor = await both.visitor(preamble() + b"hello")
        async with await service.connection() as connection:
            assert await exactly(connection, 5) == b"hello"
            await connection.send_all(b"answer")
            await connection.send_eof()
            assert await visitor.stream.receive_some() == b"answer"
            assert await visitor.stream.receive_some() == b""
        assert both.proxy.target == f"unix:{path}"


async def test_a_unix_socket_that_is_not_there(contexts, tmp_path):
    async with ends(contexts, local(0, f"unix:{tmp_path}/nothing")) as both:
        visitor = await both.visitor(preamble())
        assert await visitor.reset_code() is ResetCode.LOCAL_UNREACHABLE


async def test_a_name(contexts, carrier):
    async with (
        Service() as service,
        ends(contexts, local(service.port, "localhost"), carrier) as both,
    ):
        await both.visitor(preamble() + b"hello")
        async with await service.connection() as connection:
            assert await exactly(connection, 5) == b"hello"


@pytest.mark.parametrize(("host", "asked"), [("127.0.0.1", 0), ("localhost", 1)])
async def test_only_a_service_that_may_vanish_is_asked_for_a_sign_of_life(
    contexts, carrier, monkeypatch, host, asked
):
    async with Service() as service, ends(contexts, local(service.port, host), carrier) as both:
        adopted = []
        really = both.client.carrier.adopt

        def adopt(sock, *args, **kwargs):
            adopted.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            really(sock, *args, **kwargs)

        monkeypatch.setattr(both.client.carrier, "adopt", adopt)
        await both.visitor(preamble() + b"hello")
        async with await service.connection() as connection:
            assert await exactly(connection, 5) == b"hello"
        assert adopted == [asked]


@pytest.mark.parametrize("name", ["a..b", "x" * 70])
async def test_a_name_that_cannot_be_looked_up(name):
    assert await local(80, name)._dial_patiently() is ResetCode.LOCAL_UNREACHABLE


async def test_a_visitor_who_comes_when_the_proxy_has_ended(contexts):
    async with Service() as service, ends(contexts, local(service.port)) as both:
        both.proxy._nursery, nursery = None, both.proxy._nursery
        visitor = await both.visitor(preamble())
        assert await visitor.reset_code() is ResetCode.CANCELLED
        both.proxy._nursery = nursery


# --- What is told of each visitor ----------------------------------------------------------------


def told(records):
    """How each visitor ended, and what of."""
    assert all(record.visitor == SOURCE for record in records)
    assert all(record.connection == b"12345678".hex() for record in records)
    return [(record.proxy, record.how) for record in records]


async def test_a_visitor_who_was_served_is_told_of_once(contexts, carrier):
    records = []
    async with (
        Service() as service,
        ends(contexts, local(service.port), carrier, records) as e,
    ):
        visitor = await e.visitor(preamble() + b"hello")
        async with await service.connection() as connection:
            assert await exactly(connection, 5) == b"hello"
            await connection.send_all(b"answer")
            await connection.send_eof()
            await visitor.stream.send_eof()
            assert await connection.receive_some() == b""
            assert await exactly(visitor.stream, 6) == b"answer"
        await wait_all_tasks_blocked()
        assert told(records) == [("web", "finished")]
        assert (records[0].sent, records[0].received) == (6, 5)
        assert (e.proxy.counters.read, e.proxy.counters.delivered) == (6, 5)
    assert len(records) == 1


@pytest.mark.parametrize(
    ("sent", "settings", "expected"),
    [
        (preamble(), {}, ("web", "local refused")),
        (preamble(), {"allow_from": ("203.0.113.0/24",)}, ("web", "not allowed")),
        (preamble(proxy_id=PROXY_ID + 1), {}, ("", "unknown proxy")),
    ],
)
async def test_a_visitor_who_was_not_served_is_told_of(contexts, sent, settings, expected):
    records = []
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and does not listen
        proxy = local(reserved.getsockname()[1], **settings)
        async with ends(contexts, proxy, told_of=records) as both:
            visitor = await both.visitor(sent)
            await visitor.reset_code()
    assert told(records) == [expected]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_visitor_who_goes_while_it_is_dialled_is_told_of(contexts, monkeypatch, lost):
    async def dial(host, port):
        await trio.sleep_forever()

    dial_with(monkeypatch, dial)
    records = []
    async with ends(contexts, local(1), told_of=records) as both:
        visitor = await both.visitor(preamble())
        await wait_all_tasks_blocked()
        assert records == []
        if lost:
            both.client.lose("for this test")
        else:
            visitor.stream.reset(ResetCode.VISITOR_RESET)
            both.server.flush()
        with trio.fail_after(20):
            while not records:
                await wait_all_tasks_blocked()
    assert told(records) == [("web", "link lost" if lost else "visitor reset")]
