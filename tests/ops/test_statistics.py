"""A program's statistics as JSON."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
import trio.testing

from tests.ops.views import connections, counters, program, proxy, session
from tunnel import limits
from tunnel.events import (
    ClientConnected,
    ClientDisconnected,
    Connected,
    EventStream,
    OwnProxyPublished,
    ProxyPublished,
)
from tunnel.model import Address
from tunnel.ops.statistics import Statistics
from tunnel.stats import Counters
from tunnel.views import LinkView, Snapshots, Waits


def statistics(role="server", view=None, seen=None):
    view, seen = view or program(), seen or connections()
    return Statistics(Snapshots(role, lambda: view, lambda: seen, lambda: counters(view)))


async def test_the_fields_of_1_5_on_a_server():
    [one] = statistics().stats()
    assert {
        "name": "web",
        "publish_addr": "*",
        "publish_port": 8080,
        "local_port": 3000,
        "total_connections": 7,
        "active_connections": 2,
        "bytes_sent": 100,
        "bytes_received": 30,
        "start_time": 1.5,
    }.items() <= one.items()


async def test_the_fields_of_1_5_on_a_client():
    [one] = statistics("client").stats()
    assert {
        "name": "web",
        "proxy_type": "tcp",
        "bind_addr": "*",
        "bind_port": 8080,
        "target_addr": "127.0.0.1",
        "target_port": 3000,
        "active_connections": 2,
        "total_connections": 7,
        "bytes_sent": 30,  # read from the local service: towards the visitor
        "bytes_received": 100,
        "start_time": 1.5,
        "status": "published",
    }.items() <= one.items()


async def test_a_proxy_that_is_not_published():
    waiting = attrs.evolve(proxy(), addresses=(), up=False)
    view = program(session(proxies=(waiting,)))
    assert statistics(view=view).stats() == []
    [one] = statistics("client", view).stats()
    assert (one["status"], one["bind_port"], one["addresses"]) == ("waiting", 8081, [])


async def test_status_has_everything_and_is_json():
    status = json.loads(json.dumps(statistics().status()))
    assert status["role"] == "server"
    assert status["ready"] is True
    assert status["totals"] == {
        "connections": 7,
        "active_connections": 2,
        "bytes_sent": 100,
        "bytes_received": 30,
        "sessions": 1,
    }
    [one] = status["sessions"]
    assert (one["client"], one["rtt"], one["queued"], one["proxies"]) == ("office", 0.02, 5, 1)
    assert status["proxies"] == json.loads(json.dumps(statistics().stats()))
    assert status["connections"]["waits"] == {"visitor": 1, "window": 0, "link": 0, "local": 0}
    [shown] = status["connections"]["shown"]
    assert (shown["waits"], shown["sent"], shown["received"]) == ("visitor", 11, 22)


async def test_a_client_shows_the_same_directions_as_its_server():
    [shown] = statistics("client").status()["connections"]["shown"]
    assert (shown["sent"], shown["received"]) == (22, 11)


async def test_a_client_that_is_not_connected():
    view = attrs.evolve(program(session(link=None)), unready="not connected", state="waiting")
    status = statistics("client", view).status()
    assert (status["ready"], status["state"], status["sessions"]) == (False, "waiting", [])
    assert status["name"] == "office"


async def test_connections_are_not_looked_at_for_everybody_who_asks(autojump_clock):
    looks = []
    one = Statistics(Snapshots("server", program, lambda: looks.append(1) or connections(), tuple))
    for _ in range(5):
        one.status()
    assert len(looks) == 1
    await trio.sleep(limits.CONNECTIONS_INTERVAL)
    one.status()
    assert len(looks) == 2


async def test_sums_outlive_sessions():
    views = [program(session(proxies=(attrs.evolve(proxy(), counters=Counters(0, 3, 5, 9)),)))]
    one = Statistics(
        Snapshots("server", lambda: views[-1], connections, lambda: counters(views[-1]))
    )
    one.status()
    views.append(attrs.evolve(program(), sessions=()))
    assert one.status()["totals"]["bytes_sent"] == 5
    assert one.status()["proxies"] == []


@pytest.mark.parametrize(
    "born",
    [
        ClientConnected("office", Address("192.0.2.1", 50000), "0123", 1),
        ProxyPublished("office", "web", (Address("0.0.0.0", 8080),)),
        Connected(1, 1),
        OwnProxyPublished("web", (Address("0.0.0.0", 8080),), "127.0.0.1:3000"),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_sums_have_sessions_that_nobody_has_looked_at(born):
    """Those of a session that begins and ends between two looks."""
    mine, events = Counters(), EventStream()
    view = program(session(proxies=(attrs.evolve(proxy(), counters=mine),)))
    living = [mine]
    one = Statistics(Snapshots("server", lambda: view, connections, lambda: living))
    with one.kept(events):
        events.emit(born)
        events.emit(born)  # and only once for all that are born at a time
        await trio.testing.wait_all_tasks_blocked()
        mine.opened()
        mine.delivered += 5
        mine.closed()
        living.clear()  # its end is told when it is gone
        end = ClientDisconnected("office", "0123", "no sign of life")
        events.emit(end)
        totals = one.status()["totals"]
    assert (totals["bytes_sent"], totals["connections"]) == (5, 1)


async def test_samples_of_lag_and_round_trips(nursery, autojump_clock):
    one = statistics()
    nursery.start_soon(one.sample)
    await trio.sleep(10 * limits.RTT_INTERVAL + limits.LAG_INTERVAL / 2)
    assert 9 <= one.rtt.cumulated()[-1] <= 11
    assert one.rtt.sum == pytest.approx(0.02 * one.rtt.cumulated()[-1])
    assert one.lag.cumulated()[-1] >= 9 * limits.RTT_INTERVAL / limits.LAG_INTERVAL


async def test_an_event_loop_that_is_held_up_is_seen(nursery, autojump_clock):
    one = statistics()
    nursery.start_soon(one.sample)
    await trio.sleep(0.5)
    autojump_clock.jump(3.5)  # as if something had not let others run
    await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    assert one.last_lag == pytest.approx(3.0)
    assert one.status()["loop_lag_max"] == pytest.approx(3.0)


async def test_events_after_a_number():
    one = statistics()
    answer = one.events(0)
    assert answer == {"process": one.process, "last": 0, "events": []}
    assert statistics().process != one.process


async def test_a_link_without_a_round_trip_yet(nursery, autojump_clock):
    one = statistics(view=program(session(link=LinkView(None, 1, 0, 0, False))))
    nursery.start_soon(one.sample)
    await trio.sleep(3 * limits.RTT_INTERVAL)
    assert one.rtt.cumulated()[-1] == 0
    assert one.stats()[0]["rtt"] is None
    assert Address("::1", 8080) not in one.snapshots.view().addresses
    assert Waits.LINK == "link"
