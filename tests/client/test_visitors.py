"""Local ports that lead to another client's proxy, with a real server and real sockets."""

import hashlib
import logging
import random
import secrets

import pytest
import trio

from tests.client.test_session import ADDRESS, against, contexts  # noqa: F401
from tests.rig import is_free, own_host, proxy, read_all, visit, world
from tunnel.client.run import run_client
from tunnel.client.session import hold_session
from tunnel.client.visit_port import VisitPort
from tunnel.errors import LinkLost, RemoteProtocolError
from tunnel.model import Address
from tunnel.net.listen import open_listeners
from tunnel.protocol.keys import derive, generate_key
from tunnel.protocol.messages import RECONFIGURE, Bound, Capabilities
from tunnel.protocol.preamble import Preamble
from tunnel.server import session as server_session
from tunnel.server.identity import Identity
from tunnel.views import ClientState


def leads_to(name="db", publish_port=0):
    return VisitPort(name, publish_port, own_host(), 0)


def database(service, **settings):
    return proxy(service, 5432, name="db", visitors_only=True, **settings)


async def ready(visitor):
    """Where it listens, once it does."""
    with trio.fail_after(10):
        while not visitor.addresses:
            await trio.lowlevel.checkpoint()
    return visitor.addresses[0]


@pytest.fixture(params=["hub", "relay"])
async def tunnel(request, certificate):
    async with world(certificate, request.param) as there:
        await there.start_server()
        yield there


async def test_a_guest_reaches_the_other_clients_service(tunnel):
    service = await tunnel.start_service()
    await tunnel.start_client(database(service))
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    async with await visit(await ready(visitor)) as guest:
        await guest.send_all(b"question")
        await guest.send_eof()
        assert await read_all(guest) == b"question"
    while visitor.counters.active:
        await trio.lowlevel.checkpoint()
    statistics = visitor.counters.statistics()
    assert (statistics.total, statistics.delivered, statistics.read) == (1, 8, 8)


async def test_megabytes_both_ways_with_digests(tunnel):
    size = 16 << 20
    there = random.Random(1).randbytes(size)
    service = await tunnel.start_service()
    await tunnel.start_client(database(service))
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    async with await visit(await ready(visitor)) as guest:

        async def send():
            await guest.send_all(there)
            await guest.send_eof()

        back = hashlib.sha256()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for piece in guest:
                back.update(piece)
    assert back.digest() == hashlib.sha256(there).digest()


async def test_many_guests(tunnel):
    service = await tunnel.start_service()
    await tunnel.start_client(database(service))
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    address = await ready(visitor)

    async def one(number):
        async with await visit(address) as guest:
            await guest.send_all(str(number).encode())
            await guest.send_eof()
            assert await read_all(guest) == str(number).encode()

    for first in range(0, 200, 50):
        async with trio.open_nursery() as nursery:
            for number in range(first, first + 50):
                nursery.start_soon(one, number)


async def test_a_target_that_is_away_is_a_reset_until_it_is_back(tunnel, caplog):
    caplog.set_level(logging.WARNING)
    service = await tunnel.start_service()
    visitor = leads_to()
    visiting = await tunnel.start_client(visit_ports=(visitor,))
    address = await ready(visitor)
    for _ in range(5):
        async with await visit(address) as guest:
            with pytest.raises(trio.BrokenResourceError):
                await read_all(guest)
        async with trio.open_nursery() as nursery:
            lives, tunnel.nursery = tunnel.nursery, nursery
            await tunnel.start_client(database(service))
            tunnel.nursery = lives
            async with await visit(address) as guest:
                await guest.send_all(b"x")
                assert await guest.receive_some() == b"x"
            nursery.cancel_scope.cancel()
        while tunnel.server.directory:
            await trio.lowlevel.checkpoint()
    assert visiting.state.value is ClientState.CONNECTED
    events = [record.getMessage() for record in caplog.records]
    assert "Visit refused" in events  # by the server, and here
    assert {record.name for record in caplog.records if record.getMessage() == "Visit refused"} == {
        "tunnel.client.visit_port",
        "tunnel.server",
    }


async def test_the_local_port_is_free_when_the_session_is_over(tunnel):
    visitor = leads_to()
    async with trio.open_nursery() as nursery:
        lives, tunnel.nursery = tunnel.nursery, nursery
        await tunnel.start_client(visit_ports=(visitor,))
        tunnel.nursery = lives
        address = await ready(visitor)
        assert not is_free(address)
        nursery.cancel_scope.cancel()
    assert is_free(address)


