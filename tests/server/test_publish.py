"""From what a client asks to what is bound, and every reason why not."""

import errno
import logging
import os
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rig import is_free
from tunnel.eventlog import logged_events
from tunnel.model import Address, PortRange, RejectionCode
from tunnel.net.listen import open_listeners
from tunnel.protocol.messages import Bound, ProxyRequest, Rejected
from tunnel.server import entry
from tunnel.server.admission import Admission, Quota
from tunnel.server.directory import Directory
from tunnel.server.policy import Policy
from tunnel.server.proxies import Proxies, in_order, serve_proxy
from tunnel.server.registry import Owner, Registration, Registry
from tunnel.server.rules import Rules
from tunnel.stats import Reason

EVERY_PORT = (PortRange(1, 65535),)


def wanted(*asked, host="127.0.0.1", preferred=0):
    """Requests for these ports, or (host, port) pairs."""
    pairs = [(host, ask) if isinstance(ask, int) else ask for ask in asked]
    return [
        ProxyRequest(f"proxy {number}", host, port, preferred, 80)
        for number, (host, port) in enumerate(pairs)
    ]


class Observed(Registration):
    """A registration with room for what a test wants to know: what it was asked, and told."""


class Publishing:
    """The proxies of a session, whose link never carries anything, and what its client is told."""

    def __init__(self, registry, rules, registration, ports):
        self.registration, self.registry, self.ports = registration, registry, ports
        #: What the client is told later.
        self.told, self.news = [], trio.Event()
        quota, link = Quota(None, Reason.CLIENT_FULL), SimpleNamespace(running=trio.Event())
        self.proxies = Proxies(
            registration,
            rules,
            quota,
            registry,
            Directory(),
            Admission(Policy()),
            logged_events(),
            link,
            self._say,
        )

    def _say(self, notice):
        self.told.append(notice)
        self.news.set()

    async def publish_all(self, requests):
        self.proxies.request(requests)
        for proxy in in_order(self.proxies):
            await self.ports.start(serve_proxy, proxy, self.proxies)
        return self.proxies.answers()


@asynccontextmanager
async def session(registry=None, *, rules=None, name="tests", identity="key"):
    """A `Publishing`; its ports are free when the block ends."""
    owner = Owner(identity, name)
    async with trio.open_nursery() as nursery:

        def evict(reason):
            registration.reasons.append(reason)
            nursery.cancel_scope.cancel()

        async def probe():
            registration.probes += 1
            await trio.lowlevel.checkpoint()
            return registration.alive

        registration = Observed(owner, "process", 1, name, Address("192.0.2.7", 4711), evict, probe)
        registration.probes, registration.alive, registration.reasons = 0, True, []
        rules = rules or Rules(EVERY_PORT, frozenset())
        try:
            yield Publishing(registry or Registry(), rules, registration, nursery)
        finally:
            nursery.cancel_scope.cancel()


@pytest.fixture
def foreign():
    """A port that a program outside the tunnel holds."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def free_port():
    """A port that nobody else asks the system for: it is reserved by being bound, not listening."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def summary(answers):
    return [answer.code if isinstance(answer, Rejected) else "bound" for answer in answers]


# --- Rules ------------------------------------------------------------------------------------


async def test_bound_means_bound(free_port):
    async with session() as publisher:
        [answer] = await publisher.publish_all(wanted(free_port))
        assert answer == Bound(0, (Address("127.0.0.1", free_port),))
        assert not is_free(answer.addresses[0])
        assert publisher.registry.claimant("127.0.0.1", free_port) is publisher.registration
    assert is_free(answer.addresses[0])
    assert publisher.registry._ports == {}


async def test_a_port_of_the_server_itself_is_reserved():
    async with session(rules=Rules(EVERY_PORT, frozenset({8443}))) as publisher:
        [answer] = await publisher.publish_all(wanted(8443, host="127.0.0.2"))
    assert answer.code is RejectionCode.RESERVED
    assert answer.text == "the server itself uses port 8443"


async def test_a_port_that_the_server_does_not_allow():
    rules = Rules((PortRange(7000, 7010), PortRange(9000, 9000)), frozenset())
    async with session(rules=rules) as publisher:
        answers = await publisher.publish_all(wanted(7011, 8999, 22))
    assert summary(answers) == [RejectionCode.NOT_ALLOWED] * 3
    assert answers[0].text == "the server allows ports 7000-7010, 9000, not 7011"


@pytest.mark.parametrize("port", [0, 7001])
async def test_an_address_that_the_server_does_not_allow(port):
    rules = Rules(EVERY_PORT, frozenset(), ("192.0.2.1", "::"))
    async with session(rules=rules) as publisher:
        answers = await publisher.publish_all(wanted(("127.0.0.1", port), ("*", port)))
    assert summary(answers) == [RejectionCode.NOT_ALLOWED] * 2
    assert answers[1].text == "the server allows publish_addr 192.0.2.1, ::, not *"


