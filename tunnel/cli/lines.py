"""`tls-tunnel expose` and `visit`: a client that does one thing, until a signal ends it."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from tunnel.cli.joining import client_of
from tunnel.cli.options import Settings
from tunnel.cli.saving import save
from tunnel.cli.watching import Watched, shown
from tunnel.config import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.values import UNIX
from tunnel.errors import PublishError, TunnelError
from tunnel.library.arguments import local_address, proxy_config, visitor_config
from tunnel.library.link import connect
from tunnel.library.nursery import open_collapsing_nursery
from tunnel.model import Address
from tunnel.ops.descriptors import raise_descriptor_limit
from tunnel.protocol.join import Join

#: The terminal was closed, where the platform has such a signal.
_HANGUP: Final = getattr(signal, "SIGHUP", None)


@attrs.frozen
class Line:
    """What both commands share.

    Args:
      settings: how to log.
      join: the server.
      file: where to save what the line says; None for nowhere.
    """

    settings: Settings
    join: Join
    file: Path | None

    @property
    def server(self) -> str:
        """The server, for people."""
        return str(Address(self.join.host, self.join.port))

    def config(self, table: ProxyConfig | VisitorConfig) -> ClientConfig:
        """The client; and the file, if it is to be saved.

        Raises:
          TunnelError: the environment has faults, or the file does, or cannot be written.
        """
        config = client_of(self.join, os.environ)
        if self.file is not None:
            print(save(self.file, self.join, table, os.environ), file=sys.stderr)
        return config


def expose(line: Line, target: str, *, port: int, name: str | None, qr: bool) -> None:
    """Publish a local service until a signal ends it; its port is free when this returns.

    Raises:
      TunnelError: it cannot be: an argument is wrong, or the server says no.
    """
    chosen = _name_of(target) if name is None else name
    keys = {"name": chosen, "publish_port": port, **local_address(target)}
    proxy = proxy_config(keys, "expose")
    config = line.config(proxy)
    watched = Watched(line.server, _service(proxy), "is not published: see the log")
    with shown(watched, line.settings, qr=qr) as face:
        run(functools.partial(_expose, config, proxy, watched), face.show)


async def _expose(config: ClientConfig, proxy: ProxyConfig, watched: Watched) -> None:
    async with connect(config) as link:
        try:
            async with link.publish(proxy.publish_port, to=_service(proxy), name=proxy.name):
                with link.published.open_transform(lambda at: at.get(proxy.name)) as reach:
                    await watched.follow(link, reach, lambda: link.statistics()[0].counters)
        except PublishError as error:
            raise TunnelError(f"the server does not publish it: {error}") from error


def visit(line: Line, keys: Mapping[str, object]) -> None:
    """Lead a local port to another client's proxy until a signal ends it.

    Args:
      line: what both commands share.
      keys: as `[[visitors]]` has them.

    Raises:
      TunnelError: it cannot be: an argument is wrong, or the server says no.
    """
    visitor = visitor_config(keys, "visit")
    config = attrs.evolve(line.config(visitor), visitors=(visitor,))
    watched = Watched(line.server, visitor.name, "is away")
    with shown(watched, line.settings) as face:
        run(functools.partial(_visit, config, watched), face.show)


async def _visit(config: ClientConfig, watched: Watched) -> None:
    async with connect(config) as link:
        [visitor] = link.visitors
        await watched.follow(link, visitor.reach, visitor.counters.statistics)


def _name_of(target: str) -> str:
    """What a service is called that was given no name."""
    return Path(target).name if target.startswith(UNIX) else target


def _service(proxy: ProxyConfig) -> str:
    if proxy.local_port is None:
        return proxy.local_addr
    return str(Address(proxy.local_addr, proxy.local_port))


def run(life: Callable[[], Awaitable[None]], beside: Callable[[], Awaitable[None]]) -> None:
    """Run something until it ends, or until a signal ends it; what it raises comes out bare.

    Args:
      life: what is run.
      beside: what runs beside it, as long as it does.
    """
    raise_descriptor_limit()
    # All that was imported stays for good: see `until_signal` in `run`.
    gc.freeze()
    trio.run(_until_signal, life, beside)


async def _until_signal(
    life: Callable[[], Awaitable[None]], beside: Callable[[], Awaitable[None]]
) -> None:
    with trio.open_signal_receiver(*_signals()) as signals:
        async with open_collapsing_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(_obey, signals, scope)
            nursery.start_soon(beside)
            with scope:
                await life()


def _signals() -> set[signal.Signals]:
    """What ends a line. Not a terminal that is closed, if nohup(1) said so."""
    ends = {signal.SIGINT, signal.SIGTERM}
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        ends.add(_HANGUP)
    return ends


async def _obey(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
