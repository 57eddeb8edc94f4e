"""Running until a signal: one Trio run for each of the two programs."""

from __future__ import annotations

import functools
import gc
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tunnel.errors import TunnelError

if TYPE_CHECKING:
    from tunnel.config import ClientConfig, ServerConfig

#: Called with `task_status`, which gets a handle.
Life = Callable[..., Awaitable[object]]


def serve(config: ServerConfig, source: Path) -> None:
    """Run a server until SIGINT or SIGTERM; the first of them lets connections finish.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: it could not start.
    """
    from tunnel.api import run_server

    life = functools.partial(run_server, config, source=source)
    trio.run(until_signal, life, lambda handle: handle.drain())


def connect(config: ClientConfig, source: Path) -> None:
    """Run a client until SIGINT or SIGTERM.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: it could not start.
    """
    from tunnel.api import run_client

    trio.run(until_signal, functools.partial(run_client, config, source=source))


async def until_signal(life: Life, drain: Callable[[Any], None] | None = None) -> None:
    """Run `life` until it ends, or until a signal ends it.

    The first signal calls `drain` with what `life` gave as started, and `life` ends by itself when
    it is through. A second signal, or the first one without `drain` or before the start, cancels.

    Raises:
      TunnelError: `life` raised it, or OSError, before it had started.
    """
    failure: TunnelError | OSError | None = None
    on_signal: Callable[[], None] | None = None

    async def watch() -> None:
        nonlocal on_signal
        async for _ in signals:
            if on_signal is None:
                break
            on_signal()
            on_signal = None
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as living:
                try:
                    handle = await living.start(life)
                except (TunnelError, OSError) as error:
                    failure = error
                else:
                    on_signal = drain and functools.partial(drain, handle)
                    # What is there now stays for good. Looked through again by every full
                    # collection, it would stop everything for 40 ms now and then (measured).
                    gc.freeze()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise TunnelError(f"could not start: {failure}") from failure