async def test_what_the_server_itself_uses_is_said_first():
    rules = Rules((), frozenset({80}), ("192.0.2.1",))
    async with session(rules=rules) as publisher:
        answers = await publisher.publish_all(wanted(80, 81))
    assert summary(answers) == [RejectionCode.RESERVED, RejectionCode.NOT_ALLOWED]
    assert answers[1].text.startswith("the server allows ports ")


async def test_more_proxies_than_the_identity_may_have(free_port, autojump_clock):
    """What is beyond is not bound, and is as soon as there is a place."""
    registry = Registry()
    async with session(registry) as holder, session(registry, name="other") as publisher:
        for registration in (holder.registration, publisher.registration):
            registration.max_proxies = 1
        [answer] = await holder.publish_all(wanted(0))
        assert isinstance(answer, Bound)
        [answer] = await publisher.publish_all(wanted(free_port))
        assert (answer.code, answer.code.passes) == (RejectionCode.LIMIT, True)
        assert is_free(Address("127.0.0.1", free_port))
        assert holder.registration.probes == 1
        await trio.sleep(10)
        assert publisher.told == []
        holder.ports.cancel_scope.cancel()
        await publisher.news.wait()
        assert publisher.told == [Bound(0, (Address("127.0.0.1", free_port),))]


async def test_of_other_identities_nobody_is_asked_for_a_place(autojump_clock):
    registry = Registry()
    async with (
        session(registry, identity="another key") as holder,
        session(registry) as publisher,
    ):
        publisher.registration.max_proxies = 1
        answers = await holder.publish_all(wanted(0, 0))
        answers = await publisher.publish_all(wanted(0, 0))
        assert summary(answers) == ["bound", RejectionCode.LIMIT]
        assert holder.registration.probes == publisher.registration.probes == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("*", "127.0.0.1"),
        ("127.0.0.1", "*"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "0:0::1"),
    ],
)
async def test_the_same_port_twice_in_one_client(free_port, first, second, monkeypatch):
    monkeypatch.setattr(
        entry, "open_listeners", lambda _host, port: open_listeners("127.0.0.1", port)
    )
    async with session() as publisher:
        answers = await publisher.publish_all(wanted((first, free_port), (second, free_port)))
    assert summary(answers) == ["bound", RejectionCode.DUPLICATE]
    assert answers[1].text == f"another of your proxies has port {free_port}"


async def test_the_same_port_on_two_addresses_is_fine(free_port):
    async with session() as publisher:
        answers = await publisher.publish_all(
            wanted(("127.0.0.1", free_port), ("127.0.0.2", free_port))
        )
        assert summary(answers) == ["bound", "bound"]


async def test_a_rejected_proxy_does_not_stop_the_others(free_port, foreign, caplog):
    caplog.set_level(logging.INFO)
    rules = Rules((PortRange(1024, 65535),), frozenset({8443}))
    async with session(rules=rules) as publisher:
        answers = await publisher.publish_all(wanted(8443, foreign, 22, free_port, free_port, 0))
        assert summary(answers) == [
            RejectionCode.RESERVED,
            RejectionCode.IN_USE,
            RejectionCode.NOT_ALLOWED,
            "bound",
            RejectionCode.DUPLICATE,
            "bound",
        ]
    assert [answer.proxy_id for answer in answers] == list(range(6))
    lines = [(record.getMessage(), record.proxy) for record in caplog.records]
    rejected = [proxy for event, proxy in lines if event == "Proxy rejected"]
    assert rejected == [f"proxy {number}" for number in (0, 1, 2, 4)]
    assert sum(event == "Proxy listening" for event, _ in lines) == 2


# --- What the system says ---------------------------------------------------------------------


async def test_a_port_of_a_foreign_program(foreign):
    async with session() as publisher:
        [answer] = await publisher.publish_all(wanted(foreign))
    assert answer.code is RejectionCode.IN_USE
    assert answer.text == f"a program outside the tunnel uses port {foreign}"


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ("key", "client laptop at 192.0.2.7 has port {}"),
        ("another key", "another client has port {}"),
    ],
)
async def test_whose_port_it_is_is_told_only_to_the_same_identity(free_port, identity, text):
    registry = Registry()
    async with (
        session(registry, name="laptop") as first,
        session(registry, name="phone", identity=identity) as second,
    ):
        await first.publish_all(wanted(free_port))
        [answer] = await second.publish_all(wanted(free_port))
        assert answer.code is RejectionCode.IN_USE
        assert answer.text == text.format(free_port)


