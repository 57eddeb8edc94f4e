"""Binding one address or all of them, and accepting when descriptors run out."""

import errno
import itertools
import logging
import os
import socket

import pytest
import trio
import trio.testing

from tests.needs import needs_ipv6
from tunnel import limits
from tunnel.net import listen
from tunnel.net.listen import (
    Shortage,
    accept_burst,
    close_all,
    open_listeners,
    wait_connection,
)
from tunnel.net.transport import own_address, peer_address

BOTH_FAMILIES = pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]
)


def ports(listeners):
    return [listener.getsockname()[1] for listener in listeners]


@pytest.fixture
def opened():
    """Listeners to be closed in the end."""
    listeners = []
    yield listeners
    for listener in listeners:
        listener.close()


@needs_ipv6
def test_every_address_is_one_port_for_both_families(opened):
    opened += open_listeners("*", 0)
    assert [listener.family for listener in opened] == [socket.AF_INET, socket.AF_INET6]
    assert len(set(ports(opened))) == 1
    assert all(not listener.getblocking() for listener in opened)
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, ports(opened)[0])).close()


@BOTH_FAMILIES
def test_one_address(opened, host):
    opened += open_listeners(host, 0)
    [port] = ports(opened)
    assert port > 0
    socket.create_connection((host, port)).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "*"])
def test_a_port_in_use(opened, host):
    opened += open_listeners("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use") as caught:
        open_listeners(host, ports(opened)[0])
    assert caught.value.errno == errno.EADDRINUSE


@needs_ipv6
async def test_a_port_in_use_on_one_family_only_is_in_use(opened):
    opened += open_listeners("::1", 0)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="in use"):
        open_listeners("*", ports(opened)[0])
    assert len(os.listdir("/proc/self/fd")) == before


async def test_any_port_is_free_on_both_families(opened, monkeypatch):
    """The port that IPv4 gets may be taken on IPv6: then another is tried."""
    tried = []

    def unbound_once(family, really=listen._unbound):
        if family == socket.AF_INET6 and len(tried) < 3:
            tried.append(family)
            raise OSError(errno.EADDRINUSE, "in use")
        return really(family)

    monkeypatch.setattr(listen, "_unbound", unbound_once)
    opened += open_listeners("*", 0)
    assert len(tried) == 3
    assert len(set(ports(opened))) == 1


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize(
    ("missing", "left"), [(socket.AF_INET6, socket.AF_INET), (socket.AF_INET, socket.AF_INET6)]
)
def test_a_machine_with_one_family(opened, monkeypatch, number, missing, left):
    """Some make no socket of the other family, some make one that can be bound to no address."""

    class Unbindable(socket.socket):
        def bind(self, _address):
            raise OSError(number, os.strerror(number))

    def unbound(family, really=listen._unbound):
        if family != missing:
            return really(family)
        if number == errno.EAFNOSUPPORT:
            raise OSError(number, os.strerror(number))
        return Unbindable(family)

    monkeypatch.setattr(listen, "_unbound", unbound)
    opened += open_listeners("*", 0)
    assert [listener.family for listener in opened] == [left]
    assert ports(opened)[0] > 0


def test_a_machine_with_none(monkeypatch):
    def unbound(family):
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    monkeypatch.setattr(listen, "_unbound", unbound)
    with pytest.raises(OSError, match="no such family"):
        open_listeners("*", 0)


