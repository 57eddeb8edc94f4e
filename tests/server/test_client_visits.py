"""One client visits another's proxy: found, refused, joined; the owner comes and goes."""

import secrets
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.server.rig import place, proved
from tunnel import limits
from tunnel.model import Address, ResetCode
from tunnel.net.control import Control
from tunnel.net.framed import next_event
from tunnel.net.link import Link
from tunnel.net.muxstream import MuxStream
from tunnel.protocol import messages
from tunnel.protocol.messages import (
    Bound,
    ProxyRequest,
    Reconfigure,
    Rejected,
    Target,
    VisitorRequest,
)
from tunnel.protocol.preamble import PreambleDecoder, build_visit_preamble
from tunnel.server import member as server_member
from tunnel.server.directory import Directory, Refusal
from tunnel.server.registry import Owner, Registration
from tunnel.yamux import Role, Settings

GUEST = Address("10.1.2.3", 4567), Address("127.0.0.1", 15432)
DATABASE = ProxyRequest("db", "*", 5432, visitors_only=True)
VISIT = VisitorRequest(7, "db", 5432)


class Member:
    """A client that is connected: its link, what it hears, and the streams that come to it."""

    def __init__(self, link, answers):
        self.link, self.answers = link, answers
        self.notices, self._heard = [], trio.Event()
        self.arrivals, self.streams = trio.open_memory_channel(1000)
        control = link.open_stream()
        self.control = Control(link, control, self.hear)
        link.attach(control, self.control)

    def hear(self, notice):
        self.notices.append(notice)
        self._heard.set()

    async def target(self, wanted):
        """Wait until that is the last that was said of the visit."""
        with trio.fail_after(10):
            while not self._is(wanted):
                self._heard = trio.Event()
                await self._heard.wait()
        return [notice for notice in self.notices if isinstance(notice, Target)][-1]

    def _is(self, wanted):
        told = [notice for notice in self.notices if isinstance(notice, Target)]
        return bool(told) and wanted == bool(told[-1].owner)

    async def target_of_any(self, right=lambda _: True):
        """Wait for the next notice that is right."""
        with trio.fail_after(10):
            while True:
                self._heard = trio.Event()
                await self._heard.wait()
                if right(self.notices[-1]):
                    return

    async def visit(self, number=7, data=b"", proof=b""):
        stream = MuxStream.open(self.link)
        connection = secrets.token_bytes(8)
        await stream.send_all(build_visit_preamble(*GUEST, number, connection, proof) + data)
        return stream

    async def guest(self):
        """The next stream that the server opened, and its header."""
        with trio.fail_after(10):
            stream = await self.streams.receive()
            decoder, preamble = PreambleDecoder(), None
            data = b""
            while preamble is None:
                data = await stream.receive_some()
                taken, preamble = decoder.feed(data)
        return stream, preamble, data[taken:]


@asynccontextmanager
async def member(there, *proxies, visits=()):
    stream, handshake = await proved(there)
    await stream.send_all(handshake.configure(tuple(proxies), tuple(visits)))
    configured = await next_event(handshake, stream)
    found = None

    def accept(link, stream_id):
        arrived = MuxStream(link, stream_id)
        found.arrivals.send_nowait(arrived)
        return arrived.endpoint

    link = Link(
        stream,
        Role.CLIENT,
        Settings(keepalive_interval=None),
        accept,
        early=handshake.trailing_data,
    )
    found = Member(link, configured.answers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await link.running.wait()
        yield found
        link.end("the test is over")


async def refused(stream, why):
    with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match=why):
        while True:
            await stream.receive_some()


def lines(there, event):
    return [record for record in there.lines.records if record.getMessage() == event]


