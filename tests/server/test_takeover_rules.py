"""When a newcomer may end a session, seen from the wire: by its owner, in time, and wholly."""

import secrets

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rig import is_free, world
from tests.server.rig import Place, place, read_to_the_end
from tunnel import limits
from tunnel.client.session import hold_session
from tunnel.errors import Refused
from tunnel.model import Address
from tunnel.net.framed import next_event
from tunnel.protocol.keys import derive, generate_key
from tunnel.protocol.messages import ProxyRequest
from tunnel.server.identity import Identity
from tunnel.server.registry import Owner, Registration, Registry

ID, INSTANCE = "1" * 32, "2" * 32


async def authenticated(there, **changes):
    """A connection of the same client, up to its `configure`, which the caller sends."""
    stream = await there.tls()
    handshake = there.handshake(stream, **{"client_id": ID, "instance_id": INSTANCE} | changes)
    await next_event(handshake, stream)
    await stream.send_all(handshake.authenticate())
    await next_event(handshake, stream)
    return stream, handshake


async def connected(there, **changes):
    stream, handshake = await authenticated(there, **changes)
    await stream.send_all(handshake.configure(()))
    await next_event(handshake, stream)
    return stream


async def sessions(there, count):
    with trio.fail_after(5):
        while len(there.tunnel.server.sessions) != count:
            await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()


def said(there, event):
    return [line for line in there.lines.records if line.getMessage() == event]


async def test_the_connection_that_was_taken_over_is_reset(certificate):
    async with place(certificate) as there:
        former = await connected(there, attempt=1)
        newcomer = await connected(there, attempt=2)
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await former.receive_some()
        await sessions(there, 1)
        assert len(said(there, "Session taken over")) == 1
        [line] = said(there, "Client disconnected")
        assert line.reason == "taken over by a new connection of the same client"
        former.abort()
        newcomer.abort()


@pytest.mark.parametrize(
    "changes",
    [{"attempt": 1}, {"attempt": 2}, {"attempt": 3, "instance_id": "3" * 32}],
    ids=["older", "same", "another process"],
)
async def test_a_living_session_is_not_taken_over_by_what_is_not_certainly_later(
    certificate, changes, caplog
):
    async with world(certificate) as tunnel:
        await tunnel.start_server()
        there = Place(tunnel, None)
        client = tunnel.client(client_id=ID)
        client.instance_id = INSTANCE
        up = trio.Event()
        tunnel.nursery.start_soon(hold_session, client, 2, up.set)
        await up.wait()
        stream, handshake = await authenticated(there, **changes)
        await stream.send_all(handshake.configure(()))
        with pytest.raises(Refused) as caught:
            await next_event(handshake, stream)
        assert caught.value.code == "already_connected"
        assert "Session taken over" not in caplog.text
        assert len(tunnel.server.sessions) == 1
        await stream.aclose()


async def test_a_silent_session_is_taken_over_even_by_an_older_attempt(certificate, monkeypatch):
    monkeypatch.setattr(limits, "PROBE_SHORTEST", 0.05)
    async with place(certificate) as there:
        former = await connected(there, attempt=5)
        newcomer = await connected(there, attempt=4)
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            while True:
                await former.receive_some()  # the ping, which it did not answer
        await sessions(there, 1)
        former.abort()
        newcomer.abort()


@pytest.mark.parametrize("sent", [b"", b"\xff\xff\xff\xff"], ids=["nothing", "nonsense"])
async def test_nothing_is_evicted_before_a_valid_configure(certificate, sent):
    async with place(certificate) as there:
        former = await connected(there, attempt=1)
        newcomer, _ = await authenticated(there, attempt=2)
        if sent:
            await newcomer.send_all(sent)
            await read_to_the_end(newcomer)
        await wait_all_tasks_blocked()
        assert not said(there, "Session taken over")
        assert len(there.tunnel.server.sessions) == 1
        newcomer.abort()
        former.abort()


async def test_another_configuration_with_the_same_key_is_left_alone(certificate):
    async with place(certificate) as there:
        former = await connected(there, attempt=1)
        other = await connected(there, attempt=2, client_id="4" * 32)
        assert len(there.tunnel.server.sessions) == 2
        assert not said(there, "Session taken over")
        former.abort()
        other.abort()


async def test_of_many_newcomers_at_once_one_takes_the_place_and_says_so_once(
    certificate, monkeypatch
):
    monkeypatch.setattr(limits, "PROBE_SHORTEST", 0.05)
    async with place(certificate) as there:
        former = await connected(there, attempt=1)
        told, streams = [], [former]

        async def come():
            stream, handshake = await authenticated(there, instance_id=secrets.token_hex(16))
            streams.append(stream)
            await stream.send_all(handshake.configure(()))
            try:
                await next_event(handshake, stream)
                told.append("configured")
            except Refused as refusal:
                told.append(refusal.code)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(come)
        assert sorted(set(told)) == ["already_connected", "configured"]
        assert told.count("configured") == 1
        assert len(said(there, "Session taken over")) == 1
        await sessions(there, 1)
        for stream in streams:
            stream.abort()


async def test_a_client_whose_key_is_another_takes_nothing_over(certificate):
    other = derive(generate_key(secrets.token_bytes(32)))
    identities = (lambda rules: Identity(other.verifier, rules, name="other"),)
    async with place(certificate, identities=identities) as there:
        former = await connected(there, attempt=1)
        newcomer = await connected(there, attempt=2, keys=other)
        assert len(there.tunnel.server.sessions) == 2
        assert not said(there, "Session taken over")
        former.abort()
        newcomer.abort()


