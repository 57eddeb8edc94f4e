"""What a handler is worth: a program that serves visitors itself, and one that has a local port.

`python -m tests.benchmarks.bench_handler [PAIRS]` takes about four minutes. Each pair is the same
load on the same service, written for Trio, in turns: published with `link.publish(handler=...)`,
and listening on a local port that is published with `link.publish(to=...)` by the same program, or
by `tls-tunnel client` beside it. It prints the median of the ratios and their quartiles; more than
1 means that the handler is faster.
"""

from __future__ import annotations

import functools
import gc
import statistics
import subprocess
import sys
from pathlib import Path

import trio

import tunnel
from tests.benchmarks.processes import HOST, Site, free_ports, progress, site
from tests.benchmarks.service import CHUNK, GREETING

PAIRS = 15
SECONDS = 1.5
#: What is printed, the kind of load, how many connections it has, and the unit.
WORK = (
    ("download, MB/s", "download", 1),
    ("upload, MB/s", "upload", 1),
    ("requests/s, 1 connection", "requests", 1),
    ("requests/s, 64 connections", "requests", 64),
    ("new connections/s, 16 at once", "new", 16),
)
#: How the service reaches its visitors.
WAYS = ("handler", "port", "process")


async def serve(stream: trio.abc.HalfCloseableStream, _peer: object = None) -> None:
    """The service of `tests.benchmarks.service`, for Trio."""
    try:
        await stream.send_all(GREETING)
        data = await stream.receive_some(65536)
        if data[:1] == b"D":
            while True:
                await stream.send_all(CHUNK)
        if data[:1] == b"U":
            while await stream.receive_some(262144):
                pass
            await stream.send_all(b".")
        while data:
            await stream.send_all(data)
            data = await stream.receive_some(65536)
    except trio.BrokenResourceError:
        pass


async def program(way: str, path: Path, public: int, local: int) -> None:
    """The program whose service is published."""
    async with trio.open_nursery() as nursery:
        if way != "handler":
            await nursery.start(functools.partial(trio.serve_tcp, serve, local, host=HOST))
        if way == "process":
            print("ready", file=sys.stderr, flush=True)
            await trio.sleep_forever()
        async with tunnel.connect(path) as link:
            what = {"handler": serve} if way == "handler" else {"to": local}
            async with link.publish(public, host=HOST, **what):
                gc.freeze()  # as `tls-tunnel client` does
                print("ready", file=sys.stderr, flush=True)
                await trio.sleep_forever()


def start(here: Site, way: str) -> int:
    """Start a tunnel and the service behind it; returns the public port."""
    public, local = free_ports(2)
    here.server()
    path = str(here.client_file([]))
    command = ("-m", "tests.benchmarks.bench_handler", way, path, str(public), str(local))
    here.run(*command).wait_for("ready")
    if way == "process":
        here.client([(public, local)])
    return public


def load(port: int, kind: str, connections: int) -> float:
    """One number from the load generator."""
    command = ("tests.benchmarks.load", str(port), kind, str(SECONDS), str(connections))
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=True, timeout=30
    )
    return float(done.stdout)


def main(pairs: int) -> None:
    """Measure in turns and print."""
    rates: dict[tuple[str, str], list[float]] = {}
    with site() as one, site() as two, site() as three:
        ports = {way: start(here, way) for way, here in zip(WAYS, (one, two, three), strict=True)}
        for number in range(pairs):
            for what, kind, connections in WORK:
                for way in WAYS if number % 2 else reversed(WAYS):
                    rate = load(ports[way], kind, connections)
                    rates.setdefault((what, way), []).append(rate)
            progress(f"pair {number + 1} of {pairs}")
    for what, *_ in WORK:
        own = rates[what, "handler"]
        for way, words in (("port", "a local port"), ("process", "and a client beside it")):
            ratios = [mine / its for mine, its in zip(own, rates[what, way], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(
                f"{what:<30}{statistics.median(own):>9.0f}  {words:<23}"
                f"{statistics.median(rates[what, way]):>9.0f}  {middle:.2f} × "
                f"({low:.2f} to {high:.2f})"
            )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        way, path, public, local = sys.argv[1:]
        trio.run(program, way, Path(path), int(public), int(local))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
