"""`tls-tunnel bench`: what it measures, and what it leaves behind."""

from __future__ import annotations

import math
import secrets

import attrs
import pytest
import trio

from tests.rig import is_free
from tunnel import limits
from tunnel.cli.display import ProgressBar
from tunnel.cli.measurement import Result, Service, _rate, _visited, measure
from tunnel.compose import joined_client
from tunnel.config import IdentityConfig, ServerConfig
from tunnel.errors import LinkLost, Refused, TunnelError
from tunnel.library.server import serve
from tunnel.model import Address
from tunnel.protocol.join import Join
from tunnel.protocol.keys import generate_key

KEY = generate_key(secrets.token_bytes(32))
SERVER = ServerConfig(bind_addr="127.0.0.1", bind_port=0, auth_key=KEY, shutdown_grace=0.0)
#: Short, and so this test's only real seconds.
SHORT = 0.5


def config_of(server):
    return joined_client(Join.from_text(server.join))


class Seen(ProgressBar):
    """Notes what is measured, and which ports the server has published meanwhile."""

    def __init__(self, server):
        self.begun = []
        self.published = []
        self._server = server

    def begin(self, what, seconds):
        self.begun.append((what, round(seconds, 3)))
        for session in self._server.sessions():
            self.published += [proxy.addresses for proxy in session.proxies]


async def test_all_three_are_measured_without_a_public_port():
    async with serve(SERVER) as server:
        seen = Seen(server)
        with trio.fail_after(30):
            found = await measure(config_of(server), SHORT, seen)
            while server.sessions():
                await trio.lowlevel.checkpoint()
        assert found.server == server.addresses[0]
    assert found.seconds == SHORT
    assert all(0 < trip < 1 for trip in found.round_trips)
    assert list(found.round_trips) == sorted(found.round_trips)
    assert found.to_visitors > 100_000
    assert found.from_visitors > 100_000
    assert seen.begun == [("round trips", 0.1), ("to visitors", 0.2), ("from visitors", 0.2)]
    assert seen.published == [(), (), ()]


async def test_the_local_port_is_free_afterwards():
    async with serve(SERVER) as server:
        async with _visited(config_of(server), Service()) as address:
            assert address.host == "127.0.0.1"
            assert not is_free(address)
        assert is_free(address)


async def test_an_identity_of_its_own_will_do():
    other = generate_key(secrets.token_bytes(32))
    identity = IdentityConfig(name="office", auth_key=other, max_proxies=1)
    async with serve(attrs.evolve(SERVER, clients=(identity,))) as server:
        config = attrs.evolve(config_of(server), auth_key=other)
        async with _visited(config, Service()):
            assert {session.name for session in server.sessions()} == {"office"}


async def test_a_server_that_is_not_there():
    async with serve(SERVER) as server:
        config = config_of(server)
    with pytest.raises(LinkLost, match=r"cannot reach 127\.0\.0\.1:.*nothing listens there"):
        await measure(config, SHORT, ProgressBar())


async def test_a_wrong_key():
    async with serve(SERVER) as server:
        config = attrs.evolve(config_of(server), auth_key=generate_key(bytes(32)))
        with pytest.raises(Refused):
            await measure(config, SHORT, ProgressBar())


async def test_a_server_that_goes_away_meanwhile():
    class Drains(ProgressBar):
        def begin(self, what, _seconds):
            if what == "to visitors":
                server.drain()

    async with serve(SERVER) as server:
        with pytest.raises(TunnelError), trio.fail_after(30):
            await measure(config_of(server), 5, Drains())


async def test_a_server_that_lets_it_not_be_visited(monkeypatch):
    monkeypatch.setattr(limits, "BENCH_TIMEOUT", 0.1)
    identity = IdentityConfig(name="office", auth_key=KEY, max_proxies=1)
    config = ServerConfig(bind_addr="127.0.0.1", bind_port=0, clients=(identity,))
    async with serve(config) as server:
        [address] = server.addresses
        client = joined_client(Join(address.host, address.port, KEY, server.pin))
        async with _visited(client, Service()):
            with pytest.raises(TunnelError, match="does not let the service be visited"):
                async with _visited(client, Service()):
                    raise AssertionError("there is no second place")


async def test_a_visit_that_is_turned_away():
    async with serve(SERVER, allow=lambda _: "no") as server:
        with pytest.raises(
            TunnelError, match="the server was lost, or ended the visit; -v shows why"
        ):
            await measure(config_of(server), SHORT, ProgressBar())


async def test_the_first_quarter_of_a_direction_does_not_count(autojump_clock):
    carried = 0.0

    async def carry():
        nonlocal carried
        while True:
            await trio.sleep(0.01)
            # Slow at first, then 1 MB a second.
            carried += 10 if trio.current_time() - start < 2.5 else 10_000

    start = trio.current_time()
    assert math.isclose(await _rate(carry, lambda: carried, 10), 1e6, rel_tol=0.01)
    assert trio.current_time() - start == 10


RESULT = Result(Address("::1", 8443), 10.0, tuple(n / 1000 for n in range(1, 101)), 12.5e6, 0.125e6)


def test_for_people():
    assert RESULT.as_text() == (
        "round trip     p50 50.0 ms, p99 99.0 ms, of 100\n"
        "to visitors    100.0 Mbit/s\n"
        "from visitors  1.0 Mbit/s"
    )


def test_for_programs():
    assert RESULT.as_json() == {
        "server": "[::1]:8443",
        "seconds": 10.0,
        "round_trips": 100,
        "p50_ms": 50.0,
        "p99_ms": 99.0,
        "to_visitors_mbit_s": 100.0,
        "from_visitors_mbit_s": 1.0,
    }


def test_one_round_trip_is_every_quantile():
    one = attrs.evolve(RESULT, round_trips=(0.25,))
    assert one.quantile(0.5) == one.quantile(0.99) == 250
