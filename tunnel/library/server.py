"""A server inside another program."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from tunnel.api import run_server
from tunnel.compose import shared_key
from tunnel.config import ServerConfig
from tunnel.eventlog import logged_events
from tunnel.library.configurations import server_config
from tunnel.library.events import EventQueues, Events
from tunnel.model import Address
from tunnel.net.nursery import open_collapsing_nursery
from tunnel.protocol.join import Join, JoinFormatError
from tunnel.views import Arrival, ServerHandle, SessionStatistics


@asynccontextmanager
async def serve(
    where: ServerConfig | Path,
    *,
    allow: Callable[[Arrival], str | None] | None = None,
    public_addr: str | None = None,
) -> AsyncIterator[EmbeddedServer]:
    """Run a server for as long as the block lasts; clients can connect when it begins.

    When the block ends every client is told, and every port is free. Errors of the block come out
    as they were raised.

    Args:
      where: a configuration, or the file of one. Paths of a configuration without a file are
        relative to the working directory; and without `state_dir` nothing is kept on the disk, so
        that the next one shows another certificate.
      allow: asked for every visitor, after all other checks; a text turns it away, and is the
        reason. It must not wait, and what it raises ends the server.
      public_addr: the server's name or address, as clients are to dial it; for `join`.

    Raises:
      TunnelError: it cannot start; says why and what to do.
    """
    config, source = server_config(where)
    queues = EventQueues()
    events = logged_events(queues.put)
    run = functools.partial(run_server, config, source=source, allow=allow, events=events)
    async with open_collapsing_nursery() as nursery:
        handle = await nursery.start(run)
        join = _join(handle, config, source, public_addr)
        yield EmbeddedServer(handle, queues, join)


def _join(
    handle: ServerHandle, config: ServerConfig, source: Path | None, public_addr: str | None
) -> str | None:
    address = handle.addresses[0]
    if public_addr is None and ipaddress.ip_address(address.host).is_unspecified:
        return None
    try:
        key = shared_key(config, source)
        return key and Join(public_addr or address.host, address.port, key, handle.pin).to_text()
    except JoinFormatError:
        return None  # a key that a person made up


@attrs.frozen
class EmbeddedServer:
    """A running server; `serve` gives one."""

    _handle: ServerHandle
    _queues: EventQueues
    #: What clients may be given in place of a configuration; None if the server has no generated
    #: key that all share, or if it is not known by what address clients reach it.
    join: str | None = attrs.field(repr=False)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where clients connect to."""
        return self._handle.addresses

    @property
    def pin(self) -> str:
        """What clients may trust it by, as their `pin`."""
        return self._handle.pin

    def sessions(self) -> tuple[SessionStatistics, ...]:
        """The clients that are connected now, and what they publish."""
        return self._handle.statistics()

    def events(self) -> Events:
        """What happens from now on, for `async for`; each call gives one of its own.

        A client's proxies are told before the client itself when it comes, and when it goes.
        """
        return self._queues.open()

    def drain(self) -> None:
        """Stop gracefully: ports are freed at once, live connections get `shutdown_grace`."""
        self._handle.drain()