async def hold(registry, identity, ports, *, alive, task_status):
    """A session that has these ports, until it is evicted."""
    async with session(registry, name="ghost", identity=identity) as publisher:
        publisher.registration.alive = alive
        await publisher.publish_all(wanted(*ports))
        task_status.started(publisher.registration)
        await trio.sleep_forever()


@asynccontextmanager
async def held(registry, identity, ports, *, alive):
    """The registration of a session that has these ports, and sets `gone` as the server does."""
    async with trio.open_nursery() as nursery:

        async def life(*, task_status):
            try:
                await hold(registry, identity, ports, alive=alive, task_status=task_status)
            finally:
                registrations[0].gone.set()

        registrations = []
        registrations.append(await nursery.start(life))
        yield registrations[0]
        nursery.cancel_scope.cancel()


async def test_a_silent_session_with_the_same_key_gives_up_its_ports(free_port):
    registry = Registry()
    async with held(registry, "key", [free_port], alive=False) as ghost:
        async with session(registry) as publisher:
            [answer] = await publisher.publish_all(wanted(free_port))
            assert answer == Bound(0, (Address("127.0.0.1", free_port),))
            assert len(ghost.reasons) == ghost.probes == 1


async def test_a_living_session_keeps_its_ports_and_is_asked_once(free_port):
    registry = Registry()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        ports = [free_port, sock.getsockname()[1]]
        async with held(registry, "key", ports, alive=True) as holder, session(registry) as second:
            answers = await second.publish_all(wanted(*ports))
            assert summary(answers) == [RejectionCode.IN_USE] * 2
            assert (holder.probes, holder.reasons) == (1, [])


async def test_a_silent_session_of_another_identity_is_left_alone(free_port):
    registry = Registry()
    async with held(registry, "another key", [free_port], alive=False) as holder:
        async with session(registry) as publisher:
            [answer] = await publisher.publish_all(wanted(free_port))
            assert answer.code is RejectionCode.IN_USE
            assert (holder.probes, holder.reasons) == (0, [])


@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        (errno.EACCES, RejectionCode.PERMISSION, "does not let it bind port 80"),
        (errno.EPERM, RejectionCode.PERMISSION, "does not let it bind port 80"),
        (errno.EADDRNOTAVAIL, RejectionCode.BAD_ADDRESS, "has no address 192.0.2.1"),
        (errno.EINVAL, RejectionCode.BAD_ADDRESS, "has no address 192.0.2.1"),
        (errno.EMFILE, RejectionCode.INTERNAL, "Too many open files"),
    ],
)
async def test_what_else_the_system_may_say(monkeypatch, number, code, text):
    def refuse(host, port):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(entry, "open_listeners", refuse)
    async with session() as publisher:
        [answer] = await publisher.publish_all(wanted(80, host="192.0.2.1"))
    assert answer.code is code
    assert text in answer.text
    assert answer.code.passes == (code is RejectionCode.INTERNAL)


async def test_an_address_that_the_machine_does_not_have(free_port):
    async with session() as publisher:
        [answer] = await publisher.publish_all(wanted(free_port, host="192.0.2.1"))
    assert answer.code is RejectionCode.BAD_ADDRESS


# --- Any port ---------------------------------------------------------------------------------


async def test_any_port_is_the_former_one_if_it_is_free(free_port, foreign):
    async with session() as publisher:
        [former] = await publisher.publish_all(wanted(0, preferred=free_port))
        assert former.addresses == (Address("127.0.0.1", free_port),)
    async with session() as publisher:
        [another] = await publisher.publish_all(wanted(0, preferred=foreign))
        assert another.addresses[0].port != foreign


async def test_any_port_is_one_of_those_that_are_allowed(free_port, foreign):
    ports = (PortRange(foreign, foreign), PortRange(free_port, free_port))
    for preferred in (0, foreign, 22):
        async with session(rules=Rules(ports, frozenset())) as publisher:
            [answer] = await publisher.publish_all(wanted(0, preferred=preferred))
            assert answer.addresses == (Address("127.0.0.1", free_port),)


async def test_any_port_takes_none_that_another_proxy_of_the_client_asks_for(free_port):
    async with session() as publisher:
        answers = await publisher.publish_all(wanted(0, free_port, preferred=free_port))
    assert summary(answers) == ["bound", "bound"]
    assert [answer.proxy_id for answer in answers] == [0, 1]
    assert answers[1].addresses[0].port == free_port


async def test_no_port_left(foreign):
    async with session(rules=Rules((PortRange(foreign, foreign),), frozenset())) as publisher:
        [answer] = await publisher.publish_all(wanted(0))
    assert answer.code is RejectionCode.IN_USE
    assert answer.text == "no port that clients may publish is free"