async def test_a_guest_reaches_a_proxy_that_has_no_port(certificate):
    async with place(certificate) as there:
        async with member(there, DATABASE) as owner, member(there, visits=[VISIT]) as visitor:
            assert owner.answers == (Bound(0, ()),)
            assert not there.tunnel.server.registry._ports
            assert (await visitor.target(True)).owner == "stranger"
            stream = await visitor.visit(data=b"select 1")
            arrived, preamble, data = await owner.guest()
            data = data or await arrived.receive_some()
            assert data == b"select 1"
            assert (preamble.proxy_id, preamble.through, preamble.assigned) == (
                0,
                "stranger",
                False,
            )
            assert preamble.source.host == "127.0.0.1"
            assert preamble.claimed == str(GUEST[0])
            await arrived.send_all(b"1 row")
            await arrived.send_eof()
            assert await stream.receive_some() == b"1 row"
            assert await stream.receive_some() == b""
            await stream.aclose()
            assert await arrived.receive_some() == b""


async def test_the_owner_comes_and_goes(certificate):
    async with place(certificate) as there:
        async with member(there, visits=[VISIT]) as visitor:
            for _ in range(3):
                assert "no client has" in (await visitor.target(False)).reason
                await refused(await visitor.visit(), "away")
                async with member(there, DATABASE) as owner:
                    await visitor.target(True)
                    stream = await visitor.visit()
                    await owner.guest()
                await refused(stream, "link lost|reset")
        assert len(lines(there, "Visit refused")) == 3


def takes_no_stream(there, monkeypatch):
    """The owner's link takes none for the rest of its life."""
    [session] = [each for each in there.tunnel.server.sessions.values() if each.proxies]
    monkeypatch.setattr(session.link, "can_open", lambda: False)


async def waits(there):
    """Wait until a guest waits for the owner's link."""
    with trio.fail_after(10):
        while len(there.tunnel.server.directory._watchers["db"]) < 2:
            await trio.lowlevel.checkpoint()


async def test_nobody_waits_for_a_link_that_has_ended(certificate, monkeypatch):
    monkeypatch.setattr(limits, "VISIT_TIMEOUT", 1000.0)
    async with place(certificate) as there, member(there, visits=[VISIT]) as visitor:
        async with member(there, DATABASE):
            takes_no_stream(there, monkeypatch)
            stream = await visitor.visit(data=b"hello")
            await waits(there)
        await refused(stream, "away")


async def test_patience_has_an_end(certificate, monkeypatch):
    monkeypatch.setattr(limits, "VISIT_TIMEOUT", 0.05)
    async with place(certificate) as there, member(there, visits=[VISIT]) as visitor:
        async with member(there, DATABASE):
            takes_no_stream(there, monkeypatch)
            await refused(await visitor.visit(), "limit")


async def test_a_guest_that_goes_while_it_waits_leaves_nothing(certificate, monkeypatch):
    async with place(certificate) as there, member(there, visits=[VISIT]) as visitor:
        async with member(there, DATABASE):
            takes_no_stream(there, monkeypatch)
            stream = await visitor.visit()
            await waits(there)
            stream.reset(ResetCode.CANCELLED)
            visitor.link.flush()
            with trio.fail_after(10):
                while len(there.tunnel.server.directory._watchers["db"]) > 1:
                    await trio.lowlevel.checkpoint()


async def test_an_unknown_visit_and_a_bad_header_end_that_stream_only(certificate):
    async with place(certificate) as there:
        async with member(there, DATABASE) as owner, member(there, visits=[VISIT]) as visitor:
            await refused(await visitor.visit(number=8), "unknown proxy")
            bad = MuxStream.open(visitor.link)
            await bad.send_all(b"GET / HTTP/1.1\r\n\r\n")
            await refused(bad, "bad preamble")
            await visitor.visit()
            await owner.guest()


async def test_a_client_that_visits_nothing_opens_no_stream(certificate):
    async with place(certificate) as there:
        async with member(there, DATABASE) as alone:
            await wait_all_tasks_blocked(0.05)
            await refused(await alone.visit(), "limit")


async def test_the_second_of_a_name_waits_for_the_first(certificate):
    async with place(certificate) as there:
        async with member(there, visits=[VISIT]) as visitor:
            async with member(there, DATABASE) as first:
                async with member(there, DATABASE) as second:
                    [answer] = second.answers
                    assert isinstance(answer, Rejected)
                    assert answer.code.passes
                    await visitor.visit()
                    await first.guest()
                    first.link.end("gone")
                    with trio.fail_after(10):
                        while Bound(0, ()) not in second.notices:
                            await second.target_of_any()
                    await visitor.target(True)
                    await visitor.visit()
                    await second.guest()


