"""Who may visit a published port: by address, and by how many are there already."""

import ipaddress
import socket

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.rig import proxy, world
from tunnel import limits
from tunnel.server.admission import Admission, ProxyAdmission, Quota
from tunnel.server.policy import Policy
from tunnel.stats import Reason, Tally

HERE, THERE = "192.0.2.1", "192.0.2.2"


def networks(*texts):
    return tuple(map(ipaddress.ip_network, texts))


def enter(visitors, *hosts):
    """What each is told; those who are let in stay."""
    told = []
    for host in hosts:
        told.append(visitors.own_reason(host))
        if told[-1] is None:
            visitors.take(host)
    return told


def test_by_default_there_are_bounds_and_nobody_meets_them():
    admission = Admission(Policy())
    visitors = ProxyAdmission(admission, "web")
    assert admission.policy.max_connections_per_proxy == limits.PROXY_CONNECTIONS
    assert enter(visitors, *[HERE] * 2000) == [None] * 2000


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("192.0.2.200", True),
        ("192.0.3.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:192.0.2.1", False),  # sockets' addresses are unmapped before they come here
        ("unix", False),
    ],
)
def test_who_may_come(host, allowed):
    visitors = ProxyAdmission(
        Admission(Policy()), "web", allow_from=networks("192.0.2.0/24", "2001:db8::/32")
    )
    assert visitors.own_reason(host) is (None if allowed else Reason.NOT_ALLOWED)


def test_one_proxy_full_does_not_concern_another():
    admission = Admission(Policy(max_connections_per_proxy=2))
    web, ssh = ProxyAdmission(admission, "web"), ProxyAdmission(admission, "ssh")
    assert enter(web, HERE, THERE, HERE) == [None, None, Reason.PROXY_FULL]
    assert enter(ssh, HERE) == [None]
    web.give_back(THERE)
    assert enter(web, HERE, HERE) == [None, Reason.PROXY_FULL]


def test_a_client_has_one_room_for_all_its_proxies():
    admission = Admission(Policy())
    room = Quota(2, Reason.CLIENT_FULL)
    web, ssh = (
        ProxyAdmission(admission, "web", quota=room),
        ProxyAdmission(admission, "ssh", quota=room),
    )
    other = ProxyAdmission(admission, "other", quota=Quota(2, Reason.CLIENT_FULL))
    assert enter(web, HERE) + enter(ssh, HERE) == [None, None]
    assert enter(web, HERE) + enter(ssh, THERE) == [Reason.CLIENT_FULL] * 2
    assert enter(other, HERE) == [None]
    ssh.give_back(HERE)
    assert enter(web, THERE) == [None]


def test_one_network_has_its_share_of_all_proxies():
    admission = Admission(Policy(max_connections_per_visitor=2))
    web, ssh = ProxyAdmission(admission, "web"), ProxyAdmission(admission, "ssh")
    assert enter(web, HERE) + enter(ssh, HERE) == [None, None]
    assert enter(web, HERE, THERE) == [Reason.VISITOR_FULL, None]
    assert enter(web, "2001:db8::1", "2001:db8::2", "2001:db8::3") == [
        None,
        None,
        Reason.VISITOR_FULL,  # one /64 is one network
    ]
    ssh.give_back(HERE)
    assert enter(web, HERE) == [None]


def test_no_bound_is_no_bound():
    admission = Admission(Policy(max_connections_per_proxy=None, max_connections_per_visitor=None))
    visitors = ProxyAdmission(admission, "web", quota=Quota(None, Reason.CLIENT_FULL))
    assert set(enter(visitors, *[HERE] * 100)) == {None}


def test_who_asks_only_takes_nothing():
    admission = Admission(Policy(max_connections_per_proxy=1))
    visitors = ProxyAdmission(admission, "web")
    assert [visitors.own_reason(HERE) for _ in range(5)] == [None] * 5
    assert len(admission.networks) == 0