async def test_a_port_that_is_taken_is_listened_on_when_it_is_free(tunnel, caplog, autojump_clock):
    caplog.set_level(logging.WARNING)
    with trio.socket.socket() as other:
        await other.bind((own_host(), 0))
        other.listen()
        host, port = other.getsockname()
        visitor = VisitPort("db", 0, host, port)
        await tunnel.start_client(visit_ports=(visitor,))
        await trio.sleep(30)
        assert not visitor.addresses
    await trio.sleep(60)
    assert visitor.addresses
    said = [record for record in caplog.records if record.getMessage() == "Visitor cannot listen"]
    assert len(said) == 1


async def test_a_proxy_for_visitors_only_has_no_port(tunnel):
    service = await tunnel.start_service()
    owner = database(service)
    await tunnel.start_client(owner)
    assert owner.up
    assert not owner.addresses
    assert not tunnel.server.registry._ports
    visitor = leads_to(publish_port=5432)
    await tunnel.start_client(visit_ports=(visitor,))
    async with await visit(await ready(visitor)) as guest:
        await guest.send_all(b"x")
        assert await guest.receive_some() == b"x"


# --- Whom it may reach, and who may reach it --------------------------------------------------


def identity(name, keys):
    return lambda rules: Identity(keys.verifier, rules, name)


@pytest.fixture
async def known(certificate):
    """A server that knows two clients by name, and their keys."""
    keys = {name: derive(generate_key(secrets.token_bytes(32))) for name in ("office", "mallory")}
    async with world(certificate) as there:
        await there.start_server(identities=[identity(*entry) for entry in keys.items()])
        there.own = keys
        yield there


def says(text):
    async def serve(stream):
        await stream.send_all(text)
        await stream.send_eof()

    return serve


async def test_a_name_that_another_took_is_not_the_owners(known):
    squatter = database(await known.start_service(says(b"mallory")))
    async with trio.open_nursery() as nursery:
        lives, known.nursery = known.nursery, nursery
        await known.start_client(squatter, keys=known.own["mallory"])
        known.nursery = lives
        visitor = VisitPort("db", 5432, own_host(), 0, "office")
        await known.start_client(visit_ports=(visitor,))
        async with await visit(await ready(visitor)) as guest:
            with pytest.raises(trio.BrokenResourceError):
                await read_all(guest)
        nursery.cancel_scope.cancel()
    while known.server.directory:
        await trio.lowlevel.checkpoint()
    await known.start_client(
        database(await known.start_service(says(b"office"))), keys=known.own["office"]
    )
    async with await visit(visitor.addresses[0]) as guest:
        assert await read_all(guest) == b"office"


@pytest.mark.parametrize(("who", "may"), [("office", True), ("mallory", False), (None, False)])
async def test_only_who_is_listed_reaches_it(known, who, may):
    owner = database(await known.start_service(), allow_visitors=("office",))
    await known.start_client(owner)
    visitor = leads_to()
    # One that shares the common key calls itself "tests"; names that are chosen count for nothing.
    await known.start_client(visit_ports=(visitor,), keys=known.own[who] if who else None)
    async with await visit(await ready(visitor)) as guest:
        if may:
            await guest.send_all(b"x")
            assert await guest.receive_some() == b"x"
        else:
            with pytest.raises(trio.BrokenResourceError):
                await guest.receive_some()
    assert owner.counters.total == may


@pytest.mark.parametrize(
    ("through", "assigned", "may"),
    [("office", True, True), ("office", False, False), ("other", True, False), (None, True, False)],
)
def test_the_owner_looks_again(through, assigned, may):
    owner = database(1, allow_visitors=("office",))
    seen = Preamble(ADDRESS, ADDRESS, 0, bytes(8), through=through, assigned=assigned)
    assert owner._may_visit(seen) is may


async def test_a_proxy_at_one_address_is_reached_there_and_nowhere_else(tunnel):
    service = await tunnel.start_service()
    owner = proxy(service, name="db")
    await tunnel.start_client(owner)
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    async with await visit(await ready(visitor)) as guest:
        with pytest.raises(trio.BrokenResourceError):
            await read_all(guest)
    assert owner.counters.total == 0


# --- What a server says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("private", "addresses"), [(False, ()), (True, (Address("192.0.2.1", 80),))]
)
async def test_what_is_published_has_an_address_and_what_is_not_has_none(
    contexts,  # noqa: F811
    private,
    addresses,
):
    async def play(server):
        server.handshake._capabilities = Capabilities(features=(RECONFIGURE, "visitors"))
        await server.configured(Bound(0, addresses))
        await trio.sleep_forever()

    async with against(contexts, play) as client:
        client.proxies = (proxy(1, name="a", visitors_only=private),)
        with trio.fail_after(5), pytest.RaisesGroup(RemoteProtocolError):
            await hold_session(client, 1, lambda: None)


@pytest.fixture
async def old(certificate, monkeypatch):
    """A server that knows no visits, and would publish for everybody."""
    monkeypatch.setattr(server_session, "OWN", Capabilities(features=(RECONFIGURE,)))
    async with world(certificate) as there:
        await there.start_server()
        yield there


