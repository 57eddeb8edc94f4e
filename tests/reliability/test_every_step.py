"""A link that ends at any step, in any way, leaves nothing behind: everything is counted.

Server, clients, services, visitors and a proxy that is told how to misbehave live in one process,
on virtual time. What there is of each kind of thing (tasks by their names, descriptors, places in
every table of the server, live connections) is counted before a step and after it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import socket
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing

from tests.faults.proxy import Action, Fault, FaultProxy, Way
from tests.rig import echo, is_free, own_host, proxy, read_all, visit, world
from tunnel.client.dial import Dialler
from tunnel.client.run import run_client
from tunnel.client.session import hold_session
from tunnel.errors import LinkLost, Refused, RemoteProtocolError
from tunnel.limits import KIB
from tunnel.model import Address
from tunnel.net.transport import SocketTransport
from tunnel.protocol.keys import derive, generate_key
from tunnel.server.identity import Identity
from tunnel.views import ClientState

pytestmark = [pytest.mark.timeout(1800)]

KEYS = derive(generate_key(b"k" * 32))
#: On an address that no other test uses.
FIRST_PORT = 20001
#: Virtual seconds; a dead peer is noticed in 20.
PATIENCE = 120.0
#: Of the event loop.
MANY_TURNS = 100_000
#: How an attempt may end, and in no other way.
ENDS = (Refused, LinkLost, RemoteProtocolError, trio.BrokenResourceError, trio.TooSlowError)
ACTIONS = (Action.CUT, Action.RESET, Action.TRUNCATE, Action.STALL)


@pytest.fixture
def clock():
    """Virtual time that jumps when nothing has happened for a moment."""
    return trio.testing.MockClock(autojump_threshold=0.002)


# --- Counting -----------------------------------------------------------------------------------


def tasks() -> Counter[str]:
    """Every task of the event loop, by its name."""
    names: Counter[str] = Counter()
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        names[f"task {task.name}"] += 1
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return names


def descriptors() -> Counter[str]:
    """Every open file descriptor, by its kind."""
    kinds: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            kinds["descriptor " + os.readlink(f"/proc/self/fd/{number}").partition("[")[0]] += 1
    return kinds


def tables(server) -> Counter[str]:
    """How much there is in every table of the server that sessions and strangers get into."""
    strangers = server.strangers
    places = {
        "registry": server.registry,
        "strangers": strangers._waiting,
        "crowd": server.admission.networks,
    }
    sizes = Counter(
        {
            f"{place} {name}": len(table)
            for place, owner in places.items()
            for name, table in vars(owner).items()
            if isinstance(table, dict)
        }
    )
    sizes["strangers"] = len(strangers)
    sizes["networks with a session"] = len(strangers._penalties._living)
    sizes["living of them"] = sum(strangers._penalties._living.values())
    sizes["sessions"] = len(server.sessions)
    return sizes


async def objects() -> Counter[str]:
    """What the garbage collector knows of, by type."""
    await trio.sleep(2 * PATIENCE)  # Trio keeps what had a deadline until that has passed
    gc.collect()
    return Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.get_objects())


# --- The place ----------------------------------------------------------------------------------


class Place:
    """A server, the wire to it, services, and a client's proxies of three kinds."""

    def __init__(self, tunnel) -> None:
        self.tunnel = tunnel
        self.host = own_host()
        self.wire: FaultProxy
        self.identity: Identity
        self.proxies: Callable[[], tuple] = tuple
        self.attempts = 0
        #: What there is while nobody is connected.
        self.before: Counter[str]
        self.clients: list = []

    @property
    def server(self):
        return self.tunnel.server

    async def start_server(self, **policy) -> None:
        """A server, with one identity whose visitors are counted, behind the wire."""

        def make(rules):
            self.identity = Identity(KEYS.verifier, rules, "office", 1000, 1000)
            return self.identity

        self.handle = await self.tunnel.start_server(identities=(make,), **policy)
        self.wire.target = self.tunnel.address

    def client(self, count=3, **settings):
        """A client that goes over the wire; not started."""
        client = self.tunnel.client(*self.proxies()[:count], keys=KEYS, **settings)
        self.clients.append(client)
        return client

    def addresses(self, count=3) -> list[Address]:
        return [Address(self.host, FIRST_PORT + number) for number in range(count)]

    async def attempt(self, client, connected: Callable[[], None] = lambda: None) -> None:
        """One session of that client, to its end."""
        self.attempts += 1
        with trio.move_on_after(PATIENCE) as patience:
            try:
                await hold_session(client, self.attempts, connected)
            except* ENDS:
                pass
        assert not patience.cancelled_caught, "nothing ended it"

    def hit(self, action: Action, way: Way) -> None:
        """Do it to the connections that there are, now."""
        match action:
            case Action.CUT:
                self.wire.cut()
            case Action.RESET:
                self.wire.reset()
            case Action.STALL:
                self.wire.stall()
            case _:
                self.wire.at(action, way, 0)

    # --- Counting ----------------------------------------------------------------------------

    def inventory(self) -> Counter[str]:
        """Everything that is there now."""
        there = tasks() + descriptors() + tables(self.server)
        there["visitors in the room"] = self.identity.quota.taken
        for client in self.clients:
            for one in client.proxies:
                there["live visits at clients"] += one.counters.active
                there["published"] += len(one.addresses)
                there["services dialled for"] += one._nursery is not None
        there["taken ports"] = sum(not is_free(address) for address in self.addresses())
        return +there

    async def quiet(self, expected: Counter[str] | None = None, step: object = "") -> None:
        """Wait until there is what there was; what there is more, or less, is the failure."""
        expected = self.before if expected is None else expected
        serving = "task tunnel.server.run._serve"
        deadline = trio.current_time() + PATIENCE
        while (there := self.inventory()) != expected:
            if tasks()[serving] <= expected[serving]:
                self._forget_stalled()  # both ends have given them up
            if trio.current_time() > deadline:
                more, less = dict(there - expected), dict(expected - there)
                raise AssertionError(f"after {step}: more {more}, less {less}")
            await trio.sleep(0.5)

    def _forget_stalled(self) -> None:
        for connection in list(self.wire.connections):
            if not all(flowing.is_set() for flowing in connection._flowing.values()):
                connection.reset()


