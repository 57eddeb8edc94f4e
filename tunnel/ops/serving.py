"""What a program shows of itself while it runs: its statistics over HTTP, and the audit log."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs

from tunnel import store
from tunnel.config.schema import CommonConfig
from tunnel.config.values import TOKEN
from tunnel.errors import TunnelError
from tunnel.events import EventStream
from tunnel.model import Address
from tunnel.net.listen import close_all, open_listeners
from tunnel.net.nursery import open_collapsing_nursery
from tunnel.net.transport import own_address
from tunnel.ops.audit import AuditLog
from tunnel.ops.port_owner import cannot_listen
from tunnel.views import Snapshots

logger = logging.getLogger(__name__)


@attrs.frozen
class StatsListener:
    """Where statistics are to be served, and to which requests.

    Args:
      sockets: they listen; none if statistics are not to be served.
      token: what a request must show; None for nothing.
      hosts: other names that requests may call this program by.
    """

    sockets: list[socket.socket]
    token: str | None = attrs.field(default=None, repr=False)
    hosts: tuple[str, ...] = ()


@contextmanager
def stats_listener(config: CommonConfig, source: Path | None) -> Iterator[StatsListener]:
    """The listener that a configuration asks for; it is closed when the block ends.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: the port cannot be had, or the token cannot be read; says why and what to do.
    """
    if config.stats_port is None:
        yield StatsListener([])
        return
    token = _token(config, source)
    try:
        sockets = open_listeners(config.stats_addr, config.stats_port)
    except OSError as error:
        place = Address(config.stats_addr, config.stats_port)
        raise TunnelError(f"statistics: {cannot_listen(error, place, 'stats')}") from error
    try:
        yield StatsListener(sockets, token, config.stats_hosts)
    finally:
        close_all(sockets)


def _token(config: CommonConfig, source: Path | None) -> str | None:
    if config.stats_token_file is None:
        return config.stats_token
    path = store.resolve(config.stats_token_file, base=store.directory_of(source))
    try:
        return TOKEN.read(store.read_auth_key(path))
    except ValueError as error:
        raise TunnelError(f"the token file {path}: {error}") from error


@asynccontextmanager
async def observed(
    snapshots: Snapshots, events: EventStream, stats: StatsListener, audit: AuditLog | None
) -> AsyncIterator[None]:
    """Serve the statistics of the program that runs in this block, and write its audit log.

    What the block raises comes out as it was raised. After it, also if it was cancelled, what is
    left of the audit log is written, for at most `limits.AUDIT_FLUSH_TIMEOUT` seconds.

    Args:
      snapshots: how to look at the program.
      events: what it tells.
      stats: where to serve statistics, if at all.
      audit: where to write what becomes of visitors; None for nowhere.
    """
    async with contextlib.AsyncExitStack() as stack:
        if audit is not None:
            stack.enter_context(events.subscribed(audit.put, visitors=True))
            await stack.enter_async_context(audit.written())
        if stats.sockets:
            await stack.enter_async_context(_served(snapshots, events, stats))
        yield


@asynccontextmanager
async def _served(
    snapshots: Snapshots, events: EventStream, stats: StatsListener
) -> AsyncIterator[None]:
    # A quarter of a second, and some megabytes: only where it is wanted.
    from tunnel.ops.http import Application
    from tunnel.ops.http_server import serve_http
    from tunnel.ops.statistics import Statistics

    statistics = Statistics(snapshots)
    application = Application(statistics, token=stats.token, hosts=stats.hosts)
    with statistics.kept(events):
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(serve_http, application, stats.sockets)
            nursery.start_soon(statistics.sample)
            _log_served(stats)
            yield


def _log_served(stats: StatsListener) -> None:
    for address in map(own_address, stats.sockets):
        logger.info("Statistics served", extra={"url": f"http://{address}/"})
        if stats.token is None and not ipaddress.ip_address(address.host).is_loopback:
            logger.warning(
                "Statistics are open",
                extra={
                    "address": str(address),
                    "consequence": "whoever reaches it sees who is connected",
                    "remedy": "set stats_token, or leave stats_addr at 127.0.0.1",
                },
            )