async def test_a_server_that_knows_no_visits_is_not_asked(old):
    client = old.client(database(1))
    with pytest.raises(LinkLost, match="visitors_only"):
        await hold_session(client, 1, lambda: None)


async def test_nor_while_it_is_connected(old):
    service = await old.start_service()
    handle = await old.start_client(proxy(service), client_id="0" * 32)
    handle.change(old.client(proxy(service), database(service), client_id="0" * 32), anew=False)
    await handle.state.wait_value(ClientState.CONNECTING)
    assert not any(
        held.name == "db" for session in old.server.sessions.values() for held in session.proxies
    )


async def test_a_change_in_the_middle_of_the_handshake_leads_nobody_elsewhere(
    contexts,  # noqa: F811
    caplog,
):
    caplog.set_level(logging.INFO)
    asked, changed = trio.Event(), trio.Event()

    async def play(server):
        server.handshake._capabilities = Capabilities(features=(RECONFIGURE, "visitors"))

        async def before():
            asked.set()
            await changed.wait()

        await server.configured(before=before)
        await trio.sleep_forever()

    async with against(contexts, play) as client:
        client.proxies = ()
        client.visit_ports = (VisitPort("asked", 1, own_host(), 0),)

        async def change():
            await asked.wait()
            client.visit_ports = (VisitPort("changed", 1, own_host(), 0),)
            changed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            nursery.start_soon(hold_session, client, 1, lambda: None)
            with trio.fail_after(5):
                while not [r for r in caplog.records if r.getMessage() == "Visitor ready"]:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert [r.proxy for r in caplog.records if r.getMessage() == "Visitor ready"] == ["asked"]


async def test_what_is_said_of_a_target_names_the_proxy(tunnel, caplog):
    caplog.set_level(logging.INFO)
    await tunnel.start_client(visit_ports=(leads_to("db"), leads_to("web")))
    await tunnel.start_client(database(await tunnel.start_service()))

    def said(event):
        return sorted(r.proxy for r in caplog.records if r.getMessage() == event)

    with trio.fail_after(5):
        while not said("Target present"):
            await trio.lowlevel.checkpoint()
    assert (said("Target present"), said("Target away")) == (["db"], ["db", "web"])


async def test_the_remedy_fits_what_is_wrong(tunnel, caplog):
    caplog.set_level(logging.WARNING)
    await tunnel.start_client(visit_ports=(VisitPort("db", 0, "203.0.113.9", 15432),))

    def said():
        return [r.remedy for r in caplog.records if r.getMessage() == "Visitor cannot listen"]

    with trio.fail_after(5):
        while not said():
            await trio.lowlevel.checkpoint()
    assert "change bind_addr" in said()[0]


async def test_it_is_known_when_the_target_can_be_reached(tunnel):
    service = await tunnel.start_service()
    visitor = leads_to()
    scope = trio.CancelScope()
    with trio.fail_after(10):
        await tunnel.start_client(visit_ports=(visitor,))
        address = await ready(visitor)
        assert (visitor.reach.value, visitor.owned_by) == (None, "")
        async with trio.open_nursery() as nursery:

            async def owner():
                with scope:
                    await run_client(tunnel.client(database(service)))

            nursery.start_soon(owner)
            assert await visitor.reach.wait_value(lambda at: at is not None) == address
            assert visitor.owned_by == "tests"
            scope.cancel()
            await visitor.reach.wait_value(None)
            assert visitor.owned_by == ""


async def test_without_a_session_nothing_is_reached(tunnel):
    service = await tunnel.start_service()
    await tunnel.start_client(database(service))
    visitor = leads_to()
    scope = trio.CancelScope()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def guest():
                with scope:
                    await run_client(tunnel.client(visit_ports=(visitor,)))

            nursery.start_soon(guest)
            await visitor.reach.wait_value(lambda at: at is not None)
            scope.cancel()
    assert (visitor.reach.value, visitor.owned_by, visitor.addresses) == (None, "", ())


async def test_whose_it_was_is_forgotten_even_if_the_port_was_never_free(tunnel):
    service = await tunnel.start_service()
    await tunnel.start_client(database(service))
    visitor = leads_to()
    [taken] = open_listeners(visitor.bind_addr, 0)
    visitor.bind_port = taken.getsockname()[1]
    scope = trio.CancelScope()
    with taken, trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def guest():
                with scope:
                    await run_client(tunnel.client(visit_ports=(visitor,)))

            nursery.start_soon(guest)
            while not visitor.owned_by:
                await trio.lowlevel.checkpoint()
            assert visitor.reach.value is None
            scope.cancel()
    assert visitor.owned_by == ""
