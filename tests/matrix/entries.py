"""The kinds of entry through which a visitor reaches a service."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

import pytest
import trio

from tests.e2e.rig import PATIENCE, Lab, Process, is_free, visit, visiting
from tunnel.model import Address
from tunnel.protocol.keys import generate_key


class Entry(ABC):
    """A server, a client that publishes a service, and what else this way in takes.

    Args:
      place: where the processes run.
      port: the local service's.
    """

    server: Process
    #: The one that publishes the service.
    client: Process
    #: Where visitors go.
    address: Address

    def __init__(self, place: Lab, port: int) -> None:
        self.place = place
        self.port = port

    @abstractmethod
    async def open(self) -> None:
        """Start all, and wait until a visitor can come in."""

    @abstractmethod
    async def wait_gone(self) -> None:
        """After the client's end: wait until the entry is closed, and check that it is."""

    @abstractmethod
    async def publish_again(self) -> None:
        """Start the client again, and wait until a visitor can come in at the same address."""


class PublicPort(Entry):
    """A port of the server."""

    async def open(self) -> None:
        self.server = await self.place.start_server()
        self.client, [self.address] = await self.place.publish({"local_port": self.port})

    async def wait_gone(self) -> None:
        await self.server.wait_for("Client disconnected")
        assert is_free(self.address)

    async def publish_again(self) -> None:
        wanted = {"local_port": self.port, "publish_port": self.address.port}
        self.client, [address] = await self.place.publish(wanted)
        assert address == self.address


#: What both clients call the service that is visited.
TARGET = {"name": "service", "publish_port": 5432}


class Visits(Entry):
    """A port of another client, which visits the proxy."""

    async def open(self) -> None:
        self._keys = {name: generate_key(secrets.token_bytes(32)) for name in ("office", "laptop")}
        self._secret = {"visitor_secret": generate_key(secrets.token_bytes(32))}
        known = tuple({"name": name, "auth_key": key} for name, key in self._keys.items())
        self.server = await self.place.start_server(clients=known)
        await self._own()
        self._visitor = await self.place.start_client(
            visitors=(TARGET | self._secret | {"owner": "office"},),
            name="laptop",
            auth_key=self._keys["laptop"],
        )
        self.address = await visiting(self._visitor)
        await self._wait_present(1)

    async def _own(self) -> None:
        proxy = {"local_port": self.port, "publish_addr": "*", "visitors_only": True}
        self.client = await self.place.start_client(
            TARGET | self._secret | proxy, name="office", auth_key=self._keys["office"]
        )
        await self.client.wait_for("Proxy published")

    async def wait_gone(self) -> None:
        await self.server.wait_for("Client disconnected", client="office")
        await self._visitor.wait_for("Target away")
        with pytest.raises((OSError, trio.BrokenResourceError)):
            async with await visit(self.address) as visitor:
                await visitor.send_all(b"e")
                assert await visitor.receive_some()

    async def publish_again(self) -> None:
        await self._own()
        await self._wait_present(2)

    async def _wait_present(self, times: int) -> None:
        """Wait until the visitor has heard so often that the proxy is there.

        It hears that before or after its own port is bound.
        """
        with trio.fail_after(PATIENCE):
            while self._visitor.events().count("Target present") < times:
                await self._visitor.news()


ENTRIES: dict[str, type[Entry]] = {"port": PublicPort, "visits": Visits}
