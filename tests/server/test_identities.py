"""Clients with keys of their own: what each may do, and what it must not touch."""

import logging
import secrets

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.needs import needs_ipv6
from tests.rig import own_host, proxy, visit, world
from tunnel.errors import Refused
from tunnel.model import PortRange, RejectionCode
from tunnel.protocol.keys import derive, generate_key
from tunnel.server.identity import Identities, Identity
from tunnel.server.rules import Rules
from tunnel.stats import Reason
from tunnel.views import ClientState

OFFICE = derive(generate_key(b"o" * 32))
HOME = derive(generate_key(b"h" * 32))
SHARED = derive(generate_key(b"s" * 32))


def identity(keys, name, *, ports=None, **limits):
    """What makes an identity of the server's rules."""

    def make(rules):
        own = rules if ports is None else Rules(ports, rules.reserved)
        return Identity(keys.verifier, own, name, **limits)

    return make


def rejections(caplog):
    """The codes of the proxies that the server rejected."""
    return [
        record.code
        for record in caplog.records
        if record.getMessage() == "Proxy rejected" and record.name.startswith("tunnel.server")
    ]


async def is_reset(address):
    """True if a visitor is reset at once, perhaps while he still connects."""
    try:
        async with await visit(address) as visitor:
            await visitor.receive_some()
    except (OSError, trio.BrokenResourceError):
        return True
    return False


async def is_served(address):
    """True if the echo service answers a visitor; see that he is not reset."""
    async with await visit(address) as visitor:
        await visitor.send_all(b"x")
        return await visitor.receive_some() == b"x"


# --- Names ------------------------------------------------------------------------------------


async def test_a_client_is_called_as_the_server_says(certificate, caplog):
    caplog.set_level(logging.INFO)
    async with world(certificate) as tunnel:
        service = await tunnel.start_service()
        handle = await tunnel.start_server(identities=[identity(OFFICE, "office")])
        client = await tunnel.start_client(proxy(service), keys=OFFICE)
        [session] = handle.statistics()
        assert session.name == "office"
        for session in tunnel.server.sessions.values():
            session.link.lose("the test cuts it")
        await client.state.wait_transition(ClientState.CONNECTED)
    lines = {record.getMessage(): record for record in caplog.records}
    for event in ("Client connected", "Proxy listening", "Client disconnected"):
        assert lines[event].client == "office"


async def test_with_the_shared_key_a_client_says_its_name_itself(certificate):
    async with world(certificate) as tunnel:
        handle = await tunnel.start_server(identities=[identity(OFFICE, "office")])
        await tunnel.start_client(proxy(1))
        [session] = handle.statistics()
        assert session.name == "tests"


def test_nobody_is_called_as_the_owner_of_another_key():
    rules = Rules((), frozenset())
    identities = Identities(
        [Identity(SHARED.verifier, rules), Identity(OFFICE.verifier, rules, "office")]
    )
    shared, office = SHARED.verifier.key_id, OFFICE.verifier.key_id
    assert identities.name(shared, "office") == "office (shared key)"
    assert identities.name(shared, "home") == "home"
    assert identities.name(office, "home") == "office"
    assert identities.verifier(office) is OFFICE.verifier
    assert identities.verifier(HOME.verifier.key_id) is None


def test_a_name_made_longer_is_still_a_name():
    longest = "网" * 64
    rules = Rules((), frozenset())
    entries = [Identity(SHARED.verifier, rules), Identity(OFFICE.verifier, rules, longest)]
    made = Identities(entries).name(SHARED.verifier.key_id, longest)
    assert made == "网" * 51 + " (shared key)"
    assert len(made) == 64


async def test_a_key_that_is_not_known_gets_the_same_answer(certificate, caplog):
    async with world(certificate) as tunnel:
        await tunnel.start_server(identities=[identity(OFFICE, "office")])
        client = tunnel.client(keys=HOME)
        caplog.clear()
        with trio.move_on_after(5):
            await _refused(tunnel, client)
    [line] = [r for r in caplog.records if r.getMessage() == "Authentication failed"]
    assert line.reason == "the server does not accept this auth_key"


async def _refused(tunnel, client):
    from tunnel.client.session import hold_session

    with pytest.raises(Refused) as caught:
        await hold_session(client, 1, lambda: None)
    return caught.value


# --- What each may publish --------------------------------------------------------------------


async def test_each_has_ports_of_its_own(certificate, caplog):
    host = own_host()
    identities = [
        identity(OFFICE, "office", ports=(PortRange(7001, 7001),)),
        identity(HOME, "home", ports=(PortRange(7002, 7002),)),
    ]

    def wanted():
        return [proxy(1, port, f"{port}", publish_addr=host) for port in (7001, 7002)]

    async with world(certificate) as tunnel:
        await tunnel.start_server(allow_ports=(PortRange(7003, 7003),), identities=identities)
        for keys, port in ((OFFICE, 7001), (HOME, 7002)):
            handle = await tunnel.start_client(*wanted(), keys=keys)
            published = [one.addresses[0].port for one in handle.statistics() if one.addresses]
            assert published == [port]
        assert rejections(caplog) == [RejectionCode.NOT_ALLOWED] * 2
        await tunnel.start_client(*wanted())
        assert rejections(caplog) == [RejectionCode.NOT_ALLOWED] * 4


