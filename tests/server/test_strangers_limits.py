"""How many strangers there may be, who gives way, and what wrong keys cost their network."""

import secrets
import socket

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.rig import world
from tests.server.rig import Place, place, proved, read_to_the_end
from tunnel import limits
from tunnel.errors import Refused
from tunnel.model import Address
from tunnel.net.framed import next_event
from tunnel.protocol.keys import derive, generate_key
from tunnel.server.policy import Policy
from tunnel.server.ratelimit import Rate
from tunnel.server.strangers import Stranger, Strangers, StrangersByNetwork
from tunnel.stats import Reason

# --- Who gives way ----------------------------------------------------------------------------


def stranger(place):
    return Stranger(place, Address(place, 1))


def by_network(places):
    made = StrangersByNetwork()
    strangers = [stranger(place) for place in places]
    for one in strangers:
        made.add(one)
    return made, strangers


def test_the_oldest_of_the_busiest_network_gives_way():
    made, strangers = by_network("abbacb")
    assert made.oldest_of_busiest() is strangers[1]
    made.remove(strangers[1])
    assert made.oldest_of_busiest() is strangers[0]  # a and b have two each, a was first


def test_of_networks_with_one_each_the_first_gives_way():
    made, strangers = by_network("abc")
    assert made.oldest_of_busiest() is strangers[0]
    made.remove(strangers[0])
    assert made.oldest_of_busiest() is strangers[1]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.integers(0, 99))))
def test_networks_are_what_a_plain_list_would_be(steps):
    made, present = StrangersByNetwork(), []
    for where, leaves, which in steps:
        if leaves and present:
            one = present.pop(which % len(present))
            made.remove(one)
            assert one not in made
        else:
            present.append(stranger(where))
            made.add(present[-1])
        assert len(made) == len(present)
        assert all(one in made for one in present)
        if present:
            sizes = {one.network: 0 for one in present}
            for one in present:
                sizes[one.network] += 1
            chosen = made.oldest_of_busiest()
            assert sizes[chosen.network] == max(sizes.values())
            assert chosen is next(one for one in present if one.network == chosen.network)
    for one in present:
        made.remove(one)
    assert not made._networks
    assert not made._by_size


# --- Places on a real server ------------------------------------------------------------------


def burst(there, count, host="127.0.0.1"):
    """So many connections before the server gets a turn."""
    made = []
    for _ in range(count):
        sock = socket.socket()
        sock.bind((host, 0))
        sock.connect((there.tunnel.address.host, there.tunnel.address.port))
        sock.setblocking(False)
        made.append(sock)
    return made


def alive(sock):
    """Whether the server still holds it, as far as this end has heard."""
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def was_reset(sock):
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    return True


def close(socks):
    for sock in socks:
        sock.close()


def turned_away(records):
    return [
        (line.reason, line.address.rpartition(":")[0])
        for line in records
        if line.getMessage() == "Connection turned away"
    ]


async def test_a_proof_that_comes_in_the_moment_of_giving_way():
    ends = [socket.socketpair(), socket.socketpair()]
    strangers = Strangers(Policy(max_unauthenticated=1))
    first, second = (strangers.receive(one) for one, _ in ends)
    assert first.scope.cancel_called
    strangers.proved(first)  # its task was on its way already
    strangers.left(first)
    assert len(strangers) == 1
    strangers.left(second)
    assert len(strangers) == 0
    for one, other in ends:
        one.close()
        other.close()


async def test_the_bound_holds_within_one_burst(certificate):
    async with place(certificate, max_unauthenticated=3) as there:
        strangers = there.tunnel.server.strangers
        most = 0
        add = strangers._waiting.add

        def watched(one):
            nonlocal most
            add(one)
            most = max(most, len(strangers))

        strangers._waiting.add = watched
        socks = burst(there, 20)
        await wait_all_tasks_blocked()
        assert most == 3
        assert [alive(sock) for sock in socks] == [False] * 17 + [True] * 3
        assert there.tunnel.server.tally.statistics()[Reason.GAVE_WAY] == 17
        close(socks)
        del strangers._waiting.add
    assert turned_away(there.lines.records) == [("gave way to a newcomer", "127.0.0.1")] * 17


async def test_a_flood_from_one_network_costs_only_that_network(certificate):
    async with place(certificate, max_unauthenticated=8) as there:
        slow = await there.tls(host="127.0.0.9")  # in the middle of its handshake all the while
        flood = []
        for _ in range(5):
            flood += burst(there, 8, "127.0.0.2")
            await wait_all_tasks_blocked()
        assert sum(map(alive, flood)) == 7
        stream, handshake = await proved(there, "127.0.0.3")  # who comes meanwhile is served
        await stream.send_all(handshake.configure(()))
        await next_event(handshake, stream)
        handshake = there.handshake(slow)
        await next_event(handshake, slow)
        await slow.send_all(handshake.authenticate())
        await next_event(handshake, slow)
        assert {host for _, host in turned_away(there.lines.records)} == {"127.0.0.2"}
        stream.abort()
        slow.abort()
        close(flood)


async def test_a_client_that_has_proved_itself_is_no_stranger(certificate):
    async with place(certificate, max_unauthenticated=1) as there:
        stream, handshake = await proved(there)
        assert len(there.tunnel.server.strangers) == 0
        socks = burst(there, 5)
        await wait_all_tasks_blocked()
        await stream.send_all(handshake.configure(()))
        await next_event(handshake, stream)  # it did not give way
        stream.abort()
        close(socks)