HOSTS = st.sampled_from([HERE, THERE, "2001:db8::1", "2001:db8::2"])


@given(st.lists(st.tuples(HOSTS, st.booleans(), st.integers(0, 99))))
def test_places_are_given_back_and_bounds_hold(steps):
    admission = Admission(Policy(max_connections_per_proxy=5, max_connections_per_visitor=3))
    room = Quota(4, Reason.CLIENT_FULL)
    visitors = ProxyAdmission(admission, "web", quota=room)
    present = []
    for host, leaves, which in steps:
        if leaves and present:
            visitors.give_back(present.pop(which % len(present)))
        elif enter(visitors, host) == [None]:
            present.append(host)
        assert room.taken == visitors._taken == len(present) <= 4
        assert present.count(HERE) <= 3
        assert sum(host.startswith("2001") for host in present) <= 3
    for host in present:
        visitors.give_back(host)
    assert room.taken == len(admission.networks) == 0


def test_every_reason_is_counted_from_the_start():
    tally = Tally()
    assert set(tally.statistics()) == set(Reason)
    tally.count(Reason.NOT_ALLOWED)
    before = tally.statistics()
    tally.count(Reason.NOT_ALLOWED)
    assert (before[Reason.NOT_ALLOWED], tally.statistics()[Reason.NOT_ALLOWED]) == (1, 2)


# --- On a real server -------------------------------------------------------------------------


def visit_from(host, address):
    # Without waiting, so that a reset that follows at once does not look like a failure of this.
    sock = socket.create_connection((address.host, address.port), source_address=(host, 0))
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def is_served(stream):
    try:
        await stream.send_all(b"x")
        return await stream.receive_some() == b"x"
    except trio.BrokenResourceError:
        return False


async def test_visitors_beyond_the_bound_are_reset_and_come_in_when_another_leaves(
    certificate, carrier, caplog
):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server(max_connections_per_visitor=2)
        handle = await tunnel.start_client(proxy(service))
        [address] = handle.statistics()[0].addresses
        first, second, third = [visit_from("127.0.0.2", address) for _ in range(3)]
        other = visit_from("127.0.0.3", address)
        assert await is_served(first)
        assert await is_served(second)
        with pytest.raises(trio.BrokenResourceError):
            await third.receive_some()  # a reset: nothing that looks like an end
        assert await is_served(other)  # another network
        [line] = [one for one in caplog.records if one.getMessage() == "Visitor turned away"]
        assert (line.proxy, line.reason) == ("web", "too many connections of the visitor")
        assert line.address.startswith("127.0.0.2:")
        assert tunnel.server.tally.statistics()[Reason.VISITOR_FULL] == 1
        await second.aclose()
        with trio.fail_after(5):
            while tunnel.server.admission.networks.of("127.0.0.2") == 2:
                await trio.lowlevel.checkpoint()
        again = visit_from("127.0.0.2", address)
        assert await is_served(again)
        for stream in (first, third, other, again):
            await stream.aclose()


async def test_places_come_back_however_a_connection_ends(certificate, carrier):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(service))
        [address] = handle.statistics()[0].addresses
        networks = tunnel.server.admission.networks
        clean, reset, lost = [visit_from("127.0.0.2", address) for _ in range(3)]
        for stream in (clean, reset, lost):
            assert await is_served(stream)
        assert networks._taken == {"127.0.0.2": 3}
        await clean.send_eof()
        assert await clean.receive_some() == b""
        reset.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await reset.aclose()
        await clean.aclose()
        with trio.fail_after(5):
            while networks._taken != {"127.0.0.2": 1}:
                await trio.lowlevel.checkpoint()
        [session] = tunnel.server.sessions.values()
        session.link.lose("the test cuts it")
        with pytest.raises(trio.BrokenResourceError):
            await lost.receive_some()
        await wait_all_tasks_blocked()
        assert len(networks) == 0
        await lost.aclose()
