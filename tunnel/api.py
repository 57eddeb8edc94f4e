"""Running a server or a client of a configuration, and changing one that runs."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from tunnel.client.run import run_client as run_made_client
from tunnel.client.state import Client
from tunnel.client.view import client_snapshots
from tunnel.compose import (
    configured_audit,
    make_client,
    make_identities,
    make_policy,
    make_server,
)
from tunnel.config import ClientConfig, ServerConfig
from tunnel.eventlog import logged_events
from tunnel.events import SERVER_EVENTS, Event, EventStream, ServerEvent
from tunnel.ops.serving import observed, stats_listener
from tunnel.server.identity import Identities
from tunnel.server.run import run_server as run_made_server
from tunnel.server.view import server_snapshots
from tunnel.views import Arrival, ClientHandle, ServerHandle


async def run_server(
    config: ServerConfig,
    *,
    source: Path | None = None,
    allow: Callable[[Arrival], str | None] | None = None,
    events: EventStream | None = None,
    tell: Callable[[ServerEvent], None] | None = None,
    task_status: trio.TaskStatus[ServerHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a server until it is drained or cancelled; every port is free when it returns.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to; without one, the working directory is.
      allow: asked for every visitor, after all other checks; a text turns it away, and is the
        reason. It must not wait.
      events: told what happens; without one, the log is. See `tunnel.eventlog.logged_events`.
      tell: deprecated; a subscriber of `events` in its place.
      task_status: told a `ServerHandle` when clients can connect.

    Raises:
      TunnelError: it could not start; says why and what to do.
    """
    events = logged_events() if events is None else events
    with (
        _telling(events, tell),
        stats_listener(config, source) as stats,
        configured_audit(config, source) as audit,
    ):
        parts = make_server(config, source, reserved=stats.sockets, judge=allow, events=events)
        snapshots = server_snapshots(parts.server, parts.certificate, parts.addresses)
        async with observed(snapshots, events, stats, audit):
            await run_made_server(
                parts.server,
                parts.listeners,
                certificate=parts.certificate,
                task_status=task_status,
            )


async def run_client(
    config: ClientConfig,
    *,
    source: Path | None = None,
    task_status: trio.TaskStatus[ClientHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a client until it is cancelled, reconnecting for ever.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to, and which tells this client from others;
        without one they are relative to the working directory, and the client is a new one.
      task_status: told a `ClientHandle` at once; wait for its `state` to be connected.

    Raises:
      TunnelError: it could not start; says why and what to do.
    """
    client = make_client(config, source)
    async with observed_client(client, config, source):
        await run_made_client(client, task_status=task_status)


@asynccontextmanager
async def observed_client(
    client: Client, config: ClientConfig, source: Path | None
) -> AsyncIterator[None]:
    """Show what a configuration asks to be shown of a client that runs in this block.

    Args:
      client: made from the configuration by `compose.make_client`.
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: the audit log cannot be opened, or the statistics cannot be served.
    """
    with (
        stats_listener(config, source) as stats,
        configured_audit(config, source, client=client.settings.name) as audit,
    ):
        async with observed(client_snapshots(client), client.events, stats, audit):
            yield


async def change_server(
    handle: ServerHandle, config: ServerConfig, *, source: Path | None = None
) -> None:
    """Have a running server do what another configuration says, and read its certificate again.

    Every session goes on but those whose key is not known any more. If cancelled, nothing changes.

    Args:
      handle: of the server.
      config: what it says. What takes a restart (see `server_changes`) is not looked at.
      source: the file, as for `run_server`.

    Raises:
      TunnelError: it cannot be used; nothing has changed.
    """

    def prepare() -> Identities:
        return make_identities(config, source, handle.reserved)

    # To derive keys that people made up takes a tenth of a second each.
    identities = await trio.to_thread.run_sync(prepare)
    handle.change(make_policy(config), identities)
    handle.reload()


async def change_client(
    handle: ClientHandle, config: ClientConfig, *, source: Path | None = None, anew: bool = False
) -> None:
    """Have a running client do what another configuration says; returns before it is all done.

    Proxies that are the same stay published, and every live connection goes on.

    Args:
      handle: of the client.
      config: what it says. What takes a restart (see `client_changes`) is not looked at.
      source: the file, as for `run_client`.
      anew: with a new connection to the server, which ends the one that lives.

    Raises:
      TunnelError: it cannot be used; nothing has changed.
    """
    other = await trio.to_thread.run_sync(make_client, config, source)
    handle.change(other, anew=anew)


@contextmanager
def _telling(events: EventStream, tell: Callable[[ServerEvent], None] | None) -> Iterator[None]:
    """Have the deprecated `tell` called as before, for as long as the block lasts."""
    if tell is None:
        yield
        return
    warnings.warn("run_server(tell=...) is now events=...", DeprecationWarning, stacklevel=5)

    def server_event(event: Event) -> None:
        if isinstance(event, SERVER_EVENTS):
            tell(event)

    with events.subscribed(server_event):
        yield