async def test_who_was_refused_has_a_place_until_it_is_gone(certificate):
    async with place(certificate) as there:
        stream = await there.tls()
        await stream.send_all(b"\xff\xff\xff\xff")
        while (await there.lines.next()).getMessage() != "Refused":
            pass
        await wait_all_tasks_blocked()
        assert len(there.tunnel.server.strangers) == 1  # the refusal waits to be read
        await read_to_the_end(stream)
        await stream.aclose()


async def test_connections_beyond_the_rate_are_reset_unread(certificate, caplog):
    async with world(certificate) as tunnel:
        await tunnel.start_server(rate=Rate(1e-9, 16))
        there = Place(tunnel, None)
        socks = burst(there, 10, "127.0.0.2")
        await wait_all_tasks_blocked()
        # A quarter for one network, and what is turned away takes nothing from the others.
        assert all(map(alive, socks[:4]))
        assert all(map(was_reset, socks[4:]))
        assert turned_away(caplog.records) == [("rate of its network", "127.0.0.2")] * 6
        others = [sock for last in range(3, 9) for sock in burst(there, 2, f"127.0.0.{last}")]
        await wait_all_tasks_blocked()
        assert all(map(alive, others))
        late = burst(there, 1, "127.0.0.9")
        await wait_all_tasks_blocked()
        assert all(map(was_reset, late))
        assert turned_away(caplog.records)[-1] == ("rate of all", "127.0.0.9")
        close(socks + others + late)


async def test_lines_about_strangers_cannot_flood(certificate):
    async with place(certificate, max_unauthenticated=1000) as there:
        before = trio.current_time()
        for _ in range(5):
            close(burst(there, 40))
            await wait_all_tasks_blocked()
        lines = [one for one in there.lines.records if one.getMessage() == "Handshake failed"]
        taken = trio.current_time() - before
        assert len(lines) <= limits.REFUSAL_LOG_BURST + taken / limits.REFUSAL_LOG_INTERVAL
        assert len(lines) >= limits.REFUSAL_LOG_BURST


# --- Wrong keys -------------------------------------------------------------------------------


async def refusal(there, host):
    """What a client with a wrong key is told."""
    stream = await there.tls(host=host)
    keys = derive(generate_key(secrets.token_bytes(32)))
    handshake = there.handshake(stream, keys=keys)
    await next_event(handshake, stream)
    await stream.send_all(handshake.authenticate())
    with pytest.raises(Refused) as caught:
        await next_event(handshake, stream)
    await stream.aclose()
    return caught.value


async def fail(there, host, times):
    return [(await refusal(there, host)).retry_after for _ in range(times)]


async def test_wrong_keys_are_told_to_wait_and_then_not_listened_to(certificate):
    async with place(certificate) as there:
        told = await fail(there, "127.0.0.2", limits.FREE_FAILURES + 1)
        assert told == [None] * limits.FREE_FAILURES + [limits.PENALTY_FIRST]
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        socks = burst(there, 3, "127.0.0.2")
        await wait_all_tasks_blocked()
        assert not any(map(alive, socks))
        assert trio.lowlevel.current_statistics().tasks_living == tasks  # nobody waits with them
        assert len(there.tunnel.server.strangers) == 0
        assert (
            turned_away(there.lines.records) == [("failed proofs of its network", "127.0.0.2")] * 3
        )
        close(socks)
        stream, _ = await proved(there, "127.0.0.3")  # other networks do not notice
        stream.abort()
        numbers = there.tunnel.server.tally.statistics()
        assert numbers[Reason.WRONG_KEY] == limits.FREE_FAILURES + 1
        assert numbers[Reason.FAILED_PROOFS] == 3


async def test_a_penalty_passes(certificate, monkeypatch):
    monkeypatch.setattr(limits, "PENALTY_FIRST", 0.05)
    async with place(certificate) as there:
        [*_, told] = await fail(there, "127.0.0.2", limits.FREE_FAILURES + 1)
        assert told == 0.05
        until = trio.current_time() + told
        penalties = there.tunnel.server.strangers._penalties
        while trio.current_time() < until:
            await trio.lowlevel.checkpoint()
        assert not penalties.turns_away("127.0.0.2", trio.current_time())
        stream, _ = await proved(there, "127.0.0.2")
        stream.abort()


async def test_the_neighbours_of_a_living_client_do_not_pay(certificate):
    async with place(certificate) as there:
        good, _ = await proved(there, "127.0.0.2")
        assert (await fail(there, "127.0.0.2", limits.FREE_FAILURES + 2))[-1]
        also, _ = await proved(there, "127.0.0.2")
        also.abort()
        good.abort()
        await wait_all_tasks_blocked()
        again, _ = await proved(there, "127.0.0.2")  # and the client itself may come back
        again.abort()


async def test_a_wrong_configuration_is_no_wrong_key(certificate):
    async with place(certificate) as there:
        for _ in range(2 * limits.FREE_FAILURES):
            stream = await there.tls(host="127.0.0.2")
            await stream.send_all(b"\xff\xff\xff\xff")
            await read_to_the_end(stream)
            await stream.aclose()
        assert there.tunnel.server.tally.statistics()[Reason.WRONG_KEY] == 0
        stream, _ = await proved(there, "127.0.0.2")
        stream.abort()
