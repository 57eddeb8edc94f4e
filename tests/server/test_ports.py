"""What a client may ask to be changed, whatever it asks."""

from __future__ import annotations

import errno
import socket
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.rig import is_free
from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import Address
from tunnel.protocol.messages import ProxyRequest, Reconfigure
from tunnel.server.listener import listen
from tunnel.server.ports import Ports
from tunnel.server.registry import Owner, Registry, Seat
from tunnel.server.visitors import Lobby, Room
from tunnel.stats import Reason

IDS = st.integers(0, 12)
REQUESTS = st.builds(
    ProxyRequest,
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.just("*"),
    st.integers(0, 2),
    local_port=st.integers(0, 2),
)
CHANGES = st.builds(
    Reconfigure,
    st.lists(IDS, max_size=3, unique=True).map(tuple),
    st.lists(st.tuples(IDS, REQUESTS), max_size=3, unique_by=lambda entry: entry[0]).map(tuple),
)


def make_ports(*requests):
    ports = Ports(Lobby(), "tests", Room(None, Reason.CLIENT_FULL), lambda _: None)
    ports.want(requests)
    return ports


def request(name, port=0, **more):
    return ProxyRequest(name, "*", port, **more)


def places(ports):
    return {number: (it.name, it.host, it.port) for number, it in ports.proxies.items()}


@given(st.lists(CHANGES, max_size=12))
def test_whatever_is_asked(changes):
    """Either it is refused and nothing changes, or it is all done; ids mean one proxy for ever."""
    ports = make_ports(request("a"), request("b", 1))
    ever = places(ports)
    for wanted in changes:
        before = places(ports)
        try:
            ports._check(wanted)
        except RemoteProtocolError:
            assert places(ports) == before
            continue
        for number in wanted.remove:
            ports.proxies.pop(number)
        added = ports._enter(wanted)
        after = places(ports)
        assert {proxy.proxy_id for proxy in added} == after.keys() - before.keys()
        assert after.keys() == (before.keys() - set(wanted.remove)) | dict(wanted.proxies).keys()
        assert all(ever.setdefault(number, place) == place for number, place in after.items())
        assert len({name for name, _, _ in after.values()}) == len(after) <= limits.MAX_PROXIES
        assert all(ports.proxies[n].local_port == it.local_port for n, it in wanted.proxies)


def test_an_id_is_not_used_again():
    ports = make_ports(request("a"))
    gone = Reconfigure((0,), ())
    ports._check(gone)
    ports.proxies.clear()
    for number, right in ((0, False), (1, True)):
        try:
            ports._check(Reconfigure((), ((number, request("b")),)))
        except RemoteProtocolError:
            assert not right
        else:
            assert right


# --- A port that is given up and taken again -----------------------------------------------------


def make_seat(name):
    return Seat(Owner(name, name), "process", 1, name, Address("192.0.2.7", 4711))


async def test_who_waits_for_a_kept_port_is_told_when_it_is_really_free():
    registry, owner = Registry(), make_seat("owner")
    registry.hold(owner, "127.0.0.1", 80)
    told = []

    async def wait():
        await registry.wait_freed(80)
        told.append(80)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with registry.keep(owner, [80]):
            registry.release(owner, "127.0.0.1", 80)
            await wait_all_tasks_blocked()
            assert not told
    assert told
    assert not registry._kept


async def test_a_port_that_was_taken_again_is_not_called_free():
    registry, owner = Registry(), make_seat("owner")
    registry.hold(owner, "127.0.0.1", 80)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.wait_freed, 80)
        await wait_all_tasks_blocked()
        with registry.keep(owner, [80]):
            registry.release(owner, "127.0.0.1", 80)
            registry.hold(owner, "127.0.0.1", 80)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        nursery.cancel_scope.cancel()


async def test_nobody_else_binds_a_kept_port():
    registry, owner, other = Registry(), make_seat("owner"), make_seat("other")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    registry.hold(owner, "127.0.0.1", port)
    with registry.keep(owner, [port]):
        registry.release(owner, "127.0.0.1", port)
        assert registry.holder("127.0.0.1", port) is owner
        ports = make_ports(ProxyRequest("a", "127.0.0.1", port))
        link = SimpleNamespace(running=trio.Event())
        async with trio.open_nursery() as nursery:
            with pytest.raises(OSError, match="another session") as caught:
                await nursery.start(
                    listen, ports.proxies[0], port, other, registry, link, lambda: nullcontext(True)
                )
            assert caught.value.errno == errno.EADDRINUSE
            assert is_free(Address("127.0.0.1", port))
            await nursery.start(
                listen, ports.proxies[0], port, owner, registry, link, lambda: nullcontext(True)
            )
            nursery.cancel_scope.cancel()
    assert registry.holder("127.0.0.1", port) is None
