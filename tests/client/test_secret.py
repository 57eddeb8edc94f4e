"""A proxy with a secret: who is let in, who is not, and that either says why."""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from tests.client.test_changes import until
from tests.client.test_visitors import database, known, ready, says  # noqa: F401
from tests.e2e.rig import service
from tests.rig import echo, own_host, proxy, read_all, visit, world
from tests.server.rig import place
from tests.server.test_client_visits import VISIT, member
from tunnel import limits
from tunnel.client.run import run_client
from tunnel.client.visit_auth import Guard
from tunnel.client.visit_port import VisitPort
from tunnel.compose import visit_keys
from tunnel.config import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.errors import ConfigError
from tunnel.model import Address
from tunnel.protocol.handshake import ClientHandshake
from tunnel.protocol.keys import generate_key
from tunnel.protocol.preamble import Preamble
from tunnel.protocol.proofs import VisitTranscript, visit_key
from tunnel.views import ClientState

KEY, OTHER = (visit_key(generate_key(bytes([number]) * 32)) for number in (1, 2))


def leads_to(key=KEY, name="db", **more):
    return VisitPort(name, 0, own_host(), 0, visit_key=key, **more)


def guarded(service, key=KEY, **settings):
    return database(service, visit_key=key, **settings)


class Service:
    """An echo that counts whom it has seen."""

    def __init__(self):
        self.seen = 0

    async def __call__(self, stream):
        self.seen += 1
        await echo(stream)


@pytest.fixture
async def tunnel(carrier, certificate):
    async with world(certificate, carrier) as there:
        await there.start_server()
        there.echo = Service()
        there.port = await there.start_service(there.echo)
        yield there


@asynccontextmanager
async def running(tunnel, *proxies, **settings):
    """A client for as long as the block lasts."""
    async with trio.open_nursery() as nursery:
        lives, tunnel.nursery = tunnel.nursery, nursery
        try:
            handle = await tunnel.start_client(*proxies, **settings)
        finally:
            tunnel.nursery = lives
        yield handle
        nursery.cancel_scope.cancel()


async def echoes(address, word=b"hello"):
    async with await visit(address) as guest:
        await guest.send_all(word)
        await guest.send_eof()
        assert await read_all(guest) == word


async def is_refused(address):
    """A guest that says something at once gets nothing but a reset, which may come as quickly."""
    with pytest.raises((OSError, trio.BrokenResourceError)):
        async with await visit(address) as guest:
            await guest.send_all(b"password")
            assert await guest.receive_some() == b"never"


def said(caplog, name):
    """What a part of the clients has said of refused visits."""
    return [
        record
        for record in caplog.records
        if record.getMessage() == "Visit refused" and record.name == f"tunnel.client.{name}"
    ]


# --- Who knows it, and who does not -----------------------------------------------------------


async def test_who_knows_the_secret_is_let_in(tunnel):
    owner = guarded(tunnel.port)
    await tunnel.start_client(owner)
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    address = await ready(visitor)
    await echoes(address)
    await echoes(address, bytes(3_000_000))
    assert owner.counters.total == tunnel.echo.seen == visitor.counters.total == 2


@pytest.mark.parametrize(
    ("key", "owner_says", "remedy"),
    [
        (OTHER, "showed another visitor_secret", "must be the same"),
        (None, "showed no visitor_secret", "the proxy has one"),
    ],
    ids=["another", "none"],
)
async def test_who_does_not_is_not(tunnel, caplog, key, owner_says, remedy):
    caplog.set_level(logging.WARNING)
    owner = guarded(tunnel.port)
    await tunnel.start_client(owner)
    visitor = leads_to(key)
    await tunnel.start_client(visit_ports=(visitor,))
    address = await ready(visitor)
    for _ in range(3):
        await is_refused(address)
    assert owner.counters.total == tunnel.echo.seen == 0
    [there], [here] = said(caplog, "proxy"), said(caplog, "visit_port")
    assert owner_says in there.reason
    assert (there.proxy, there.guest_of) == ("db", "tests")
    assert here.reason == "wrong secret"
    assert remedy in here.remedy
    assert here.connection == there.connection