async def test_waiting_for_any_port_never_takes_one_that_is_not_allowed(
    monkeypatch, autojump_clock
):
    tried = []

    def busy(_host, port):
        tried.append(port)
        raise OSError(errno.EADDRINUSE, "busy")

    monkeypatch.setattr(entry, "open_listeners", busy)
    async with session(rules=Rules((PortRange(700, 702),), frozenset({701}))) as publisher:
        await publisher.publish_all(wanted(0))
        await trio.sleep(60)
    assert len(tried) > 4
    assert set(tried) == {700, 702}


def test_candidates_in_order():
    wide = Rules(EVERY_PORT, frozenset({8443}))
    assert list(wide.candidates(0)) == [0]
    assert list(wide.candidates(5000)) == [5000, 0]
    assert list(wide.candidates(8443)) == [0]
    narrow = Rules((PortRange(10, 12), PortRange(20, 20)), frozenset({11}))
    assert sorted(narrow.candidates(0)) == [10, 12, 20]
    assert sorted(narrow.candidates(5000)) == [10, 12, 20]
    first, *rest = narrow.candidates(12)
    assert first == 12
    assert set(rest) >= {10, 20}
    assert list(Rules((PortRange(11, 11),), frozenset({11})).candidates(0)) == []


def test_the_system_picks_only_where_it_cannot_pick_what_is_not_allowed():
    gap = Rules((PortRange(1, 40_000), PortRange(50_000, 65535)), frozenset())
    assert 0 not in gap.candidates(0)
    assert all(map(gap.allows, gap.candidates(0)))
    together = Rules((PortRange(40_001, 65535), PortRange(1024, 40_000)), frozenset())
    assert list(together.candidates(0)) == [0]


async def test_a_port_that_the_system_picks_is_looked_at(monkeypatch, free_port, foreign):
    """It may pick one that is reserved, on an address that the server does not use."""
    picked = iter([free_port, 0])
    monkeypatch.setattr(
        entry, "open_listeners", lambda host, _port: open_listeners(host, next(picked))
    )
    rules = Rules(EVERY_PORT, frozenset({free_port}))
    monkeypatch.setattr(Rules, "candidates", lambda *_: iter([0, 0]))
    async with session(rules=rules) as publisher:
        [answer] = await publisher.publish_all(wanted(0))
        assert answer.addresses[0].port != free_port
        assert is_free(Address("127.0.0.1", free_port))


def test_candidates_are_few_however_many_ports_are_allowed():
    rules = Rules((PortRange(1024, 30000),), frozenset())
    candidates = list(rules.candidates(0))
    assert len(candidates) == len(set(candidates)) == 150
    assert all(map(rules.allows, candidates))


# --- Later ------------------------------------------------------------------------------------


async def test_a_busy_port_is_bound_at_once_when_the_session_that_holds_it_ends(
    free_port, autojump_clock
):
    registry = Registry()
    async with session(registry, name="second") as second:
        async with session(registry, name="first") as first:
            await first.publish_all(wanted(free_port))
            [answer] = await second.publish_all(wanted(free_port))
            assert answer.code.passes
            await wait_all_tasks_blocked()
            began = trio.current_time()
        await wait_all_tasks_blocked()
        assert second.told == [Bound(0, (Address("127.0.0.1", free_port),))]
        assert trio.current_time() == began
        assert registry.claimant("127.0.0.1", free_port) is second.registration
    assert registry._ports == {}
    assert len(registry.freed) == 0


async def test_a_foreign_port_is_tried_again_after_two_seconds_doubling_to_a_minute(
    monkeypatch, autojump_clock
):
    tried = []

    def busy(host, port):
        tried.append(trio.current_time() - began)
        if len(tried) < 10:
            raise OSError(errno.EADDRINUSE, "busy")
        return open_listeners(host, 0)

    monkeypatch.setattr(entry, "open_listeners", busy)
    began = trio.current_time()
    async with session() as publisher:
        await publisher.publish_all(wanted(80))
        await publisher.news.wait()
    pauses = [later - sooner for sooner, later in zip([0, *tried], tried, strict=False)]
    assert pauses == pytest.approx([0, 2, 4, 8, 16, 32, 60, 60, 60, 60])


async def test_a_session_that_ends_while_it_waits_for_a_port_leaves_nothing(foreign):
    registry = Registry()
    async with session(registry) as publisher:
        await publisher.publish_all(wanted(foreign))
        await wait_all_tasks_blocked()
        assert len(registry.freed) == 1
    assert len(registry.freed) == 0
    assert registry._ports == {}