@asynccontextmanager
async def place(certificate, tmp_path, carrier=None, **policy):
    """A `Place` in which everything that is there without a client has been counted."""
    async with world(certificate, carrier) as tunnel:
        there = Place(tunnel)
        there.wire = FaultProxy(Address("127.0.0.1", 1))
        near = await tunnel.nursery.start(there.wire.run)
        tunnel.dial = Dialler((near,), tunnel.context, frozenset(), str, 10.0)
        service = await tunnel.start_service()
        path = tmp_path / "service"
        with socket.socket() as deaf, trio.socket.socket(socket.AF_UNIX) as local:
            deaf.bind(("127.0.0.1", 0))
            await local.bind(str(path))
            local.listen()
            tunnel.nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(local)])
            deaf_port = deaf.getsockname()[1]

            def proxies():
                """One is dialled at once, one by a task, one in vain, again and again."""
                return (
                    proxy(service, FIRST_PORT, "at-once", publish_addr=there.host),
                    proxy(
                        0,
                        FIRST_PORT + 1,
                        "by-a-task",
                        publish_addr=there.host,
                        local_addr=f"unix:{path}",
                    ),
                    proxy(
                        deaf_port,
                        FIRST_PORT + 2,
                        "in-vain",
                        publish_addr=there.host,
                        retries=2,
                        retry_delay=1.0,
                    ),
                )

            there.proxies = proxies
            await there.start_server(**policy)
            await trio.testing.wait_all_tasks_blocked()
            there.before = there.inventory()
            yield there


# --- The handshake, byte by byte ----------------------------------------------------------------


class Tap(SocketTransport):
    """Remembers what goes each way."""

    last: Tap

    def __init__(self, sock) -> None:
        super().__init__(sock)
        self.carried = {way: bytearray() for way in Way}
        Tap.last = self

    def _receive_nowait(self, buffer):
        size = super()._receive_nowait(buffer)
        self.carried[Way.DOWN] += buffer[:size]
        return size

    def send_nowait(self, parts):
        size = super().send_nowait(parts)
        self.carried[Way.UP] += b"".join(parts)[:size]
        return size


def record_ends(data: bytes) -> list[int]:
    """Where each TLS record ends: behind five bytes and a length (RFC 8446 section 5.1)."""
    ends = [0]
    while ends[-1] < len(data):
        header = ends[-1]
        ends.append(header + 5 + int.from_bytes(data[header + 3 : header + 5]))
    return ends[1:]