async def test_a_client_that_goes_before_its_session_leaves_no_watcher(certificate):
    async with place(certificate) as there:
        stream, handshake = await proved(there)
        await stream.send_all(handshake.configure((), (VISIT,)))
        stream.abort()


async def test_what_is_visited_can_be_changed(certificate):
    async with place(certificate) as there:
        async with member(there, DATABASE) as owner, member(there) as visitor:
            visitor.control.say(Reconfigure((), (), (VISIT,)))
            visitor.link.flush()
            await visitor.target_of_any(lambda it: isinstance(it, Target))
            stream = await visitor.visit()
            await owner.guest()
            visitor.control.say(Reconfigure((), (), ()))
            visitor.link.flush()
            count = len(visitor.notices)
            while len(visitor.notices) == count:
                await visitor.target_of_any()
            await stream.send_all(b"goes on")
            await refused(await visitor.visit(), "limit")


async def test_whoever_judges_for_the_program_is_asked(certificate):
    async with place(certificate) as there:
        asked = []

        def judge(arrival):
            asked.append(arrival)
            return "closed today"

        async with member(there, DATABASE), member(there, visits=[VISIT]) as visitor:
            there.tunnel.server.admission.judge = judge
            await refused(await visitor.visit(), "not allowed")
            there.tunnel.server.admission.judge = None
        [arrival] = asked
        assert (arrival.client, arrival.proxy, arrival.guest_of) == ("stranger", "db", "stranger")
        assert lines(there, "Visit refused")[0].reason == "closed today"


# --- Whom a name means ------------------------------------------------------------------------


def registration(name, *, assigned):
    return Registration(
        Owner(name, "c"), "i", 1, name, Address("192.0.2.1", 1), None, None, None, assigned
    )


class Thing:
    def __init__(self, name="db", port=5432, allow=(), addresses=()):
        self.name, self.port, self.addresses = name, port, addresses
        self.request = SimpleNamespace(allow_visitors=allow)


def found(request, *things, visitor=None, owner=None):
    known, owner = Directory(), owner or registration("office", assigned=True)
    for thing in things:
        assert known.add(server_member.Member(thing, owner, None))
    return known.find(request, visitor or registration("laptop", assigned=True))


@pytest.mark.parametrize(
    ("name", "assigned", "may"),
    [("laptop", True, True), ("laptop", False, False), ("other", True, False)],
)
def test_only_assigned_names_are_allowed(name, assigned, may):
    answer = found(VISIT, Thing(allow=("laptop",)), visitor=registration(name, assigned=assigned))
    if may:
        assert isinstance(answer, server_member.Member)
    else:
        assert answer.code is ResetCode.NOT_ALLOWED


@pytest.mark.parametrize(
    ("owner", "assigned", "there"),
    [("office", True, True), ("office", False, False), ("other", True, False)],
)
def test_only_an_assigned_owner_is_the_owner(owner, assigned, there):
    request = VisitorRequest(7, "db", 5432, "office")
    answer = found(request, Thing(), owner=registration(owner, assigned=assigned))
    assert isinstance(answer, Refusal) is not there


def test_a_port_means_what_was_configured_or_what_it_has():
    thing = Thing(port=0, addresses=(Address("::", 40123),))
    for port in (0, 40123):
        assert isinstance(found(VisitorRequest(7, "db", port), thing), server_member.Member)
    assert isinstance(found(VisitorRequest(7, "db", 40124), thing), Refusal)


def test_a_name_alone_must_be_one_proxys():
    answer = found(VisitorRequest(7, "db", 0), Thing(port=1), Thing(port=2))
    assert isinstance(answer, Refusal)
    assert "say publish_port" in answer.reason


def test_messages_are_read_as_the_server_says_them():
    notice = Target(7, "office", 5432, bytes(32))
    assert messages.decode(messages.encode(notice)) == notice