async def test_nobody_takes_another_ones_port_or_session(certificate, caplog):
    """Not with the same client_id, not while the owner is silent."""
    host, client_id = own_host(), secrets.token_hex(16)
    identities = [identity(OFFICE, "office"), identity(HOME, "home")]
    async with world(certificate) as tunnel:
        handle = await tunnel.start_server(identities=identities)
        wanted = proxy(1, 7001, publish_addr=host)
        await tunnel.start_client(wanted, keys=OFFICE, client_id=client_id)
        [session] = tunnel.server.sessions.values()

        async def silent():
            raise AssertionError("another identity's session was asked")

        session.registration.probe = silent
        for keys in (HOME, None):
            taken = proxy(1, 7001, publish_addr=host)
            await tunnel.start_client(taken, keys=keys, client_id=client_id)
        assert [one.name for one in handle.statistics()] == ["office", "home", "tests"]
        lines = [r for r in caplog.records if r.getMessage() == "Proxy rejected"]
        assert {line.reason for line in lines} == {"another client has port 7001"}


async def test_the_most_proxies_hold_for_all_sessions_of_an_identity(certificate, caplog):
    async with world(certificate) as tunnel:
        handle = await tunnel.start_server(identities=[identity(OFFICE, "office", max_proxies=3)])
        await tunnel.start_client(proxy(1), proxy(1, name="two"), keys=OFFICE)
        await tunnel.start_client(proxy(1), proxy(1, name="two"), keys=OFFICE)
        assert sum(len(session.proxies) for session in handle.statistics()) == 3
        assert rejections(caplog) == [RejectionCode.LIMIT]
        [line] = [r for r in caplog.records if r.name == "tunnel.server" and r.levelno > 20]
        assert line.reason == "the server has max_proxies = 3 for office"
        # Others are not concerned.
        await tunnel.start_client(*(proxy(1, name=str(n)) for n in range(4)))
        assert sum(len(session.proxies) for session in handle.statistics()) == 7


async def test_a_ghost_does_not_take_the_places_of_a_client_that_lost_its_state(certificate):
    async with world(certificate) as tunnel:
        await tunnel.start_server(identities=[identity(OFFICE, "office", max_proxies=1)])
        await tunnel.start_client(proxy(1), keys=OFFICE)
        [ghost] = tunnel.server.sessions.values()

        async def silent():
            await trio.lowlevel.checkpoint()
            return False

        ghost.registration.probe = silent
        handle = await tunnel.start_client(proxy(1), keys=OFFICE)
        assert handle.statistics()[0].addresses
        assert ghost.registration.gone.is_set()
        assert tunnel.server.registry.publishers(OFFICE.verifier.key_id.hex()) != ()


# --- Visitors ---------------------------------------------------------------------------------


async def test_only_so_many_visitors_of_a_client(certificate, carrier, caplog):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        limited = identity(OFFICE, "office", max_connections=2)
        await tunnel.start_server(identities=[limited])
        handle = await tunnel.start_client(proxy(service), proxy(service, name="two"), keys=OFFICE)
        other = await tunnel.start_client(proxy(service))
        one, two = (found.addresses[0] for found in handle.statistics())
        first, second = await visit(one), await visit(two)
        for visitor in (first, second):
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
        assert await is_reset(one)
        assert await is_reset(two)
        assert tunnel.server.tally.statistics()[Reason.CLIENT_FULL] == 2
        assert await is_served(other.statistics()[0].addresses[0])
        [line, _] = [r for r in caplog.records if r.getMessage() == "Visitor turned away"]
        assert (line.client, line.proxy) == ("office", "web")
        assert line.reason == "too many connections of the client"
        await first.aclose()
        while tunnel.server.identities.find(OFFICE.verifier.key_id).quota.taken == 2:
            await wait_all_tasks_blocked(0.001)
        assert await is_served(two)
        await second.aclose()


@pytest.mark.parametrize(
    ("allow_from", "may"),
    [
        ((), True),
        (("127.0.0.0/8",), True),
        (("192.0.2.0/24", "127.0.0.1/32"), True),
        (("192.0.2.0/24",), False),
        (("::/0",), False),
        (("127.0.0.2/31",), False),
    ],
)
async def test_who_may_visit(certificate, carrier, allow_from, may):
    async with world(certificate, carrier) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(proxy(service, allow_from=allow_from))
        address = handle.statistics()[0].addresses[0]
        assert await (is_served if may else is_reset)(address)
        [session] = tunnel.server.sessions.values()
        assert tunnel.server.tally.statistics()[Reason.NOT_ALLOWED] == (not may)
        # No stream was opened for whom may not come.
        assert session.proxies.by_id[0].counters.total == may
        assert handle.statistics()[0].counters.total == may


@needs_ipv6
async def test_who_may_visit_over_ipv6(certificate):
    async with world(certificate) as tunnel:
        service = await tunnel.start_service()
        await tunnel.start_server()
        handle = await tunnel.start_client(
            proxy(service, name="no", publish_addr="::1", allow_from=("127.0.0.0/8",)),
            proxy(service, name="yes", publish_addr="::1", allow_from=("::1/128",)),
        )
        no, yes = (found.addresses[0] for found in handle.statistics())
        assert await is_reset(no)
        assert await is_served(yes)