async def records(there, client, monkeypatch) -> dict[Way, list[int]]:
    """The records of a connection from the first byte until nothing is left to say."""
    with monkeypatch.context() as patch:
        patch.setattr("tunnel.client.dial.SocketTransport", Tap)
        async with trio.open_nursery() as nursery:
            connected = trio.Event()
            nursery.start_soon(there.attempt, client, connected.set)
            await connected.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            ends = {way: record_ends(bytes(data)) for way, data in Tap.last.carried.items()}
            there.wire.cut()
    await there.quiet()
    return ends


def around(ends: Iterable[int], chance: random.Random) -> list[int]:
    """Offsets at the end of each record, before it, in its header, and somewhere in it."""
    chosen, start = {0}, 0
    for end in ends:
        chosen |= {end, end - 1, start + 3, chance.randrange(start, end)}
        start = end
    return sorted(chosen)


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("action", ACTIONS)
async def test_at_every_byte_until_the_link_is_idle(
    certificate, tmp_path, action, way, times, chance, clock, monkeypatch
):
    async with place(certificate, tmp_path) as there:
        client = there.client()
        ends = await records(there, client, monkeypatch)
        assert len(ends[way]) >= 5
        every = range(ends[way][-1] + 1)
        for offset in times(every, around(ends[way], chance)):
            there.wire.planned = [Fault(action, way, offset)]
            await there.attempt(client)
            await there.quiet(step=(action, way, offset))
        print(f"{way.value}: {len(ends[way])} records, {ends[way][-1]} bytes")


