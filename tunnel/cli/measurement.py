"""Measuring round trips and throughput through a server.

Two clients in this process: one has a service that only other clients reach, the other visits it.
So nothing is needed on the server, and no public port is opened.
"""

from __future__ import annotations

import contextlib
import functools
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from tunnel import limits
from tunnel.cli.display import ProgressBar
from tunnel.config import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.errors import TunnelError
from tunnel.library.link import ClientLink, connect
from tunnel.model import Address
from tunnel.net.nursery import open_collapsing_nursery

#: A connection's first byte says what it wants of the service.
_ECHO, _SEND, _TAKE = b"e", b"s", b"t"
#: What a round trip carries in each direction: as much as a keystroke, or a small request.
_REQUEST: Final = b"?" * 64
_BLOCK: Final = bytes(64 * limits.KIB)
_MEGABIT: Final = 1e6 / 8


@attrs.frozen
class Result:
    """What was measured.

    Args:
      server: the server.
      seconds: how long the measurement took altogether.
      round_trips: each, in seconds, from a request to the end of its answer; shortest first.
      to_visitors, from_visitors: throughput, bytes a second.
    """

    server: Address
    seconds: float
    round_trips: tuple[float, ...]
    to_visitors: float
    from_visitors: float

    def quantile(self, part: float) -> float:
        """A quantile of the round trips, in milliseconds (nearest rank).

        Args:
          part: from 0, which is excluded, to 1; 0.5 is the median.
        """
        return 1000 * self.round_trips[math.ceil(part * len(self.round_trips)) - 1]

    def as_json(self) -> dict[str, Any]:
        """The result for programs; throughput in Mbit/s."""
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
        """The result for people; throughput in Mbit/s."""
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        return (
            f"round trip     p50 {p50:.1f} ms, p99 {p99:.1f} ms, of {len(self.round_trips)}\n"
            f"to visitors    {self.to_visitors / _MEGABIT:.1f} Mbit/s\n"
            f"from visitors  {self.from_visitors / _MEGABIT:.1f} Mbit/s"
        )


async def measure(config: ClientConfig, seconds: float, bar: ProgressBar) -> Result:
    """Measure through a server.

    Args:
      config: a client of the server. What it publishes and visits does not count.
      seconds: how long to measure altogether, once both clients are connected.
      bar: told what is measured.

    Raises:
      TunnelError: the server cannot be reached, or says no, or goes away.
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
    """Run the service; the address on this machine where it is reached through the server."""
    # Any other client with the server's key could visit it. That is why its name is a secret.
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
            yield await _reached(link)


async def _reached(link: ClientLink) -> Address:
    """Wait until the client's one visitor has its port; the address of it.

    Raises:
      TunnelError: it has none after `limits.BENCH_TIMEOUT` seconds.
    """
    with trio.move_on_after(limits.BENCH_TIMEOUT):
        address: Address | None = await link.visitors[0].reach.wait_value(lambda at: at is not None)
        if address is not None:
            return address
    raise TunnelError("the server does not let the service be visited; -v shows why")


class Service:
    """What is visited: does for each connection what its first byte asks for.

    `e` sends back what comes, `s` sends without an end, and `t` takes and counts.
    """

    def __init__(self) -> None:
        #: Bytes that all connections together have had it take.
        self.taken = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection until it ends, or is lost."""
        with contextlib.suppress(trio.BrokenResourceError):
            wanted = await stream.receive_some(1)
            while wanted == _SEND:
                await stream.send_all(_BLOCK)
            async for data in stream:
                if wanted == _ECHO:
                    await stream.send_all(data)
                else:
                    self.taken += len(data)


@contextlib.asynccontextmanager
async def _open_stream(address: Address, wanted: bytes) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(wanted)
        yield stream


async def _measure_round_trips(address: Address, seconds: float) -> list[float]:
    """Make one request after the other for so many seconds; how long each took, in seconds."""
    found: list[float] = []
    async with _open_stream(address, _ECHO) as stream:
        with trio.move_on_after(limits.BENCH_TIMEOUT) as patience:
            # The first one does not count: the connection to the service is made for it.
            await _request(stream)
        if patience.cancelled_caught:
            raise TunnelError(f"no answer within {limits.BENCH_TIMEOUT:g} seconds")
        with trio.move_on_after(seconds):
            while True:
                before = trio.current_time()
                await _request(stream)
                found.append(trio.current_time() - before)
    if not found:
        raise TunnelError(f"no answer within {seconds:g} seconds: give it more --seconds")
    return found


async def _request(stream: trio.SocketStream) -> None:
    await stream.send_all(_REQUEST)
    missing = len(_REQUEST)
    while missing:
        data = await stream.receive_some(missing)
        if not data:
            raise trio.BrokenResourceError("ended in the middle of an answer")
        missing -= len(data)


async def _measure_download(address: Address, seconds: float) -> float:
    """Bytes a second that a visitor receives."""
    received = 0

    async def receive(stream: trio.SocketStream) -> None:
        nonlocal received
        async for data in stream:
            received += len(data)
        raise trio.BrokenResourceError("ended, and it has no end")

    async with _open_stream(address, _SEND) as stream:
        return await _rate(functools.partial(receive, stream), lambda: received, seconds)


async def _measure_upload(address: Address, seconds: float, service: Service) -> float:
    """Bytes a second that the service receives."""

    async def send(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(_BLOCK)

    async with _open_stream(address, _TAKE) as stream:
        return await _rate(functools.partial(send, stream), lambda: service.taken, seconds)


async def _rate(
    carry: Callable[[], Awaitable[None]], carried: Callable[[], int], seconds: float
) -> float:
    """Bytes a second that are carried, once what is in buffers on the way has settled.

    Args:
      carry: sends, or receives, until cancelled.
      carried: how many bytes have arrived at the far end so far.
      seconds: how long to carry; a first part of it does not count.
    """
    async with open_collapsing_nursery() as nursery:
        nursery.start_soon(carry)
        await trio.sleep(seconds * limits.BENCH_WARM_UP)
        before, since = carried(), trio.current_time()
        await trio.sleep(seconds * (1 - limits.BENCH_WARM_UP))
        return (carried() - before) / (trio.current_time() - since)