async def test_a_session_that_still_binds_its_ports_is_taken_over_at_once(certificate, monkeypatch):
    monkeypatch.setattr(limits, "PROBE_SHORTEST", 30.0)
    monkeypatch.setattr(limits, "PROBE_LONGEST", 30.0)
    async with place(certificate) as there:
        silent, port = await holding_a_port(there)
        former, handshake = await authenticated(there, attempt=1)
        await former.send_all(handshake.configure((ProxyRequest("web", "127.0.0.1", port),)))
        while ID not in {owner.client_id for owner in there.tunnel.server.registry._sessions}:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()  # it asks the silent one for a sign of life
        with trio.fail_after(4):
            newcomer = await connected(there, attempt=2)
        with pytest.raises(trio.BrokenResourceError):
            await former.receive_some()
        # It was never said to be connected, so it is not said to be disconnected either.
        [line] = said(there, "Handshake failed")
        assert line.reason == "taken over by a new connection of the same client"
        assert not said(there, "Client disconnected")
        assert len(said(there, "Client connected")) == 2  # the silent one, and the newcomer
        for stream in (silent, former, newcomer):
            stream.abort()


async def test_a_server_that_drains_while_a_session_still_binds_its_ports(
    certificate, monkeypatch, autojump_clock
):
    """The session begins, finds that the server stops, and ends within the grace."""
    monkeypatch.setattr(limits, "PROBE_SHORTEST", 5.0)
    async with world(certificate) as tunnel:
        handle = await tunnel.start_server(shutdown_grace=3.0)
        there = Place(tunnel, None)
        silent, port = await holding_a_port(there)
        binding, handshake = await authenticated(there, attempt=1)
        await binding.send_all(handshake.configure((ProxyRequest("web", "127.0.0.1", port),)))
        while ID not in {owner.client_id for owner in tunnel.server.registry._sessions}:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()  # it asks the silent one for a sign of life
        owners = tuple(tunnel.server.registry._sessions.values())
        handle.drain()
        with trio.fail_after(60):
            for session in owners:
                await session.gone.wait()
        assert is_free(Address("127.0.0.1", port))
        for stream in (silent, binding):
            stream.abort()


async def holding_a_port(there):
    """A session with the same key, of another configuration, that answers nothing."""
    stream, handshake = await authenticated(there, client_id="5" * 32)
    await stream.send_all(handshake.configure((ProxyRequest("web", "127.0.0.1", 0),)))
    answer = await next_event(handshake, stream)
    return stream, answer.answers[0].addresses[0].port


# --- One takeover at a time, in the registry alone --------------------------------------------


def make_registration(instance, attempt):
    return Registration(
        Owner("key", ID),
        instance,
        attempt,
        "web",
        Address("192.0.2.7", attempt),
        evict=None,
        probe=None,
    )


class Ghost:
    """A session that does not answer: asked, it takes as long as the test wants."""

    def __init__(self):
        self.registration = make_registration("ghost", 1)
        self.registration.probe, self.registration.evict = self._probe, self._evict
        self.asked = 0
        self.answered, self.evicted = trio.Event(), trio.Event()

    async def _probe(self):
        self.asked += 1
        await self.answered.wait()
        return False

    def _evict(self, _reason):
        self.evicted.set()

    async def sit(self, registry, *, task_status=trio.TASK_STATUS_IGNORED):
        async with registry.registered(self.registration):
            task_status.started()
            await self.evicted.wait()


async def take(registry, registration, outcomes):
    try:
        async with registry.registered(registration):
            outcomes.append((registration, "registered"))
            await trio.sleep_forever()
    except Refused:
        outcomes.append((registration, "refused"))


async def test_who_comes_while_another_takes_over_is_refused_and_asks_nobody(nursery):
    registry, ghost, outcomes = Registry(), Ghost(), []
    await nursery.start(ghost.sit, registry)
    first = make_registration("first", 1)
    nursery.start_soon(take, registry, first, outcomes)
    await wait_all_tasks_blocked()
    others = [make_registration("first", 1), make_registration("second", 9)]
    for other in others:
        await take(registry, other, outcomes)
    assert outcomes == [(other, "refused") for other in others]
    assert ghost.asked == 1
    ghost.answered.set()
    await wait_all_tasks_blocked()
    assert outcomes[-1] == (first, "registered")
    assert not registry._newcomers


async def test_a_later_connection_of_the_same_process_does_not_wait_behind_the_former(nursery):
    registry, ghost, outcomes = Registry(), Ghost(), []
    await nursery.start(ghost.sit, registry)
    former, later = make_registration("process", 1), make_registration("process", 2)
    for registration in (former, later):
        nursery.start_soon(take, registry, registration, outcomes)
        await wait_all_tasks_blocked()
    ghost.answered.set()
    await wait_all_tasks_blocked()
    assert set(outcomes) == {(later, "registered"), (former, "refused")}
    assert not registry._newcomers


async def test_a_ghost_in_the_way_of_two_is_ended_once(nursery, caplog):
    registry, ghost = Registry(), Ghost()
    reasons = []
    ghost.registration.evict = reasons.append
    await nursery.start(ghost.sit, registry)
    for registration in (
        make_registration("one", 1),
        make_registration("two", 1),
    ):  # two that want ports of its
        nursery.start_soon(registry.replace, ghost.registration, registration)
    await wait_all_tasks_blocked()
    assert len(reasons) == caplog.text.count("Session taken over") == 1
    ghost.evicted.set()
