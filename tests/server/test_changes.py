"""A running server whose configuration changes: who is ended, what is freed, what goes on."""

from __future__ import annotations

import logging
import secrets

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rig import EVERY_PORT, is_free, proxy, visit, world
from tunnel.client.run import run_client
from tunnel.model import PortRange, RefusalCode
from tunnel.protocol.keys import derive, generate_key
from tunnel.server import proxies
from tunnel.server.identity import Identities, Identity
from tunnel.server.rules import Rules

OFFICE = derive(generate_key(secrets.token_bytes(32)))


async def until(condition):
    """Wait for something that happens in this process."""
    with trio.fail_after(20):
        while not condition():
            await wait_all_tasks_blocked(0.001)


def reasons(caplog, event):
    return [it.reason for it in caplog.records if it.getMessage() == event]


@pytest.fixture
async def place(certificate, carrier, caplog):
    caplog.set_level(logging.INFO)
    async with world(certificate, carrier) as tunnel:
        tunnel.echo = await tunnel.start_service()
        tunnel.handle = await tunnel.start_server(identities=[office()])
        yield tunnel


def office(**settings):
    return lambda rules: Identity(OFFICE.verifier, rules, "office", **settings)


def update(place, *identities, allow_ports=EVERY_PORT, **policy):
    """Have the server go by these, of which the first has the key that all share."""
    rules = Rules(allow_ports, frozenset({place.address.port}))
    entries = [Identity(place.keys.verifier, rules), *(make(rules) for make in identities)]
    place.handle.change(attrs.evolve(place.server.policy, **policy), Identities(entries))


def where(client):
    return [it.addresses[0] for it in client.statistics() if it.addresses]


async def test_whose_key_is_gone_is_ended_and_nobody_else(place, caplog):
    stays = await place.start_client(proxy(place.echo))
    goes = await place.start_client(
        proxy(place.echo), keys=OFFICE, reconnect_delay=3600.0, reconnect_max_delay=3600.0
    )
    [port] = where(goes)
    async with await visit(where(stays)[0]) as talking:
        update(place)
        await until(lambda: is_free(port) and not where(goes))
        assert reasons(caplog, "Client disconnected") == [
            "its key was taken out of the configuration"
        ]
        await talking.send_all(b"x")
        assert await talking.receive_some() == b"x"
    assert len(place.server.sessions) == 1


async def test_it_does_not_come_back(place, caplog):
    await place.start_client(proxy(place.echo), keys=OFFICE, reconnect_delay=0.001)
    update(place)
    await until(lambda: reasons(caplog, "Refused"))
    refused = [it for it in caplog.records if it.getMessage() == "Refused"]
    assert refused[0].code == RefusalCode.AUTHENTICATION


async def test_ports_that_are_not_allowed_any_more_are_freed(place, caplog):
    client = await place.start_client(proxy(place.echo, name="a"), proxy(place.echo, name="b"))
    first, second = where(client)
    keep, free = (first, second) if first.port < second.port else (second, first)
    fixed = place.client(
        proxy(place.echo, keep.port, name="c"), proxy(place.echo, free.port, name="d")
    )
    client.change(fixed, anew=False)
    await until(lambda: [it.name for it in client.statistics() if it.addresses] == ["c", "d"])
    async with await visit(free) as lasting:
        update(place, office(), allow_ports=(PortRange(1, keep.port),))
        await until(lambda: where(client) == [keep])
        assert is_free(free)
        assert [it.code for it in caplog.records if it.getMessage() == "Proxy rejected"]
        await lasting.send_all(b"x")
        assert await lasting.receive_some() == b"x"
    # And back again.
    update(place, office())
    await until(lambda: where(client) == [keep, free])


async def test_a_client_that_takes_any_port_gets_another(place):
    client = await place.start_client(proxy(place.echo))
    [before] = where(client)
    update(place, office(), allow_ports=(PortRange(20_000, 29_999),))
    await until(lambda: where(client) not in ([], [before]))
    assert 20_000 <= where(client)[0].port <= 29_999
    assert is_free(before)


async def test_what_goes_on_being_allowed_is_not_touched(place):
    client = await place.start_client(proxy(place.echo))
    [session] = place.server.sessions.values()
    [before] = session.proxies
    update(place, office(), allow_ports=(PortRange(1, 65535),))
    await wait_all_tasks_blocked()
    assert list(session.proxies) == [before]
    assert before.addresses == tuple(where(client))


async def test_places_are_counted_on(place):
    """A visitor that is there counts against a new bound, and gives back the place it took."""
    client = await place.start_client(proxy(place.echo), keys=OFFICE)
    [address] = where(client)
    async with await visit(address) as first:
        await first.send_all(b"x")
        assert await first.receive_some() == b"x"
        update(place, office(max_connections=1))
        identity = place.server.identities.find(OFFICE.verifier.key_id)
        assert identity.quota.taken == 1
        with pytest.raises((OSError, trio.BrokenResourceError)):
            async with await visit(address) as second:
                await second.receive_some()
    await until(lambda: not identity.quota.taken)


async def test_other_bounds_hold_from_now_on(place):
    update(
        place,
        office(max_proxies=1),
        max_connections_per_proxy=3,
        max_connections_per_visitor=4,
        max_unauthenticated=5,
    )
    server = place.server
    assert server.admission.policy is server.policy
    assert server.strangers._policy.max_unauthenticated == 5
    client = await place.start_client(
        proxy(place.echo, name="a"), proxy(place.echo, name="b"), keys=OFFICE
    )
    assert len(where(client)) == 1
    update(place, office(max_proxies=2))
    [session] = server.sessions.values()
    assert session.registration.max_proxies == 2


async def test_a_key_that_goes_while_its_client_comes(place, caplog, monkeypatch):
    """Between its proof and its session the key is taken out."""
    make = proxies.ProxyAdmission

    def admission(*args, **kwargs):
        update(place)
        return make(*args, **kwargs)

    monkeypatch.setattr(proxies, "ProxyAdmission", admission)
    await place.nursery.start(_run, place)
    await until(lambda: reasons(caplog, "Client disconnected"))
    assert not place.server.sessions


async def _run(place, *, task_status):
    client = place.client(
        proxy(place.echo), keys=OFFICE, reconnect_delay=3600.0, reconnect_max_delay=3600.0
    )
    await run_client(client, task_status=task_status)


async def test_a_server_that_drains_changes_nothing(place):
    client = await place.start_client(proxy(place.echo))
    [address] = where(client)
    async with await visit(address) as talking:
        await talking.send_all(b"x")
        assert await talking.receive_some() == b"x"
        place.handle.drain()
        update(place, office(), allow_ports=(PortRange(1, 1),))
        client.change(place.client(proxy(place.echo, name="more")), anew=False)
        await until(lambda: is_free(address))
        await talking.send_all(b"y")
        assert await talking.receive_some() == b"y"
