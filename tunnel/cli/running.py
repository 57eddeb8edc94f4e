"""Running until a signal: what SIGINT, SIGTERM and SIGHUP do, and what the service manager is told.

One Trio run for each process, whether a program of a file (`server`, `client`) or a command of one
line (`expose`, `visit`, `bench`).
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from tunnel.errors import TunnelError
from tunnel.net.nursery import open_collapsing_nursery
from tunnel.ops.descriptors import raise_descriptor_limit
from tunnel.ops.notify import Notifier, from_environment

#: The terminal was closed, or "read your files again"; None on a platform without the signal.
_SIGHUP: Final = getattr(signal, "SIGHUP", None)


@attrs.frozen
class Program:
    """What runs, and what can be done with the handle that it gives once it has started.

    Args:
      run: called with `task_status`, which gets the handle.
      drain: called with the handle; has `run` end by itself when its connections have ended. None
        if there is nothing to wait for.
      reload: called with the handle at SIGHUP. None leaves that signal as it is.
      status: called with the handle; what the program is doing, in a line.
      background: called with the handle; runs as long as `run` does, and is cancelled then.
      hangup_ends: SIGHUP ends the program, for it belongs to a terminal; not if nohup(1) had the
        signal ignored.
    """

    run: Callable[..., Awaitable[object]]
    drain: Callable[[Any], None] | None = None
    reload: Callable[[Any], Awaitable[None]] | None = None
    status: Callable[[Any], str] = str
    background: Callable[[Any], Awaitable[None]] | None = None
    hangup_ends: bool = False


def run_program(program: Program) -> None:
    """Run a program until a signal, and tell the service manager, if there is one, how it is.

    Raises:
      TunnelError: it could not start.
    """
    raise_descriptor_limit()
    trio.run(until_signal, program, from_environment(os.environ, pid=os.getpid()))


def run_line(work: Callable[[], Awaitable[None]], display: Callable[[], Awaitable[None]]) -> None:
    """Run the work of a command of one line until it ends, or until a signal cancels it.

    Args:
      work: raises what the command raises.
      display: shows how the work goes on, from the beginning until the work has ended.
    """

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        # The display shows that it connects, too; so it does not wait until that is done.
        task_status.started()
        await work()

    raise_descriptor_limit()
    program = Program(run, background=lambda _handle: display(), hangup_ends=True)
    trio.run(until_signal, program, Notifier())


async def until_signal(program: Program, notifier: Notifier) -> None:
    """Run a program until it ends, or until a signal ends it.

    The first SIGINT or SIGTERM drains, and the program ends by itself when it is through. A second
    one, or the first one where there is nothing to drain or before the start, cancels.

    Args:
      program: what runs. An exception of it comes out as it is, not in a group.
      notifier: the service manager.

    Raises:
      TunnelError: the program raised it, or OSError, before it had started.
    """
    with trio.open_signal_receiver(*_signals(program)) as signals:
        async with open_collapsing_nursery() as nursery:
            running = _Running(program, notifier, nursery)
            # What signals cancel is the program alone: its background, which shows how it ends and
            # gives the service manager signs of life, goes on until it has ended.
            scope = trio.CancelScope()
            nursery.start_soon(running.handle_signals, signals, scope)
            with scope:
                await running.run()


def _signals(program: Program) -> set[signal.Signals]:
    """The signals that do something else than by themselves."""
    handled = {signal.SIGINT, signal.SIGTERM}
    if _SIGHUP is not None and (
        program.reload is not None
        or (program.hangup_ends and signal.getsignal(_SIGHUP) != signal.SIG_IGN)
    ):
        handled.add(_SIGHUP)
    return handled


class _Running(trio.TaskStatus[object]):
    """A running program and, once it has started, its handle: what a signal does to it.

    To the program it is the `task_status`. It is not started with `Nursery.start`, which would put
    it into a nursery of its own, and so its exceptions into groups.
    """

    def __init__(self, program: Program, notifier: Notifier, nursery: trio.Nursery) -> None:
        self._program = program
        self._notifier = notifier
        self._nursery = nursery
        self._handle: object = None
        self._started = False
        self._stopping = False

    async def run(self) -> None:
        try:
            await self._program.run(task_status=self)
        except (TunnelError, OSError) as error:
            if self._started:
                raise
            raise TunnelError(f"could not start: {error}") from error

    def started(self, value: object = None) -> None:
        self._handle = value
        self._started = True
        self._notifier.ready()
        self._nursery.start_soon(self._notifier.keep_telling, self._status)
        if self._program.background is not None:
            self._nursery.start_soon(self._program.background, value)
        # What is there now stays for good. Looked through again by every full collection, it would
        # stop everything for 40 ms now and then (measured).
        gc.freeze()

    def _status(self) -> str:
        status = self._program.status(self._handle)
        return f"stopping: {status}" if self._stopping else status

    async def handle_signals(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Do what each signal asks for; what cannot drain, or does already, is cancelled."""
        async for number in signals:
            if number == _SIGHUP and self._program.reload is not None:
                await self._reload(self._program.reload)
            elif not self._drain():
                scope.cancel()

    async def _reload(self, reload: Callable[[Any], Awaitable[None]]) -> None:
        if self._started and not self._stopping:
            self._notifier.reloading()
            await reload(self._handle)
            self._notifier.ready()

    def _drain(self) -> bool:
        """Begin to drain; False if that cannot be, or was begun before."""
        again, self._stopping = self._stopping, True
        self._notifier.stopping()
        if again or not self._started or self._program.drain is None:
            return False
        self._program.drain(self._handle)
        return True