async def test_a_proxy_that_cannot_prove_anything_gets_no_guest(tunnel, caplog):
    caplog.set_level(logging.WARNING)
    owner = database(tunnel.port)
    await tunnel.start_client(owner)
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    await is_refused(await ready(visitor))
    assert owner.counters.total == tunnel.echo.seen == 0
    [here] = said(caplog, "visit_port")
    assert "asks for no visitor_secret" in here.reason
    assert "take it out here" in here.remedy


async def test_who_is_away_is_away(tunnel, caplog):
    """And back without a reconnect; whoever comes then waits for no second try."""
    caplog.set_level(logging.WARNING)
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    address = await ready(visitor)
    await is_refused(address)
    for _ in range(3):
        async with running(tunnel, guarded(tunnel.port)):
            await until(lambda: visitor._target.value.nonce)
            await echoes(address)
        await until(lambda: visitor._target.value.reason)
        await is_refused(address)
    assert "no client has a proxy db" in said(caplog, "visit_port")[0].reason


async def test_nobody_comes_too_early(tunnel):
    """A guest that is there before the server has said anything of the proxy waits for it."""
    await tunnel.start_client(guarded(tunnel.port))
    for _ in range(10):
        visitor = leads_to()
        async with running(tunnel, visit_ports=(visitor,)):
            await echoes(await ready(visitor))


async def test_it_is_the_secret_of_visits_alone(tunnel, caplog):
    owner = proxy(tunnel.port, name="db", publish_addr="*", visit_key=KEY)
    await tunnel.start_client(owner)
    await echoes(Address("127.0.0.1", owner.addresses[0].port))
    for key, may in ((KEY, True), (OTHER, False)):
        visitor = leads_to(key)
        async with running(tunnel, visit_ports=(visitor,)):
            await (echoes if may else is_refused)(await ready(visitor))
    assert tunnel.echo.seen == 2


async def test_a_secret_goes_with_the_other_rules(known, caplog):  # noqa: F811
    """Somebody who knows the secret and is not listed; the owner says so too, if it is asked."""
    caplog.set_level(logging.WARNING)
    seen = Service()
    port = await known.start_service(seen)
    owner = guarded(port, allow_visitors=("office",))
    await known.start_client(owner)
    visitor = leads_to()
    await known.start_client(visit_ports=(visitor,), keys=known.own["mallory"])
    address = await ready(visitor)
    await is_refused(address)
    # A server that does not look.
    [session] = [each for each in known.server.sessions.values() if each.proxies]
    held = session.proxies.by_id[0]
    held.request = attrs.evolve(held.request, allow_visitors=())
    known.server.directory.changed("db")
    await until(lambda: visitor._target.value.nonce)
    await is_refused(address)
    assert seen.seen == 0
    assert "not in allow_visitors" in said(caplog, "proxy")[0].reason


# --- Who only claims to be the owner ----------------------------------------------------------


@asynccontextmanager
async def impostor(certificate, caplog):
    """An owner that takes part in everything and does not know the secret, and its guest."""
    caplog.set_level(logging.WARNING)
    async with place(certificate) as there:
        visitor = leads_to()
        wanted = database(1, visit_key=OTHER)
        wanted.guard.begin("stranger")
        async with member(there, wanted.request()) as owner:
            async with running(there.tunnel, visit_ports=(visitor,)):
                async with await visit(await ready(visitor)) as guest:
                    await guest.send_all(b"password")
                    yield guest, owner
        assert not visitor.counters.total


async def is_told(guest, caplog):
    with pytest.raises(trio.BrokenResourceError):
        await guest.receive_some()
    [here] = said(caplog, "visit_port")
    assert here.reason == "unproved"
    assert "set owner" in here.remedy


