"""What a client may ask to be changed, whatever it asks."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.rig import is_free
from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.eventlog import logged_events
from tunnel.model import Address, PortRange
from tunnel.protocol.messages import ProxyRequest, Reconfigure
from tunnel.server.admission import Admission, Quota
from tunnel.server.directory import Directory
from tunnel.server.policy import Policy
from tunnel.server.proxies import Proxies
from tunnel.server.registry import Owner, Registration, Registry
from tunnel.server.rules import Rules
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


RULES = Rules((PortRange(1, 65535),), frozenset())


def make_registration(name):
    return Registration(
        Owner(name, name), "process", 1, name, Address("192.0.2.7", 4711), evict=None, probe=None
    )


def make_proxies(*requests, session=None, registry=None):
    proxies = Proxies(
        session or make_registration("tests"),
        RULES,
        Quota(None, Reason.CLIENT_FULL),
        registry or Registry(),
        Directory(),
        Admission(Policy()),
        logged_events(),
        SimpleNamespace(running=None),
        lambda _: None,
    )
    proxies.request(requests)
    return proxies


def request(name, port=0, **more):
    return ProxyRequest(name, "*", port, **more)


def places(ports):
    return {number: (it.name, it.host, it.port) for number, it in ports.by_id.items()}


@given(st.lists(CHANGES, max_size=12))
def test_whatever_is_asked(changes):
    """Either it is refused and nothing changes, or it is all done; ids mean one proxy for ever."""
    ports = make_proxies(request("a"), request("b", 1))
    ever = places(ports)
    for wanted in changes:
        before = places(ports)
        try:
            ports._check(wanted)
        except RemoteProtocolError:
            assert places(ports) == before
            continue
        for number in wanted.remove:
            ports.by_id.pop(number)
        added = ports._enter(wanted)
        after = places(ports)
        assert {proxy.proxy_id for proxy in added} == after.keys() - before.keys()
        assert after.keys() == (before.keys() - set(wanted.remove)) | dict(wanted.proxies).keys()
        assert all(ever.setdefault(number, place) == place for number, place in after.items())
        assert len({name for name, _, _ in after.values()}) == len(after) <= limits.MAX_PROXIES
        assert all(ports.by_id[n].request.local_port == it.local_port for n, it in wanted.proxies)


def test_an_id_is_not_used_again():
    ports = make_proxies(request("a"))
    gone = Reconfigure((0,), ())
    ports._check(gone)
    ports.by_id.clear()
    for number, right in ((0, False), (1, True)):
        try:
            ports._check(Reconfigure((), ((number, request("b")),)))
        except RemoteProtocolError:
            assert not right
        else:
            assert right


# --- A port that is given up and taken again -----------------------------------------------------


async def test_who_waits_for_a_kept_port_is_told_when_it_is_really_free():
    registry, owner = Registry(), make_registration("owner")
    place, told = (owner, "127.0.0.1", 80), []

    async def wait():
        await registry.freed.wait(80)
        told.append(80)

    async with trio.open_nursery() as nursery:
        registry.claim(*place)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with registry.reserved(owner, [80]):
            registry.free(*place)
            await wait_all_tasks_blocked()
            assert not told
    assert told
    assert not registry._reserved


async def test_a_port_that_was_taken_again_is_not_called_free():
    registry, owner = Registry(), make_registration("owner")
    place = (owner, "127.0.0.1", 80)
    async with trio.open_nursery() as nursery:
        registry.claim(*place)
        nursery.start_soon(registry.freed.wait, 80)
        await wait_all_tasks_blocked()
        with registry.reserved(owner, [80]):
            registry.free(*place)
            registry.claim(*place)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        nursery.cancel_scope.cancel()


async def test_nobody_else_binds_a_kept_port():
    registry, owner, other = Registry(), make_registration("owner"), make_registration("other")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    registry.claim(owner, "127.0.0.1", port)
    with registry.reserved(owner, [port]):
        registry.free(owner, "127.0.0.1", port)
        assert registry.claimant("127.0.0.1", port) is owner
        wanted = ProxyRequest("a", "127.0.0.1", port)
        others = make_proxies(wanted, session=other, registry=registry)
        with pytest.raises(OSError, match="another session") as caught:
            others.entry(others.by_id[0]).open(RULES)
        assert caught.value.errno == errno.EADDRINUSE
        assert is_free(Address("127.0.0.1", port))
        own = make_proxies(wanted, session=owner, registry=registry)
        entry = own.entry(own.by_id[0])
        entry.open(RULES)
        assert not is_free(Address("127.0.0.1", port))
        entry.close()
    assert is_free(Address("127.0.0.1", port))
    assert registry.claimant("127.0.0.1", port) is None
