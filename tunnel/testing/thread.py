"""What the fixtures give to tests that do not use Trio: the same, with calls that block.

Trio runs in a thread of its own, as long as the test does.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, Self, TypeVar

import attrs
import trio

from tunnel import limits
from tunnel.library.link import ClientLink
from tunnel.library.server import EmbeddedServer
from tunnel.model import Address
from tunnel.net.nursery import open_collapsing_nursery
from tunnel.testing.fault import LinkFault
from tunnel.views import ClientState, SessionStatistics

_T = TypeVar("_T")


class TrioThread:
    """A thread in which Trio runs, and in which context managers of Trio's can be entered."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery
        self._ready: Future[trio.lowlevel.TrioToken] = Future()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tls-tunnel tests", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(trio.RunFinishedError):
            self._ready.result().run_sync_soon(self._nursery.cancel_scope.cancel)
        self._thread.join(limits.TEST_TIMEOUT)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            raise TimeoutError("what runs in the tunnel's thread does not end")

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # It is raised where the thread is waited for.
            self._failure = error
            if not self._ready.done():
                self._ready.set_exception(error)

    async def _main(self) -> None:
        async with open_collapsing_nursery() as self._nursery:
            self._ready.set_result(trio.lowlevel.current_trio_token())
            await trio.sleep_forever()

    def run(self, work: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        """Run an async function there, and wait for it.

        Raises:
          TimeoutError: it took longer than `limits.TEST_TIMEOUT`.
        """

        async def bounded() -> _T:
            with trio.fail_after(limits.TEST_TIMEOUT):
                return await work(*arguments)

        try:
            return trio.from_thread.run(bounded, trio_token=self._ready.result())
        except trio.TooSlowError as error:
            raise TimeoutError(f"waited for {limits.TEST_TIMEOUT:g} seconds") from error

    def call(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Call a function there."""
        return trio.from_thread.run_sync(work, *arguments, trio_token=self._ready.result())

    @contextmanager
    def opened(self, manager: AbstractAsyncContextManager[_T]) -> Iterator[_T]:
        """Enter a context manager there, for as long as the block lasts."""
        scope, over = trio.CancelScope(), threading.Event()
        value: _T = self.run(self._nursery.start, _hold, manager, scope, over)
        try:
            yield value
        finally:
            with suppress(trio.RunFinishedError):  # it failed: raised where the thread ends
                self.call(scope.cancel)
            over.wait(limits.TEST_TIMEOUT)


async def _hold(
    manager: AbstractAsyncContextManager[_T],
    scope: trio.CancelScope,
    over: threading.Event,
    *,
    task_status: trio.TaskStatus[_T],
) -> None:
    try:
        with scope:
            async with manager as value:
                task_status.started(value)
                await trio.sleep_forever()
    finally:
        over.set()


@attrs.frozen
class ThreadedServer:
    """A running server."""

    _thread: TrioThread
    #: In the thread; leave it alone from outside.
    server: EmbeddedServer

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where clients connect to, past `link_fault`."""
        return self.server.addresses

    @property
    def pin(self) -> str:
        """What clients may trust it by, as their `pin`."""
        return self.server.pin

    @property
    def join(self) -> str | None:
        """What clients may be given in place of a configuration."""
        return self.server.join

    def sessions(self) -> tuple[SessionStatistics, ...]:
        """The clients that are connected now, and what they publish."""
        return self._thread.call(self.server.sessions)


@attrs.frozen
class ThreadedClient:
    """A client that is, or will be again, connected to its server."""

    _thread: TrioThread
    #: In the thread; leave it alone from outside.
    link: ClientLink

    @property
    def state(self) -> ClientState:
        """Where it is."""
        state: ClientState = self._thread.call(lambda: self.link.state.value)
        return state

    @property
    def published(self) -> Mapping[str, Address]:
        """By name where each publication can be reached now."""
        return self._thread.call(lambda: self.link.published.value)

    def wait_state(self, state: ClientState) -> None:
        """Wait until it is there.

        Raises:
          TimeoutError: it took longer than `limits.TEST_TIMEOUT`.
        """
        self._thread.run(self.link.state.wait_value, state)

    @contextmanager
    def publish(self, port: int = 0, **options: Any) -> Iterator[Address]:  # noqa: ANN401
        """Publish for as long as the block lasts; see `ClientLink.publish`.

        A handler runs in the tunnel's thread, on Trio.
        """
        with self._thread.opened(self.link.publish(port, **options)) as address:
            yield address

    @contextmanager
    def publish_asgi(self, app: Any, port: int = 0, **options: Any) -> Iterator[Address]:  # noqa: ANN401
        """Publish an ASGI application for that long; see `ClientLink.publish_asgi`."""
        with self._thread.opened(self.link.publish_asgi(app, port, **options)) as address:
            yield address


@attrs.frozen
class ThreadedFault:
    """The way between clients and their server; see `LinkFault`."""

    _thread: TrioThread
    #: In the thread; leave it alone from outside.
    fault: LinkFault

    @property
    def address(self) -> Address:
        """Where clients connect to, in place of the server's own address."""
        return self.fault.address

    def cut(self) -> None:
        """Reset the link. When it returns, both ends know: visitors are reset, ports are free."""
        self._thread.run(self.fault.cut)

    def stall(self) -> None:
        """Carry nothing more, and tell neither end."""
        self._thread.call(self.fault.stall)

    def delay(self, seconds: float) -> None:
        """Let every byte take so many seconds from now on, each way."""
        self._thread.call(self.fault.delay, seconds)

    def heal(self) -> None:
        """Carry everything at once again; what was held back comes first."""
        self._thread.call(self.fault.heal)
