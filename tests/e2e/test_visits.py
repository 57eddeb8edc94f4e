"""A service of another client, reached at a port of one's own machine; real processes."""

from __future__ import annotations

import hashlib
import random
import secrets
import signal
from contextlib import asynccontextmanager

import pytest
import trio

from tests.e2e.rig import PATIENCE, ask, lab, reset, service, visit, visiting
from tests.rig import echo, read_all
from tunnel.limits import MIB
from tunnel.protocol.keys import generate_key

pytestmark = pytest.mark.e2e

SECRET, OTHER = (generate_key(bytes([number]) * 32) for number in (1, 2))
WAYS = [("hub", SECRET), ("relay", SECRET), ("hub", None)]


def fresh() -> str:
    return generate_key(secrets.token_bytes(32))


class Visits:
    """A server, the client `office` that owns a database, and who visits it."""

    def __init__(self, place, secret) -> None:
        self.place = place
        self.keys = {name: fresh() for name in ("office", "laptop", "mallory")}
        self.secret = {} if secret is None else {"visitor_secret": secret}

    async def start(self) -> None:
        known = [{"name": name, "auth_key": key} for name, key in self.keys.items()]
        self.server = await self.place.start_server(clients=tuple(known))

    async def own(self, port, name="office", **more):
        """The client that has the database, once it can be visited."""
        table = {"name": "database", "publish_addr": "*", "publish_port": 5432, "local_port": port}
        private = {"visitors_only": True, "allow_visitors": ["laptop", "mallory"]}
        owner = await self.place.start_client(
            table | private | self.secret | more, name=name, auth_key=self.keys[name]
        )
        await owner.wait_for("Proxy published")
        return owner

    async def come(self, name="laptop", **more):
        """A client that visits it, and where."""
        table = {"name": "database", "publish_port": 5432, "owner": "office"}
        visitor = await self.place.start_client(
            visitors=(table | self.secret | more,), name=name, auth_key=self.keys[name]
        )
        return visitor, await visiting(visitor)


async def present(visitor, times=1):
    """Wait until a client has heard so often that what it visits is there."""
    with trio.fail_after(PATIENCE):
        while visitor.events().count("Target present") < times:
            await visitor.news()


@asynccontextmanager
async def visits(tmp_path, certificate, carrier="hub", secret=SECRET):
    async with lab(tmp_path, certificate, carrier) as place:
        there = Visits(place, secret)
        await there.start()
        yield there


@asynccontextmanager
async def visited(tmp_path, certificate, way, handler=echo):
    """The three processes; where the guests come in, and how many the service has seen."""
    async with service(handler) as port, visits(tmp_path, certificate, *way) as there:
        there.owner = await there.own(port)
        there.visitor, address = await there.come()
        await present(there.visitor)
        yield there, address


