"""Owners come and go while guests connect: whoever is reached is whom they meant, or nobody.

Server, clients and services are in one process, over loopback.
"""

from __future__ import annotations

import contextlib
import gc
import secrets
from collections import Counter

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.client.test_changes import until
from tests.client.test_secret import guarded, running
from tests.client.test_visitors import identity
from tests.rig import own_host, proxy, read_all, visit, world
from tests.server.rig import resources
from tunnel.client.visit_port import VisitPort
from tunnel.protocol.keys import derive, generate_key
from tunnel.protocol.proofs import visit_key

pytestmark = [pytest.mark.timeout(1800)]

GUESTS = 4
SECRET = visit_key(generate_key(bytes(32)))


def says(name):
    async def serve(stream):
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(name + b" " + await read_all(stream))

    return serve


class Crowd:
    """Guests who connect all the time, and what became of them."""

    def __init__(self, places) -> None:
        self.places = places
        self.count: Counter[bytes] = Counter()
        self._number = 0
        self._news = trio.Event()

    async def keep_coming(self) -> None:
        while True:
            await self.come()

    async def come(self) -> None:
        """Once to every place."""
        for meant, address in self.places.items():
            self._number += 1
            self.count[await self._one(meant, address, b"%d" % self._number)] += 1
            self._news.set()
            self._news = trio.Event()

    async def _one(self, meant, address, question) -> bytes:
        try:
            async with await visit(address) as guest:
                await guest.send_all(question)
                await guest.send_eof()
                answer = await read_all(guest)
        except (OSError, trio.BrokenResourceError):
            return b"reset"
        # An end without an answer would be a reset that looks like none.
        assert answer == meant + b" " + question
        return meant

    async def are_served(self) -> None:
        """Wait until at every place somebody has been from now on."""
        before = self.count.copy()
        await self._until(lambda: all(self.count[meant] > before[meant] for meant in self.places))

    async def are_turned_away(self) -> None:
        before = self.count[b"reset"]
        await self._until(lambda: self.count[b"reset"] > before + len(self.places) * GUESTS)

    async def _until(self, condition) -> None:
        with trio.fail_after(30):
            while not condition():
                await self._news.wait()


class Stage:
    """A server, `laptop` who visits, `office` who owns a database and a page, and `mallory`."""

    def __init__(self, tunnel) -> None:
        self.tunnel = tunnel
        names = ("office", "laptop", "mallory")
        self.keys = {name: derive(generate_key(secrets.token_bytes(32))) for name in names}

    async def set_up(self) -> None:
        tunnel = self.tunnel
        await tunnel.start_server(identities=[identity(*entry) for entry in self.keys.items()])
        self.services = {
            name: await tunnel.start_service(says(name)) for name in (b"db", b"page", b"mallory")
        }
        self.visitors = [
            VisitPort("db", 5432, own_host(), 0, "office", visit_key=SECRET),
            VisitPort("page", 80, own_host(), 0, "office"),
        ]
        self.laptop = await tunnel.start_client(
            visit_ports=tuple(self.visitors), keys=self.keys["laptop"]
        )
        await until(lambda: all(visitor.addresses for visitor in self.visitors))
        self.places = {it.name.encode(): it.addresses[0] for it in self.visitors}

    def office(self):
        """The owner, of whom there is a new one each time."""
        port, page = self.services[b"db"], self.services[b"page"]
        wanted = (
            guarded(port, SECRET, allow_visitors=("laptop",)),
            proxy(page, 80, name="page", visitors_only=True),
        )
        return running(self.tunnel, *wanted, keys=self.keys["office"], client_id="0" * 32)

    def mallory(self):
        """Somebody who takes the names, and does not know the secret."""
        port = self.services[b"mallory"]
        wanted = (
            proxy(port, 5432, name="db", visitors_only=True),
            proxy(port, 80, name="page", visitors_only=True),
        )
        return running(self.tunnel, *wanted, keys=self.keys["mallory"])

    def session(self, name):
        [found] = [
            it for it in self.tunnel.server.sessions.values() if it.registration.name == name
        ]
        return found

    async def quiet(self):
        """Wait until nothing is going on; what is there then."""
        server = self.tunnel.server
        await until(lambda: not any(visitor.counters.active for visitor in self.visitors))
        await until(lambda: all(it.link.stream_count == 1 for it in server.sessions.values()))
        await until(lambda: not any(it.link.carrier.count for it in server.sessions.values()))
        await wait_all_tasks_blocked(0.05)
        gc.collect()
        return {
            "descriptors and tasks": resources(),
            "sessions": len(server.sessions),
            "seats": len(server.registry._sessions),
            "ports": len(server.registry._ports),
            "targets": len(server.directory),
            "watched": {name: len(of) for name, of in server.directory._watchers.items()},
            "waiting": len(server.directory.freed),
            "crowd": len(server.admission.networks),
            "rooms": [it.identity.quota.taken for it in server.sessions.values()],
        }


async def test_owners_restart_while_guests_connect(certificate, carrier, times, chance):
    async with world(certificate, carrier) as tunnel:
        stage = Stage(tunnel)
        await stage.set_up()
        crowd = Crowd(stage.places)
        async with stage.office():
            await crowd.come()
            first = await stage.quiet()
        async with trio.open_nursery() as nursery:
            for _ in range(GUESTS):
                nursery.start_soon(crowd.keep_coming)
            for _ in range(times(50, 8)):
                async with stage.office():
                    await crowd.are_served()
                    if chance.random() < 0.5:  # its link is cut, and it comes back by itself
                        session = stage.session("office")
                        session.link.lose("cut by the test")
                        await session.registration.gone.wait()
                        await crowd.are_served()
                if chance.random() < 0.5:
                    async with stage.mallory():
                        await crowd.are_turned_away()
            nursery.cancel_scope.cancel()
        async with stage.office():
            await crowd.come()
            assert await stage.quiet() == first
        print(dict(crowd.count))