def test_an_address_that_is_not_here():
    with pytest.raises(OSError, match="assign") as caught:
        open_listeners("192.0.2.1", 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_port_can_be_bound_again_at_once(opened):
    [first] = open_listeners("127.0.0.1", 0)
    port = ports([first])[0]
    client = socket.create_connection(("127.0.0.1", port))
    server, _ = first.accept()
    server.close()  # this end closes first, and keeps the port in TIME_WAIT
    client.close()
    first.close()
    opened += open_listeners("127.0.0.1", port)


async def test_whoever_waits_for_a_closed_listener_is_told(nursery):
    listeners = open_listeners("127.0.0.1", 0)
    closed = []

    async def wait():
        with pytest.raises(trio.ClosedResourceError):
            await wait_connection(listeners[0])
        closed.append(True)

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        close_all(listeners)
        close_all(listeners)  # twice does no harm
    assert closed == [True]


# --- Accepting --------------------------------------------------------------------------------


class Listener:
    """Gives what it is told to, instead of connections from the kernel."""

    def __init__(self, *things):
        self.things = list(things)

    def accept(self):
        thing = self.things.pop(0) if self.things else BlockingIOError()
        if isinstance(thing, Exception):
            raise thing
        return thing, ("192.0.2.7", 1)


@pytest.fixture
def sockets():
    made = [socket.socket() for _ in range(70)]
    yield made
    for sock in made:
        sock.close()


def test_a_burst_takes_what_waits(sockets):
    accepted = [sock for sock, _ in accept_burst(Listener(*sockets[:3]))]
    assert accepted == sockets[:3]
    assert all(not sock.getblocking() for sock in accepted)
    assert list(accept_burst(Listener())) == []


def test_what_is_accepted_delays_nothing_and_is_asked_for_a_sign_of_life():
    [listener] = open_listeners("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        [(accepted, _)] = accept_burst(listener)
        with accepted:
            assert not accepted.getblocking()
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert idle == limits.TCP_KEEPALIVE_IDLE


def test_a_burst_has_an_end(sockets):
    listener = Listener(*sockets)
    assert len(list(accept_burst(listener))) == limits.ACCEPT_BURST
    assert len(listener.things) == len(sockets) - limits.ACCEPT_BURST


def test_one_who_went_before_it_was_accepted_does_not_stop_the_others(sockets):
    gone = OSError(errno.ECONNABORTED, "gone")
    accepted = accept_burst(Listener(sockets[0], gone, sockets[1]))
    assert [sock for sock, _ in accepted] == sockets[:2]


@BOTH_FAMILIES
def test_whoever_is_accepted_is_known_by_his_address(host):
    [listener] = open_listeners(host, 0)
    with listener, socket.create_connection(listener.getsockname()[:2]) as visitor:
        [(accepted, address)] = accept_burst(listener)
        with accepted:
            assert address == own_address(visitor) == peer_address(accepted)


def test_an_ipv4_visitor_of_an_ipv6_socket_is_known_by_his_ipv4_address():
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            [(accepted, address)] = itertools.islice(accept_burst(listener), 1)
            with accepted:
                assert address == own_address(visitor)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get
)
def test_exhaustion_is_raised_after_those_who_came_in(sockets, number):
    accepted = []
    with pytest.raises(OSError, match="none left"):
        listener = Listener(sockets[0], OSError(number, "none left"), sockets[1])
        for sock, _ in accept_burst(listener):
            accepted.append(sock)  # what came before the error counts
    assert accepted == sockets[:1]


ERROR = OSError(errno.EMFILE, "Too many open files")


async def test_a_shortage_is_told_once_in_a_while(caplog, autojump_clock):
    shortage = Shortage()
    began = trio.current_time()
    for _ in range(10):
        await shortage.wait(ERROR, proxy="web")
    assert trio.current_time() - began == pytest.approx(10 * limits.ACCEPT_PAUSE)
    shortage.over()
    await shortage.wait(ERROR, proxy="web")
    [line] = caplog.records
    assert (line.levelno, line.getMessage()) == (logging.WARNING, "Cannot accept")
    assert (line.proxy, line.error) == ("web", "Too many open files")
    await trio.sleep(limits.SHORTAGE_REMINDER)
    await shortage.wait(ERROR)
    assert len(caplog.records) == 2


class Door:
    """Some who accept, while there are descriptors."""

    def __init__(self, nursery, count):
        self.free = 0
        self.tried = []
        self.served = []
        self.shortage = Shortage()
        self.scopes = [trio.CancelScope() for _ in range(count)]
        for number in range(count):
            nursery.start_soon(self._accept, number)

    async def _accept(self, number):
        with self.scopes[number]:
            while not self.free:
                self.tried.append(number)
                await self.shortage.wait(ERROR)
                await trio.lowlevel.checkpoint()  # as whoever waits for a connection
            self.free -= 1
            self.served.append(number)
            self.shortage.over()


async def test_who_shares_a_shortage_takes_turns(nursery, autojump_clock):
    door = Door(nursery, 50)
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(door.tried) == list(range(50))
    door.tried.clear()
    await trio.sleep(120.5 * limits.ACCEPT_PAUSE)
    assert len(door.tried) <= 2 * 121  # one or two each time, and not all fifty
    assert set(door.tried) == set(range(50))
    nursery.cancel_scope.cancel()


async def test_when_there_are_descriptors_again_nobody_waits_for_his_turn(nursery, autojump_clock):
    door = Door(nursery, 50)
    await trio.testing.wait_all_tasks_blocked()
    door.free = 50
    await trio.sleep(2.5 * limits.ACCEPT_PAUSE)
    assert sorted(door.served) == list(range(50))


async def test_a_few_descriptors_serve_a_few(nursery, autojump_clock):
    door = Door(nursery, 50)
    await trio.testing.wait_all_tasks_blocked()
    door.free = 5
    await trio.sleep(10.5 * limits.ACCEPT_PAUSE)
    assert len(door.served) == 5
    nursery.cancel_scope.cancel()


async def test_the_one_whose_turn_it_is_may_go(nursery, autojump_clock):
    """Whoever waits is cancelled with the session that he accepts for; the others go on."""
    door = Door(nursery, 5)
    await trio.testing.wait_all_tasks_blocked()
    for scope in door.scopes[1:]:
        scope.cancel()
        await trio.sleep(limits.ACCEPT_PAUSE / 2)
    door.free = 1
    await trio.sleep(2.5 * limits.ACCEPT_PAUSE)
    assert door.served == [0]