@pytest.mark.parametrize(
    "answer", [b"x" * 32, b"220 welcome to the database, stranger", b"", b"x" * 31]
)
async def test_a_wrong_proof_lets_no_byte_through(certificate, caplog, answer):
    async with impostor(certificate, caplog) as (guest, owner):
        arrived, _, data = await owner.guest()
        assert data == b""  # nothing of the guest's is sent to whoever has proved nothing
        if answer:
            await arrived.send_all(answer)
        await arrived.send_eof()
        await is_told(guest, caplog)
        with pytest.raises(trio.BrokenResourceError, match="unproved"):
            await arrived.receive_some()


async def test_no_proof_is_waited_for_for_a_while(certificate, caplog, autojump_clock):
    async with impostor(certificate, caplog) as (guest, owner):
        await owner.guest()
        began = trio.current_time()
        await is_told(guest, caplog)
        waited = trio.current_time() - began
        assert waited == pytest.approx(limits.VISIT_PROOF_TIMEOUT, abs=0.5)


async def test_a_link_that_is_lost_meanwhile_resets_the_guest(certificate, caplog):
    async with impostor(certificate, caplog) as (guest, owner):
        await owner.guest()
        owner.link.lose("gone")
        with pytest.raises(trio.BrokenResourceError):
            await guest.receive_some()


async def test_a_visitor_that_stops_meanwhile_resets_the_guest(certificate):
    async with place(certificate) as there:
        wanted = guarded(1)
        wanted.guard.begin("stranger")
        async with member(there, wanted.request()) as owner:
            visitor = leads_to()
            async with running(there.tunnel, visit_ports=(visitor,)):
                guest = await visit(await ready(visitor))
                await owner.guest()
            with pytest.raises(trio.BrokenResourceError):
                await guest.receive_some()
            await guest.aclose()


async def test_a_proof_may_come_in_pieces_and_with_what_follows(certificate):
    async with place(certificate) as there:
        wanted = guarded(1)
        wanted.guard.begin("stranger")
        async with member(there, wanted.request()) as owner:
            visitor = leads_to()
            async with running(there.tunnel, visit_ports=(visitor,)):
                async with await visit(await ready(visitor)) as guest:
                    arrived, preamble, _ = await owner.guest()
                    proof = wanted.guard.answer("db", 5432, preamble)
                    for piece in (proof[:1], proof[1:20], proof[20:] + b"welcome"):
                        await arrived.send_all(piece)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    assert await guest.receive_some() == b"welcome"
                    await guest.send_all(b"thanks")
                    assert await arrived.receive_some() == b"thanks"
                    await arrived.send_eof()
                    assert await guest.receive_some() == b""


# --- Proofs that count once -------------------------------------------------------------------


async def test_a_proof_that_the_server_passes_on_twice_counts_once(certificate, caplog):
    """Who visits here sends what it likes, as a server could."""
    caplog.set_level(logging.WARNING)
    async with place(certificate) as there:
        seen = Service()
        async with (
            service(seen) as port,
            running(there.tunnel, owner := guarded(port)),
            member(there, visits=[VISIT]) as visitor,
        ):
            target = await visitor.target(True)
            nonce = secrets.token_bytes(32)
            about = VisitTranscript(
                target.owner, "db", target.port, "stranger", target.nonce, nonce
            )
            proof = nonce + about.visit_proof(KEY)
            stream = await visitor.visit(proof=proof)
            assert await stream.receive_some() == about.visited_proof(KEY)
            again = await visitor.visit(proof=proof, data=b"drop table")
            with pytest.raises(trio.BrokenResourceError, match="wrong secret"):
                await again.receive_some()
            await stream.aclose()
            await until(lambda: not owner.counters.active)
        assert seen.seen == 1
        assert "used up" in said(caplog, "proxy")[0].reason


