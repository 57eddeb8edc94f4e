"""A running server and a running client as one thing that can be looked at, also over HTTP."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import trio

from tunnel import store
from tunnel.client.connect import Dialler
from tunnel.client.proxy import LocalProxy
from tunnel.client.run import run_client
from tunnel.client.session import Client
from tunnel.config.schema import CommonConfig
from tunnel.config.values import TOKEN
from tunnel.errors import TunnelError
from tunnel.model import Address
from tunnel.net.link import Link
from tunnel.net.listen import close_all, open_listeners
from tunnel.net.observe import observe_connections, observe_link
from tunnel.net.transport import own_address
from tunnel.ops.port_owner import cannot_listen
from tunnel.server.certificate import CertificateKeeper
from tunnel.server.proxy import Proxy
from tunnel.server.state import Server, Session
from tunnel.stats import Counters
from tunnel.views import (
    ClientHandle,
    ClientState,
    ConnectionsView,
    ProgramView,
    ProxyView,
    SessionView,
)

logger = logging.getLogger(__name__)


@attrs.frozen
class ServerProgram:
    """A running server.

    Args:
      server: what its sessions share.
      certificate: what it shows.
      addresses: where it listens for clients.
    """

    role: ClassVar[Literal["server"]] = "server"
    server: Server
    certificate: CertificateKeeper
    addresses: tuple[Address, ...]

    def view(self) -> ProgramView:
        """The server now."""
        draining = self.server.draining.is_set()
        return ProgramView(
            "draining" if draining else "running",
            "it stops" if draining else None,
            tuple(map(_session, self.server.sessions.values())),
            addresses=self.addresses,
            rejected={reason.value: n for reason, n in self.server.tally.statistics().items()},
            strangers=len(self.server.strangers),
            certificate_until=self.certificate.until.timestamp(),
        )

    def counters(self) -> Iterator[Counters]:
        """Those of its proxies."""
        for session in self.server.sessions.values():
            yield from (proxy.counters for proxy in session.proxies)

    def connections(self) -> ConnectionsView:
        """Its visitors now."""
        sessions = self.server.sessions.values()
        links = [(session.registration.name, session.link) for session in sessions]
        return observe_connections(links, is_server=True)


def _session(session: Session) -> SessionView:
    return SessionView(
        session.registration.name,
        session.session_id[:8],
        str(session.registration.address),
        time.time() - (trio.current_time() - session.started),
        observe_link(session.link),
        tuple(map(_published, session.proxies)),
    )


def _published(proxy: Proxy) -> ProxyView:
    return ProxyView(
        proxy.name,
        proxy.host,
        proxy.port,
        proxy.addresses,
        "",
        proxy.request.local_port,
        proxy.start_time,
        proxy.counters,
        proxy.up,
    )


@attrs.define(eq=False)
class ClientProgram:
    """A running client.

    Args:
      client: what its sessions share.
    """

    role: ClassVar[Literal["client"]] = "client"
    client: Client
    _handle: ClientHandle | None = attrs.field(default=None, init=False)

    async def run(self, *, task_status: trio.TaskStatus[ClientHandle]) -> None:
        """Run it, until cancelled; see `run_client`."""
        await run_client(self.client, task_status=_Told(self, task_status))

    def started(self, handle: ClientHandle) -> None:
        """It runs, and this is its handle."""
        self._handle = handle

    @property
    def _link(self) -> Link | None:
        return None if self.client.published is None else self.client.published.link

    def view(self) -> ProgramView:
        """The client now."""
        published, proxies = self.client.published, self.client.proxies
        session = SessionView(
            self.client.name,
            None,
            self._server(),
            None if published is None else published.since,
            None if published is None else observe_link(published.link),
            tuple(map(_local, proxies)),
        )
        state = ClientState.CONNECTING if self._handle is None else self._handle.state.value
        return ProgramView(state.value, self._unready(proxies), (session,), server=self._server())

    def _server(self) -> str | None:
        dial = self.client.dial
        return ", ".join(map(str, dial.servers)) if isinstance(dial, Dialler) else None

    def _unready(self, proxies: Iterable[LocalProxy]) -> str | None:
        if self._link is None:
            return "not connected to the server"
        missing = [proxy.name for proxy in proxies if not proxy.up]
        return f"not published: {', '.join(missing)}" if missing else None

    def counters(self) -> Iterator[Counters]:
        """Those of its proxies."""
        return (proxy.counters for proxy in self.client.proxies)

    def connections(self) -> ConnectionsView:
        """Its local connections now."""
        link = self._link
        links = [] if link is None else [(self.client.name, link)]
        return observe_connections(links, is_server=False)


@attrs.frozen
class _Told(trio.TaskStatus[ClientHandle]):
    """Tells two that the client has started."""

    program: ClientProgram
    other: trio.TaskStatus[ClientHandle]

    def started(self, value: ClientHandle) -> None:
        self.program.started(value)
        self.other.started(value)


def _local(proxy: LocalProxy) -> ProxyView:
    return ProxyView(
        proxy.name,
        proxy.publish_addr,
        proxy.publish_port,
        proxy.addresses,
        proxy.local_addr,
        proxy.local_port,
        proxy.start_time,
        proxy.counters,
        proxy.up,
    )


# --- Statistics over HTTP ---------------------------------------------------------------------


@attrs.frozen
class Asked:
    """What is asked for of statistics over HTTP.

    Args:
      listeners: where they are served; none if they are not.
      token: what must be shown; None for nothing.
      hosts: other names of this program.
    """

    listeners: list[socket.socket]
    token: str | None = attrs.field(default=None, repr=False)
    hosts: tuple[str, ...] = ()


@contextlib.contextmanager
def asked_for(config: CommonConfig, source: Path | None) -> Iterator[Asked]:
    """What a configuration asks for; it listens already, and no longer than this block lasts.

    Raises:
      TunnelError: it cannot be had; says why and what to do.
    """
    if config.stats_port is None:
        yield Asked([])
        return
    token = _token(config, source)
    try:
        listeners = open_listeners(config.stats_addr, config.stats_port)
    except OSError as error:
        place = Address(config.stats_addr, config.stats_port)
        raise TunnelError(f"statistics: {cannot_listen(error, place, 'stats')}") from error
    try:
        yield Asked(listeners, token, config.stats_hosts)
    finally:
        close_all(listeners)


def _token(config: CommonConfig, source: Path | None) -> str | None:
    if config.stats_token_file is None:
        return config.stats_token
    path = store.resolve(config.stats_token_file, beside=store.directory_of(source))
    try:
        return TOKEN.read(store.read_auth_key(path))
    except ValueError as error:
        raise TunnelError(f"the token file {path}: {error}") from error


async def observed(
    run: Callable[..., Awaitable[None]],
    program: ServerProgram | ClientProgram,
    asked: Asked,
    task_status: trio.TaskStatus[Any],
) -> None:
    """Run a program, and answer for it over HTTP meanwhile if that is asked for.

    Args:
      run: runs it; called with `task_status`.
      program: what is looked at.
      asked: where, and by whom.
      task_status: given to `run`.
    """
    if not asked.listeners:
        await run(task_status=task_status)
        return
    # A quarter of a second, and some megabytes: only for whoever wants it.
    from tunnel.ops.http import Application
    from tunnel.ops.http_server import serve_http
    from tunnel.ops.statistics import Statistics

    statistics = Statistics(program.role, program.view, program.connections, program.counters)
    application = Application(statistics, token=asked.token, hosts=asked.hosts)
    with statistics.journal.kept():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_http, application, asked.listeners)
            nursery.start_soon(statistics.sample)
            _log_asked(asked)
            await run(task_status=task_status)
            nursery.cancel_scope.cancel()


def _log_asked(asked: Asked) -> None:
    for address in map(own_address, asked.listeners):
        logger.info("Statistics served", extra={"url": f"http://{address}/"})
        if asked.token is None and not ipaddress.ip_address(address.host).is_loopback:
            logger.warning(
                "Statistics are open",
                extra={
                    "address": str(address),
                    "consequence": "whoever reaches it sees who is connected",
                    "remedy": "set stats_token, or leave stats_addr at 127.0.0.1",
                },
            )
