"""Running until a signal, and telling the service manager: one Trio run for each program."""

from __future__ import annotations

import functools
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from tunnel.errors import TunnelError
from tunnel.ops.descriptors import raise_descriptor_limit
from tunnel.ops.notify import Notifier, from_environment
from tunnel.views import ClientHandle, ServerHandle

if TYPE_CHECKING:
    from tunnel.config import ClientConfig, ServerConfig

#: Read the files again, where the platform has such a signal.
_RELOAD: Final = getattr(signal, "SIGHUP", None)


@attrs.frozen
class Program:
    """What runs, and what can be done with the handle that it gives once it does.

    Args:
      life: called with `task_status`, which gets the handle.
      drain: ends it gracefully.
      reload: reads its files again.
      status: what it is doing, in a line.
      beside: what runs beside it, as long as it does.
    """

    life: Callable[..., Awaitable[object]]
    drain: Callable[[Any], None] | None = None
    reload: Callable[[Any], Awaitable[None]] | None = None
    status: Callable[[Any], str] = str
    beside: Callable[[Any], Awaitable[None]] | None = None


def serve(config: ServerConfig, source: Path) -> None:
    """Run a server until SIGINT or SIGTERM; the first of them lets connections finish.

    SIGHUP has it read its configuration and its certificate again.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: it could not start.
    """
    from tunnel.api import run_server
    from tunnel.cli.live import Live

    raise_descriptor_limit()
    life = functools.partial(run_server, config, source=source)
    live = Live(source, config)
    program = Program(life, lambda it: it.drain(), live.reload, server_status, live.attend)
    trio.run(until_signal, program, from_environment(os.environ, pid=os.getpid()))


def connect(config: ClientConfig, source: Path) -> None:
    """Run a client until SIGINT or SIGTERM. SIGHUP has it read its configuration again.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: it could not start.
    """
    from tunnel.api import run_client
    from tunnel.cli.live import Live

    raise_descriptor_limit()
    life = functools.partial(run_client, config, source=source)
    live = Live(source, config)
    program = Program(life, None, live.reload, client_status, live.attend)
    trio.run(until_signal, program, from_environment(os.environ, pid=os.getpid()))


async def until_signal(program: Program, notifier: Notifier) -> None:
    """Run a program until it ends, or until a signal ends it.

    The first signal drains, and the program ends by itself when it is through. A second signal, or
    the first one where there is nothing to drain or before the start, cancels.

    Raises:
      TunnelError: its life raised it, or OSError, before it had started.
    """
    failure: TunnelError | OSError | None = None
    running = _Running(program, notifier)
    with trio.open_signal_receiver(*_signals(program)) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.obey, signals, nursery.cancel_scope)
            async with trio.open_nursery() as living:
                try:
                    handle = await living.start(program.life)
                    running.started(handle)
                except (TunnelError, OSError) as error:
                    failure = error
                else:
                    nursery.start_soon(notifier.keep_telling, running.status)
                    if program.beside is not None:
                        nursery.start_soon(program.beside, handle)
                    # What is there now stays for good. Looked through again by every full
                    # collection, it would stop everything for 40 ms now and then (measured).
                    gc.freeze()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise TunnelError(f"could not start: {failure}") from failure


def _signals(program: Program) -> set[signal.Signals]:
    asked_for = {signal.SIGINT, signal.SIGTERM}
    if program.reload is not None and _RELOAD is not None:
        asked_for.add(_RELOAD)
    return asked_for


class _Running:
    """A program and its handle, once there is one: what a signal does to it."""

    def __init__(self, program: Program, notifier: Notifier) -> None:
        self._program = program
        self._notifier = notifier
        self._handle: object = None
        self._running = False
        self._stopping = False

    def started(self, handle: object) -> None:
        self._handle = handle
        self._running = True
        self._notifier.ready()

    def status(self) -> str:
        status = self._program.status(self._handle)
        return f"stopping: {status}" if self._stopping else status

    async def obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Do what each signal asks for, until one cancels `scope`."""
        async for number in signals:
            if number == _RELOAD:
                await self._reload()
            elif not self._drain():
                scope.cancel()

    async def _reload(self) -> None:
        if self._running and not self._stopping and self._program.reload is not None:
            self._notifier.reloading()
            await self._program.reload(self._handle)
            self._notifier.ready()

    def _drain(self) -> bool:
        """Begin to drain; False if that cannot be, or was begun before."""
        again, self._stopping = self._stopping, True
        self._notifier.stopping()
        if again or not self._running or self._program.drain is None:
            return False
        self._program.drain(self._handle)
        return True


def server_status(handle: ServerHandle) -> str:
    """How much a server has to do, for `systemctl status`."""
    sessions = handle.statistics()
    proxies = sum(len(session.proxies) for session in sessions)
    visitors = sum(session.connections for session in sessions)
    return f"{len(sessions)} clients, {proxies} proxies, {visitors} visitors"


def client_status(handle: ClientHandle) -> str:
    """Whether a client is connected, and what it publishes, for `systemctl status`."""
    published = sum(1 for proxy in handle.statistics() if proxy.addresses)
    return f"{handle.state.value.value}, {published} proxies published"
