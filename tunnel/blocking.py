"""A tunnel for programs that do not use Trio: threads, or asyncio.

Trio runs in a thread of its own, as long as the block lasts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

import attrs
import trio

from tunnel import limits
from tunnel.library.arguments import Target
from tunnel.library.configurations import ConfigurationSource
from tunnel.library.link import connect
from tunnel.model import ANY, Address

__all__ = ["expose"]


@contextmanager
def expose(
    to: Target,
    *,
    join: ConfigurationSource,
    port: int = 0,
    name: str | None = None,
    host: str = ANY,
    allow_from: tuple[str, ...] = (),
    proxy_protocol: str | None = None,
    wait: bool = False,
    reconnect: bool = True,
) -> Iterator[Address]:
    """Publish a local service for as long as the block lasts; gives its public address.

    Blocks while it connects, and when the block ends until the port is free and the thread has
    ended: in a program of asyncio enter and leave it with `asyncio.to_thread`. Where Trio runs
    already use `connect`.

    Args:
      to: a port of this machine, "host:port", or "unix:/path".
      join: a join string, a configuration, or the file of one.
      port, name, host, allow_from, proxy_protocol, wait: as for `ClientLink.publish`.
      reconnect: as for `connect`. Without, a lost connection is raised when the block ends.

    Raises:
      TunnelError: what `connect` and `publish` raise.
    """
    options = _Options(port, name, host, allow_from, proxy_protocol, wait, reconnect)
    tunnel = _Thread(to, join, options)
    tunnel.thread.start()
    try:
        yield tunnel.address.result()
    finally:
        tunnel.stop()
    if tunnel.failure is not None:
        raise tunnel.failure


@attrs.frozen
class _Options:
    port: int
    name: str | None
    host: str
    allow_from: tuple[str, ...]
    proxy_protocol: str | None
    wait: bool
    reconnect: bool


class _Thread:
    """The thread in which Trio runs."""

    def __init__(self, to: Target, join: ConfigurationSource, options: _Options) -> None:
        self._to, self._join, self._options = to, join, options
        #: Where it is published, or why it is not.
        self.address: Future[Address] = Future()
        #: What ended it of itself after it was published.
        self.failure: Exception | None = None
        # It is a daemon, so that a program that ends without leaving the block can end.
        self.thread = threading.Thread(target=self._run, name="tls-tunnel", daemon=True)
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stopped = False

    def stop(self) -> None:
        """End it, and wait until it has ended, for a bounded time; also before it has begun."""
        self._stopped = True
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        self.thread.join(2 * limits.WITHDRAWAL)

    def _run(self) -> None:
        try:
            trio.run(self._publish)
        except Exception as error:
            if self.address.done():
                self.failure = error
            else:
                self.address.set_exception(error)

    async def _publish(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._stopped:  # before there was a token
            self._scope.cancel()
        options = self._options
        with self._scope:
            async with (
                connect(self._join, name=options.name, reconnect=options.reconnect) as link,
                link.publish(
                    options.port,
                    to=self._to,
                    host=options.host,
                    allow_from=options.allow_from,
                    proxy_protocol=options.proxy_protocol,
                    wait=options.wait,
                ) as address,
            ):
                self.address.set_result(address)
                await trio.sleep_forever()