# --- Ports being bound, a session that begins, streams that open --------------------------------


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens without (virtual) time passing."""
    turns = 0
    while not condition():
        turns += 1
        assert turns < MANY_TURNS
        await trio.lowlevel.checkpoint()


async def visitor(address: Address, size: int = 100) -> None:
    """Comes, says something, and listens until the end; whatever that is, is all right."""
    with trio.move_on_after(PATIENCE / 2):
        try:
            async with await visit(address) as stream:
                await stream.send_all(bytes(size))
                await read_all(stream)
        except (OSError, trio.BrokenResourceError):
            pass


@pytest.mark.parametrize("end", [*ACTIONS, "taken over", "cancelled"])
async def test_while_ports_are_bound(certificate, tmp_path, end, times, clock):
    """Also with visitors who come before the link runs."""
    ports = 40
    async with place(certificate, tmp_path) as there:
        own = [
            proxy(1, FIRST_PORT + number, f"p{number}", publish_addr=there.host)
            for number in range(ports)
        ]
        for bound in range(0, ports + 1, times(1, 8)):
            client = there.tunnel.client(*own, keys=KEYS)
            later = there.tunnel.client(*own, keys=KEYS, client_id=client.client_id)
            later.instance_id = client.instance_id
            async with trio.open_nursery() as nursery:
                nursery.start_soon(there.attempt, client)
                await until(lambda: there.server.registry._sessions)
                await until(lambda n=bound: len(there.server.registry._ports) >= n)
                for address in there.addresses(min(bound, 3)):
                    nursery.start_soon(visitor, address)
                if end == "cancelled":
                    nursery.cancel_scope.cancel()
                elif end == "taken over":
                    connected = trio.Event()
                    nursery.start_soon(there.attempt, later, connected.set)
                    await connected.wait()
                    assert len(there.server.registry._ports) == ports
                    there.wire.cut()
                else:
                    there.hit(end, Way.DOWN)
            await there.quiet(step=(end, bound))


@pytest.mark.parametrize("action", ACTIONS)
async def test_between_configured_and_the_first_stream(
    certificate, tmp_path, carrier, action, times, clock
):
    async with place(certificate, tmp_path, carrier) as there:
        client = there.client()
        for turns in range(times(60, 15)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(there.attempt, client)
                await until(lambda: there.server.sessions)
                for address in there.addresses():
                    nursery.start_soon(visitor, address)
                for _ in range(turns):  # so many turns of the event loop later
                    await trio.lowlevel.checkpoint()
                there.hit(action, Way.UP)
            await there.quiet(step=(action, turns))


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("action", ACTIONS)
async def test_with_fifty_streams_opening(
    certificate, tmp_path, carrier, action, way, times, chance, clock
):
    """A third of the services answers at once, a third is dialled by tasks, a third in vain."""
    async with place(certificate, tmp_path, carrier) as there:
        client = there.client()
        most = 0
        for _ in range(times(100, 5)):
            async with trio.open_nursery() as nursery:
                connected = trio.Event()
                nursery.start_soon(there.attempt, client, connected.set)
                await connected.wait()
                await trio.testing.wait_all_tasks_blocked()
                there.wire.at(action, way, chance.randrange(6000))
                for number in range(50):
                    nursery.start_soon(visitor, there.addresses()[number % 3], 100)
                await until(lambda: there.identity.quota.taken or not there.server.sessions)
                for _ in range(chance.randrange(30)):
                    most = max(most, there.identity.quota.taken)
                    await trio.lowlevel.checkpoint()
                there.hit(action, way)  # if it did not come to that byte
            await there.quiet(step=(action, way))
        print(f"{most} visitors at once")
        assert most


# --- A server that stops ------------------------------------------------------------------------


@pytest.mark.parametrize("action", [*ACTIONS, None])
async def test_while_the_server_drains(
    certificate, tmp_path, carrier, action, times, chance, clock
):
    """At a byte of what it says then, or a few turns later; a new server comes after it."""
    async with place(certificate, tmp_path, carrier) as there:
        client = there.client()
        for _ in range(times(100, 10)):
            async with trio.open_nursery() as nursery:
                connected = trio.Event()
                nursery.start_soon(there.attempt, client, connected.set)
                await connected.wait()
                for number in range(10):
                    nursery.start_soon(visitor, there.addresses()[number % 3])
                await until(lambda: there.identity.quota.taken == 10)
                there.handle.drain()
                if action is not None and chance.random() < 0.5:
                    there.wire.at(action, chance.choice(list(Way)), chance.randrange(200))
                for _ in range(chance.randrange(40)):
                    await trio.lowlevel.checkpoint()
                if action is not None:
                    there.hit(action, chance.choice(list(Way)))
            await until(lambda: not tasks()["task tunnel.server.run.run_server"])
            assert not +tables(there.server)
            await there.start_server()
            await there.quiet(step=action)


# --- Takeover -----------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["the same process", "another process", "without its state"])
@pytest.mark.parametrize("action", ACTIONS)
async def test_during_a_takeover(
    certificate, tmp_path, carrier, action, who, times, chance, clock, monkeypatch
):
    """A session whose link fell silent is in the way; the newcomer's link ends at some byte."""
    async with place(certificate, tmp_path, carrier) as there:
        former = there.client()
        ends = await records(there, former, monkeypatch)
        for turn in range(times(100, 10)):
            newcomer = there.client()
            if who != "without its state":
                newcomer.client_id = former.client_id
            if who == "the same process":
                newcomer.instance_id = former.instance_id
            way = chance.choice(list(Way))
            # Most of it is about what comes behind the proofs.
            offset = chance.randrange(ends[way][-1] // (1 + turn % 2), ends[way][-1] + 100)
            async with trio.open_nursery() as nursery:
                connected = trio.Event()
                nursery.start_soon(there.attempt, former, connected.set)
                await connected.wait()
                for address in there.addresses():
                    nursery.start_soon(visitor, address)
                await until(lambda: there.identity.quota.taken == 3)
                there.wire.stall()
                there.wire.planned = [Fault(action, way, offset)]
                nursery.start_soon(there.attempt, newcomer)
                if turn % 3 == 0:  # the former session's own end comes in between
                    await trio.sleep(chance.uniform(0, 6))
                    for connection in there.wire.connections[:1]:
                        connection.reset()
            there.clients.remove(newcomer)
            assert not any(one.addresses for one in newcomer.proxies)
            await there.quiet(step=(action, who, way, offset))


# --- A thousand random cycles -------------------------------------------------------------------


class Heard(logging.Handler):
    """Counts what is logged, and keeps tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.events: Counter[str] = Counter()
        self.tracebacks: list[str] = []

    def emit(self, record) -> None:
        self.events[record.getMessage()] += 1
        if record.exc_info:
            self.tracebacks.append(self.format(record))


@contextmanager
def listening(monkeypatch):
    """Hear what is logged, and let nobody else: pytest keeps it, which is growth of its own."""
    logger, handler = logging.getLogger("tunnel"), Heard()
    with monkeypatch.context() as patch:
        patch.setattr(logger, "propagate", False)
        patch.setattr(logger, "handlers", [handler])
        patch.setattr(logger, "level", logging.INFO)
        logger.manager._clear_cache()
        yield handler
    logger.manager._clear_cache()


class Cycle:
    """A client that comes back by itself, and everything that may happen to it."""

    def __init__(self, there: Place, chance: random.Random) -> None:
        self.there = there
        self.chance = chance
        self.scope: trio.CancelScope
        self.client_id = "c" * 32

    async def start_client(self) -> None:
        """Start it (again) and wait until it is connected."""
        self.there.clients.clear()
        client = self.there.client(client_id=self.client_id)
        self.scope = trio.CancelScope()

        async def run(*, task_status):
            with self.scope:
                await run_client(client, task_status=task_status)

        self.handle = await self.there.tunnel.nursery.start(run)
        await self.handle.state.wait_value(ClientState.CONNECTED)

    def now(self) -> None:
        """Something happens to the link, now."""
        self.there.hit(self.chance.choice(ACTIONS), self.chance.choice(list(Way)))

    def soon(self) -> None:
        """Something happens to it within some bytes, if they come."""
        action, way = self.chance.choice(ACTIONS), self.chance.choice(list(Way))
        self.there.wire.at(action, way, self.chance.randrange(1, 3000))
        self.there.tunnel.nursery.start_soon(visitor, self.there.addresses()[0], 3000)

    def again(self) -> None:
        """It is cut, and the next one does not get through its handshake."""
        action, way = self.chance.choice(ACTIONS), self.chance.choice(list(Way))
        self.there.wire.planned = [Fault(action, way, self.chance.randrange(1800))]
        self.there.wire.cut()

    def by_the_server(self) -> None:
        """The server ends the session, with a goodbye or without."""
        for session in list(self.there.server.sessions.values()):
            self.chance.choice([session.link.lose, session.link.end])("the test ends it")

    def killed(self) -> None:
        """The client ends, and a new one comes in its place."""
        self.scope.cancel()

    async def run(self) -> str:
        """Some visitors, and something that happens to the link once or twice."""
        things = (self.now, self.soon, self.again, self.by_the_server, self.killed)
        happened = [self.chance.choice(things) for _ in range(self.chance.randint(1, 2))]
        async with trio.open_nursery() as nursery:
            for _ in range(self.chance.randrange(8)):
                address = self.chance.choice(self.there.addresses())
                nursery.start_soon(visitor, address, self.chance.randrange(20000))
            for thing in happened:
                for _ in range(self.chance.randrange(100)):
                    await trio.lowlevel.checkpoint()
                thing()
            await trio.sleep(self.chance.choice([0, 0, 1, 30]))
            nursery.cancel_scope.cancel()  # those visitors who are still there go
        if self.scope.cancel_called:
            await self.start_client()
        await self.handle.state.wait_value(ClientState.CONNECTED)
        return "; ".join(thing.__doc__ for thing in happened)


async def test_a_thousand_random_cycles(
    certificate, tmp_path, carrier, times, chance, clock, monkeypatch
):
    cycles, warming = times(1000, 40), times(200, 15)
    with listening(monkeypatch) as heard:
        async with place(certificate, tmp_path, carrier) as there:
            more, size = await many_cycles(there, chance, warming, cycles)
    print(
        f"{cycles} cycles; {sum(more.values())} objects more: {more.most_common(8)}; {size} bytes"
    )
    print(dict(heard.events))
    assert not heard.tracebacks
    assert not {name: count for name, count in more.items() if name.startswith("tunnel.")}
    # Besides there are the caches of Python, and what varies from moment to moment.
    assert not {name: count for name, count in more.items() if count > 40 + cycles / 10}
    assert size < 256 * KIB + cycles * 200


async def many_cycles(there, chance, warming, cycles):
    """Cycles; which objects, and how many bytes, there are more than after the first of them."""
    cycle = Cycle(there, chance)
    await cycle.start_client()
    await trio.testing.wait_all_tasks_blocked()
    connected = there.inventory()
    for number in range(warming + cycles):
        if number == warming:
            tracemalloc.start()
            before = await objects()
            size = tracemalloc.get_traced_memory()[0]
        what = await cycle.run()
        await there.quiet(connected, step=(number, what))
    more = await objects() - before
    size = tracemalloc.get_traced_memory()[0] - size
    tracemalloc.stop()
    cycle.scope.cancel()
    await there.quiet(step="the end")
    return more, size