# --- What is carried --------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_64_mebibytes_both_ways_at_once(tmp_path, certificate, way):
    size = 64 * MIB
    outward, inward = (random.Random(seed).randbytes(MIB) for seed in (1, 2))
    digests, served = {}, trio.Event()

    async def exchange(stream, block, name):
        async def send():
            for _ in range(size // MIB):
                await stream.send_all(block)
            await stream.send_eof()

        digest = hashlib.sha256()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for data in stream:
                digest.update(data)
        digests[name] = digest.digest()

    async def handler(stream):
        await exchange(stream, outward, "service")
        served.set()

    async with visited(tmp_path, certificate, way, handler) as (_, address):
        async with await visit(address) as guest:
            await exchange(guest, inward, "guest")
        await served.wait()
    assert digests["service"] == hashlib.sha256(inward * 64).digest()
    assert digests["guest"] == hashlib.sha256(outward * 64).digest()


@pytest.mark.parametrize("way", WAYS)
async def test_a_thousand_connections(tmp_path, certificate, way):
    """Ten at a time, each with an answer of its own."""
    async with visited(tmp_path, certificate, way) as (_, address):

        async def one(first):
            for number in range(first, 1000, 10):
                question = b"%d" % number
                assert await ask(address, question) == question

        async with trio.open_nursery() as nursery:
            for first in range(10):
                nursery.start_soon(one, first)


@pytest.mark.parametrize("way", WAYS)
async def test_each_end_is_what_it_was(tmp_path, certificate, way):
    """Half-close, with a late answer and the other way round, and resets from either side."""
    seen = {}

    async def handler(stream):
        match await stream.receive_some(1):
            case b"l":  # a late answer
                rest = await read_all(stream)
                await stream.send_all(b"%d bytes" % len(rest))
            case b"e":  # an early end
                await stream.send_eof()
                seen["after"] = await read_all(stream)
            case b"r":
                reset(stream)
            case _:
                await stream.send_all(b"w")
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
                seen["reset"] = True

    async def until(name):
        with trio.fail_after(20):
            while name not in seen:
                await trio.lowlevel.checkpoint()
        return seen[name]

    async with visited(tmp_path, certificate, way, handler) as (_, address):
        assert await ask(address, b"l" + bytes(100_000)) == b"100000 bytes"
        async with await visit(address) as guest:
            await guest.send_all(b"e")
            assert await guest.receive_some() == b""
            await guest.send_all(b"said after the end")
            await guest.send_eof()
            assert await until("after") == b"said after the end"
        async with await visit(address) as guest:
            await guest.send_all(b"r")
            with pytest.raises(trio.BrokenResourceError):
                await guest.receive_some()
        guest = await visit(address)
        await guest.send_all(b"w")
        assert await guest.receive_some() == b"w"
        reset(guest)
        assert await until("reset")


@pytest.mark.parametrize("victim", ["owner", "server", "visitor"])
async def test_a_killed_process_is_a_reset_at_both_ends(tmp_path, certificate, victim):
    broken = trio.Event()

    async def handler(stream):
        try:
            while True:
                await stream.send_all(bytes(65536))
        except trio.BrokenResourceError:
            broken.set()

    async with visited(tmp_path, certificate, ("hub", SECRET), handler) as (there, address):
        async with await visit(address) as guest:
            await guest.receive_some()
            await getattr(there, victim).kill()
            with pytest.raises(trio.BrokenResourceError):
                await read_all(guest)
        with trio.fail_after(20):
            await broken.wait()


# --- Who may ----------------------------------------------------------------------------------


class Seen:
    """A service that only counts who connects."""

    count = 0

    async def __call__(self, stream):
        self.count += 1
        await stream.aclose()


async def is_refused(address):
    with pytest.raises((OSError, trio.BrokenResourceError)):
        async with await visit(address) as guest:
            await guest.send_all(b"password")
            while True:
                assert await guest.receive_some()


@pytest.mark.parametrize(
    ("of_owner", "of_visitor", "who", "told_by", "reason", "here", "remedy"),
    [
        # By the service's client: it asks for a secret.
        ({}, {"visitor_secret": None}, "laptop", "owner", "no visitor_secret", "wrong", "set vis"),
        (
            {},
            {"visitor_secret": OTHER},
            "laptop",
            "owner",
            "another visitor_secret",
            "wrong",
            "same",
        ),
        # By the server: it lets in who is listed.
        (
            {"allow_visitors": ["laptop"]},
            {},
            "mallory",
            "server",
            "allow_visitors",
            "not allow",
            "",
        ),
    ],
    ids=["no secret", "another", "not listed"],
)
async def test_who_may_not_come_is_told_why(
    tmp_path, certificate, of_owner, of_visitor, who, told_by, reason, here, remedy
):
    seen = Seen()
    async with service(seen) as port, visits(tmp_path, certificate) as there:
        there.owner = await there.own(port, **of_owner)
        if "visitor_secret" in of_visitor and of_visitor["visitor_secret"] is None:
            of_visitor, there.secret = {}, {}
        visitor, address = await there.come(who, **of_visitor)
        await is_refused(address)
        line = await getattr(there, told_by).wait_for("Visit refused")
        assert reason in line["reason"]
        line = await visitor.wait_for("Visit refused")
        assert here in line["reason"]
        assert remedy in line.get("remedy", "")
        shown = repr([process.lines for process in there.place.processes])
    assert seen.count == 0
    assert not any(key[5:] in shown for key in (SECRET, OTHER))


@pytest.mark.parametrize("owner", ["office", None], ids=["asked for", "known by its secret alone"])
async def test_who_takes_the_owners_place_is_not_visited(tmp_path, certificate, owner):
    """A client with a key of its own, and all names and numbers right, but for its own."""
    seen = Seen()
    async with (
        service(seen) as port,
        visits(tmp_path, certificate) as there,
    ):
        squatter = await there.own(port, name="mallory", visitor_secret=OTHER)
        visitor, address = await there.come(owner=owner or "mallory")
        await is_refused(address)
        line = await visitor.wait_for("Visit refused")
        if owner:
            assert "no client that [[server.clients]] calls office" in line["reason"]
        else:
            assert line["reason"] == "wrong secret"
            assert "another visitor_secret" in (await squatter.wait_for("Visit refused"))["reason"]
        assert seen.count == 0


async def test_the_owner_is_killed_again_and_again(tmp_path, certificate):
    """While it is away guests are reset; as soon as it is back they are served, by it alone."""

    async def handler(stream):
        await stream.send_all(b"office, " + await read_all(stream))

    async with service(handler) as port, visits(tmp_path, certificate) as there:
        visitor, address = await there.come()
        await is_refused(address)
        for number in range(1, 5):
            owner = await there.own(port)
            await present(visitor, number)
            assert await ask(address) == b"office, hello"
            await visitor.wait_for("Target present")
            await owner.kill()
            await visitor.wait_for("Target away")
            await is_refused(address)
        assert visitor.events().count("Connected") == 1


async def test_another_secret_in_the_file(tmp_path, certificate):
    """Reloaded at the owner, then at the visitor; a connection that lives goes on."""
    async with visited(tmp_path, certificate, ("hub", SECRET)) as (there, address):
        async with await visit(address) as lasting:
            await lasting.send_all(b"one")
            assert await lasting.receive_some() == b"one"
            await change(there.place, there.owner, "office")
            await there.owner.wait_for("Configuration reloaded")
            await is_refused(address)
            await there.visitor.wait_for("Visit refused")
            await lasting.send_all(b"two")
            assert await lasting.receive_some() == b"two"
        await change(there.place, there.visitor, "laptop")
        # In any order: the server tells of the target, the client binds its port.
        await present(there.visitor, 2)
        await there.visitor.wait_for("Visitor ready")
        assert await ask(address) == b"hello"


async def change(place, process, name):
    path = place.directory / f"{name}.toml"
    path.write_text(path.read_text().replace(SECRET, OTHER))
    process.process.send_signal(signal.SIGHUP)