async def test_a_nonce_is_replaced_and_nobody_notices(tunnel, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(limits, "VISIT_PROOFS", 4)
    owner = guarded(tunnel.port)
    await tunnel.start_client(owner)
    visitor = leads_to()
    await tunnel.start_client(visit_ports=(visitor,))
    address = await ready(visitor)
    await until(lambda: visitor._target.value is not None)
    nonces = set()
    for _ in range(30):
        await echoes(address)
        nonces.add(visitor._target.value.nonce)
        await until(lambda: visitor._target.value.nonce == owner.guard.nonce)
    assert len(nonces) >= 6
    assert not said(caplog, "proxy")
    targets = [r for r in caplog.records if r.getMessage() == "Target present"]
    assert len(targets) == 1  # not again for each nonce


def guest_of(guard, *, nonce=None, key=KEY, owner="office", visitor="laptop", **changes):
    """A guest that comes with a proof."""
    mine = secrets.token_bytes(32) if nonce is None else nonce
    about = {"proxy": "db", "port": 5432, "owner_nonce": guard.nonce} | changes
    visitation = VisitTranscript(owner=owner, visitor=visitor, visitor_nonce=mine, **about)
    proof = mine + visitation.visit_proof(key)
    there = Address("192.0.2.1", 1)
    return Preamble(there, there, 0, bytes(8), proof=proof, through="laptop")


def guard_in_session():
    guard = Guard(KEY)
    guard.begin("office")
    return guard


def test_a_guard_answers_what_the_protocol_says():
    guard = guard_in_session()
    guest = guest_of(guard, nonce=b"n" * 32)
    about = VisitTranscript("office", "db", 5432, "laptop", guard.nonce, b"n" * 32)
    assert guard.answer("db", 5432, guest) == about.visited_proof(KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": OTHER},
        {"owner": "mallory"},
        {"proxy": "web"},
        {"port": 5433},
        {"visitor": "mallory"},
        {"owner_nonce": bytes(32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_proof_for_anything_else_does_not_count(changes):
    guard = guard_in_session()
    assert "another" in guard.answer("db", 5432, guest_of(guard, **changes))
    assert isinstance(guard.answer("db", 5432, guest_of(guard)), bytes)


def test_a_proof_of_an_earlier_session_does_not_count():
    guard = guard_in_session()
    guest = guest_of(guard)
    guard.end()
    assert not guard.nonce
    guard.begin("office")
    assert "session that is over" in guard.answer("db", 5432, guest)


def test_what_a_guard_remembers_is_bounded(monkeypatch):
    monkeypatch.setattr(limits, "VISIT_PROOFS", 10)
    guard = guard_in_session()
    renewals = []
    guard.on_renewal = lambda: renewals.append(guard.nonce)
    first = guard.nonce
    guests = [guest_of(guard, owner_nonce=first) for _ in range(25)]
    answers = [guard.answer("db", 5432, guest) for guest in guests]
    # The former nonce is good for as many again, and for no more.
    assert [isinstance(answer, bytes) for answer in answers] == [True] * 20 + [False] * 5
    assert renewals == [guard.nonce]
    most = 0
    for _ in range(100):
        assert isinstance(guard.answer("db", 5432, guest_of(guard)), bytes)
        most = max(most, sum(map(len, guard._shown.values())))
    assert most <= 30
    assert len(renewals) == 11
    assert not any(isinstance(guard.answer("db", 5432, guest), bytes) for guest in guests)


# --- Changes ----------------------------------------------------------------------------------

ID = "0" * 32


async def test_a_secret_changes_in_place(tunnel, caplog):
    caplog.set_level(logging.WARNING)
    handle = await tunnel.start_client(guarded(tunnel.port), client_id=ID)
    visitor = leads_to()
    visiting = await tunnel.start_client(visit_ports=(visitor,), client_id="1" * 32)
    address = await ready(visitor)
    await until(lambda: visitor._target.value is not None)
    first = visitor._target.value.nonce
    async with await visit(address) as lasting:
        await lasting.send_all(b"one")
        assert await lasting.receive_some() == b"one"
        handle.change(tunnel.client(guarded(tunnel.port, OTHER), client_id=ID), anew=False)
        await until(lambda: visitor._target.value.nonce not in (b"", first))
        await is_refused(address)
        await lasting.send_all(b"two")
        assert await lasting.receive_some() == b"two"
    now = leads_to(OTHER)
    visiting.change(tunnel.client(visit_ports=(now,), client_id="1" * 32), anew=False)
    await echoes(await ready(now))
    assert handle.state.value is ClientState.CONNECTED


@pytest.mark.parametrize(("before", "after"), [(None, KEY), (KEY, None)], ids=["set", "taken out"])
async def test_a_secret_comes_and_goes(tunnel, before, after):
    handle = await tunnel.start_client(guarded(tunnel.port, before), client_id=ID)
    old, new = leads_to(before), leads_to(after)
    await tunnel.start_client(visit_ports=(old,))
    await tunnel.start_client(visit_ports=(new,))
    await echoes(await ready(old))
    await is_refused(await ready(new))
    handle.change(tunnel.client(guarded(tunnel.port, after), client_id=ID), anew=False)
    await until(lambda: bool(new._target.value.nonce) is bool(after))
    await echoes(new.addresses[0])
    await is_refused(old.addresses[0])


async def test_a_secret_that_changes_while_the_server_is_being_asked(tunnel, monkeypatch):
    """What was sent is what the server knows, and not what is wanted by the time it answers."""
    owner = guarded(tunnel.port)
    client = tunnel.client(owner, client_id=ID)
    configure = ClientHandshake.configure

    def change_then(handshake, *what):
        frame = configure(handshake, *what)
        monkeypatch.setattr(ClientHandshake, "configure", configure)
        client.update(tunnel.client(guarded(tunnel.port, OTHER), client_id=ID), anew=False)
        return frame

    monkeypatch.setattr(ClientHandshake, "configure", change_then)
    await tunnel.nursery.start(run_client, client)
    await until(lambda: tunnel.server.sessions and client.session is not None)
    [session] = tunnel.server.sessions.values()
    await until(lambda: session.proxies.by_id[0].request.visit_nonce == owner.guard.nonce)
    visitor = leads_to(OTHER)
    await tunnel.start_client(visit_ports=(visitor,))
    await echoes(await ready(visitor))


# --- Where secrets come from ------------------------------------------------------------------


def config(*proxies, visitors=()):
    entries = [ProxyConfig(name="a", publish_port=1, local_port=1, **keys) for keys in proxies]
    guests = [VisitorConfig(name="a", publish_port=1, bind_port=1, **keys) for keys in visitors]
    return ClientConfig(
        server_addr=("x",), auth_key="k" * 16, proxies=tuple(entries), visitors=tuple(guests)
    )


def test_secrets_come_from_the_configuration_or_from_files(tmp_path):
    secret = generate_key(bytes(32))
    (tmp_path / "db.secret").write_text(secret + "\n")
    (tmp_path / "db.secret").chmod(0o600)
    here, there = {"visitor_secret": secret}, {"visitor_secret_file": "db.secret"}
    found = visit_keys(config(here, {}, there, visitors=[there]), tmp_path / "client.toml")
    key = visit_key(secret)
    assert found == ([key, None, key], [key])


def test_a_secret_is_stretched_once(monkeypatch):
    stretched = []

    def count(secret):
        stretched.append(secret)
        return visit_key(generate_key(bytes(32)))

    monkeypatch.setattr("tunnel.compose.visit_key", count)
    entry = {"visitor_secret": "correct horse battery staple"}
    visit_keys(config(*[entry] * 5, visitors=[entry] * 5), None)
    assert stretched == ["correct horse battery staple"]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"visitor_secret": generate_key(bytes(32))[:-1]}, "checksum is wrong"),
        ({"visitor_secret_file": "missing"}, "missing"),
    ],
)
def test_a_secret_that_cannot_be_used_says_where(tmp_path, keys, why):
    with pytest.raises(ConfigError, match=r"visitors\[0\]\.visitor_secret: .*" + why):
        visit_keys(config(visitors=[keys]), tmp_path / "client.toml")


def test_a_secret_is_never_shown():
    shown = f"{guarded(1)!r}{leads_to()!r}{guard_in_session()!r}"
    assert KEY.hex() not in shown
    assert repr(KEY)[2:-1] not in shown
