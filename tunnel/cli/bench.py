"""`tls-tunnel bench`: what a server and the way there can do, seen from this machine.

Two clients in this process: one has a service that only other clients reach, the other visits it.
So nothing is needed on the server, and no public port is opened.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import attrs
import trio
from trio_util import periodic

from tunnel import limits
from tunnel.cli.joining import client_of
from tunnel.cli.lines import run
from tunnel.cli.options import Settings, start_logging
from tunnel.config import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.errors import TunnelError
from tunnel.library.link import connect
from tunnel.library.nursery import open_collapsing_nursery
from tunnel.model import Address
from tunnel.protocol.join import Join

#: What a visitor's first byte asks the service for.
_ECHO, _SEND, _TAKE = b"e", b"s", b"t"
#: What goes there and back: a keystroke, or a small question.
_QUESTION: Final = b"?" * 64
_BLOCK: Final = bytes(64 * limits.KIB)
_MEGABIT: Final = 1e6 / 8


@attrs.frozen
class Result:
    """What was measured. Seconds, and bytes a second.

    Args:
      server: which.
      seconds: how long it was measured altogether.
      round_trips: each, from a question to its answer, shortest first.
      to_visitors, from_visitors: throughput.
    """

    server: Address
    seconds: float
    round_trips: tuple[float, ...]
    to_visitors: float
    from_visitors: float

    def quantile(self, part: float) -> float:
        """The round trip, in milliseconds, that this part of all does not exceed."""
        return 1000 * self.round_trips[math.ceil(part * len(self.round_trips)) - 1]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "server": str(self.server),
            "seconds": self.seconds,
            "round_trips": len(self.round_trips),
            "p50_ms": round(self.quantile(0.5), 3),
            "p99_ms": round(self.quantile(0.99), 3),
            "to_visitors_mbit_s": round(self.to_visitors / _MEGABIT, 3),
            "from_visitors_mbit_s": round(self.from_visitors / _MEGABIT, 3),
        }

    def as_text(self) -> str:
        """For people."""
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        return (
            f"round trip     p50 {p50:.1f} ms, p99 {p99:.1f} ms, of {len(self.round_trips)}\n"
            f"to visitors    {self.to_visitors / _MEGABIT:.1f} Mbit/s\n"
            f"from visitors  {self.from_visitors / _MEGABIT:.1f} Mbit/s"
        )


def bench(settings: Settings, join: Join, seconds: float) -> Result:
    """Measure for so many seconds altogether, with a progress bar on stderr if that is a terminal.

    Raises:
      TunnelError: it cannot be measured: the server cannot be reached, or says no, or goes away;
        or a signal ended it.
    """
    start_logging(settings)
    if not settings.verbosity:
        # What goes wrong is raised here, and said once.
        logging.getLogger("tunnel").setLevel(logging.CRITICAL)
    found: list[Result] = []
    config = client_of(join, os.environ)

    async def life() -> None:
        found.append(await measure(config, seconds, bar))

    with _bar(seconds) as bar:
        run(life, bar.keep_moving)
    if not found:
        raise TunnelError("ended before all was measured")
    return found[0]


class Bar:
    """A progress bar that nobody sees; `_bar` gives one that is seen."""

    def begin(self, what: str, seconds: float) -> None:
        """This is measured now, for so long."""

    async def keep_moving(self) -> None:
        """Move it, until cancelled."""
        await trio.sleep_forever()


class _SeenBar(Bar):
    def __init__(self, progress: Any, seconds: float) -> None:  # noqa: ANN401  # rich's
        self._progress = progress
        self._task = progress.add_task("connecting", total=seconds)
        self._done = self._seconds = 0.0
        self._since = 0.0

    def begin(self, what: str, seconds: float) -> None:
        self._done += self._seconds
        self._seconds, self._since = seconds, trio.current_time()
        self._progress.update(self._task, description=what)

    async def keep_moving(self) -> None:
        async for _ in periodic(0.1):
            passed = min(trio.current_time() - self._since, self._seconds)
            self._progress.update(self._task, completed=self._done + passed, refresh=True)


@contextlib.contextmanager
def _bar(seconds: float) -> Iterator[Bar]:
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description:<15}"), BarColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        yield _SeenBar(progress, seconds)


# --- Measuring --------------------------------------------------------------------------------


async def measure(config: ClientConfig, seconds: float, bar: Bar) -> Result:
    """Measure with a client of the server: of what it publishes or visits nothing is looked at.

    Raises:
      TunnelError: as `bench`.
    """
    service = Service()
    round_trips = seconds * limits.BENCH_ROUND_TRIPS
    direction = (seconds - round_trips) / 2
    async with _visited(config, service) as address:
        try:
            bar.begin("round trips", round_trips)
            trips = await _measure_round_trips(address, round_trips)
            bar.begin("to visitors", direction)
            down = await _measure_download(address, direction)
            bar.begin("from visitors", direction)
            up = await _measure_upload(address, direction, service)
        except trio.BrokenResourceError as error:
            raise TunnelError("the server was lost, or ended the visit; -v shows why") from error
    server = Address(config.server_addr[0], config.server_port)
    return Result(server, seconds, tuple(sorted(trips)), down, up)


@contextlib.asynccontextmanager
async def _visited(config: ClientConfig, service: Service) -> AsyncIterator[Address]:
    """The service, and where on this machine a visitor reaches it through the server."""
    # Whoever else has the key of the server could visit it, did he know the name.
    name = f"bench-{secrets.token_hex(8)}"
    async with open_collapsing_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, service.serve, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        proxy = ProxyConfig(name=name, publish_port=0, local_port=port, visitors_only=True)
        owner = attrs.evolve(config, proxies=(proxy,), visitors=())
        visitor = attrs.evolve(
            config, proxies=(), visitors=(VisitorConfig(name=name, bind_port=0),)
        )
        async with connect(owner, reconnect=False), connect(visitor, reconnect=False) as link:
            address: Address | None = None
            with trio.move_on_after(limits.BENCH_PATIENCE):
                address = await link.visitors[0].reach.wait_value(lambda at: at is not None)
            if address is None:
                raise TunnelError("the server does not let the service be visited; -v shows why")
            yield address


class Service:
    """What is visited: does with each visitor what his first byte asks for."""

    def __init__(self) -> None:
        #: Bytes that it was told to take.
        self.taken = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """One visitor, until he goes."""
        with contextlib.suppress(trio.BrokenResourceError):
            wish = await stream.receive_some(1)
            while wish == _SEND:
                await stream.send_all(_BLOCK)
            async for data in stream:
                if wish == _ECHO:
                    await stream.send_all(data)
                else:
                    self.taken += len(data)


@contextlib.asynccontextmanager
async def _visit(address: Address, wish: bytes) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(wish)
        yield stream


async def _measure_round_trips(address: Address, seconds: float) -> list[float]:
    """One question after the other, for so long."""
    found: list[float] = []
    async with _visit(address, _ECHO) as stream:
        with trio.move_on_after(limits.BENCH_PATIENCE) as patience:
            await _ask(stream)  # the first one has the way opened
        if patience.cancelled_caught:
            raise TunnelError(f"no answer within {limits.BENCH_PATIENCE:g} seconds")
        with trio.move_on_after(seconds):
            while True:
                before = trio.current_time()
                await _ask(stream)
                found.append(trio.current_time() - before)
    if not found:
        raise TunnelError(f"no answer within {seconds:g} seconds: give it more --seconds")
    return found


async def _ask(stream: trio.SocketStream) -> None:
    await stream.send_all(_QUESTION)
    missing = len(_QUESTION)
    while missing:
        data = await stream.receive_some(missing)
        if not data:
            raise trio.BrokenResourceError("ended in the middle of an answer")
        missing -= len(data)


async def _measure_download(address: Address, seconds: float) -> float:
    received = 0

    async def receive(stream: trio.SocketStream) -> None:
        nonlocal received
        async for data in stream:
            received += len(data)
        raise trio.BrokenResourceError("ended, and it has no end")

    async with _visit(address, _SEND) as stream:
        return await _rate(functools.partial(receive, stream), lambda: received, seconds)


async def _measure_upload(address: Address, seconds: float, service: Service) -> float:
    async def send(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(_BLOCK)

    async with _visit(address, _TAKE) as stream:
        return await _rate(functools.partial(send, stream), lambda: service.taken, seconds)


async def _rate(
    carry: Callable[[], Awaitable[None]], carried: Callable[[], int], seconds: float
) -> float:
    """Bytes a second that are carried, at the end of the tunnel where they arrive."""
    async with open_collapsing_nursery() as nursery:
        nursery.start_soon(carry)
        await trio.sleep(seconds * limits.BENCH_WARM_UP)
        before, since = carried(), trio.current_time()
        await trio.sleep(seconds * (1 - limits.BENCH_WARM_UP))
        return (carried() - before) / (trio.current_time() - since)
