"""Small requests while a bulk transfer fills a slow link. `python -m tests.benchmarks.shaped`

Server and visitors are on one host, client and services on another (`tests.namespaces`), and the
tunnel's link crosses a cable of 50 Mbit/s. Milliseconds of small requests through one published
port: while nothing else happens, and while a visitor downloads or uploads as fast as it goes
through another. Needs root.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from tests.benchmarks.peers.peer import Command, Peer
from tests.benchmarks.processes import progress, quantile
from tests.benchmarks.running import Failed, Program, Service, Tunnel, tunnel
from tests.namespaces import Cable, cable, congestion_controls, missing

RATE = 50_000_000
#: Of the service for the bulk transfer, and of that for requests. Their host is theirs alone.
SERVICE_PORTS = (8001, 8002)
#: Seconds until a bulk transfer has filled every queue on its way.
WARM = 2.0
#: Seconds for what is still under way to arrive, or be dropped, after a transfer.
REST = 1.0
#: How long anything may take on a slow machine.
PATIENCE = 30.0
ROOT = Path(__file__).parents[2]
#: Short names of peers.
NAMES = {"go": "golang", "ssh": "openssh"}
DIRECTIONS = ("idle", "download", "upload")


@attrs.frozen
class Result:
    """What one round found.

    Args:
      mbits: what the bulk transfer got, megabits a second; None if there was none.
      kept: seconds of each request on a kept connection.
      anew: seconds of each request on a connection of its own.
    """

    mbits: float | None
    kept: list[float]
    anew: list[float]

    def figures(self) -> dict[str, float]:
        """Megabits a second, and milliseconds."""
        found = {} if self.mbits is None else {"bulk Mbit/s": self.mbits}
        for kind, values in (("kept", self.kept), ("anew", self.anew)):
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                found[f"{kind} {name}"] = 1000 * quantile(values, share)
        return found


@attrs.frozen(eq=False)
class Site:
    """A tunnel over a cable, with services behind it."""

    wire: Cable
    tunnel: Tunnel
    bulk: Service
    small: Service

    @property
    def server_port(self) -> int:
        """Where the server listens for its client."""
        assert self.tunnel.place is not None
        return self.tunnel.place.server_port

    @contextmanager
    def visitor(
        self, kind: str, service: Service, warm: float, seconds: float
    ) -> Iterator[list[Any]]:
        """Visit a service through the tunnel; behind the block the list has what came of it."""
        address = (self.tunnel.host, str(self.tunnel.port(service)))
        command = python("visitor", kind, *address, str(warm), str(seconds))
        found: list[Any] = []
        with subprocess.Popen(
            [*self.wire.a.prefix, *command.argv],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield found
                output, _ = process.communicate(timeout=warm + seconds + PATIENCE)
                if process.returncode:
                    self.tunnel.check()
                    raise Failed(f"the visitor ({kind}) failed")
                found.append(json.loads(output))
            finally:
                process.kill()

    def measure(self, direction: str, seconds: float) -> Result:
        """Small requests, while a bulk transfer goes in that direction or nothing is going on."""
        if direction == "idle":  # and no request beside another
            kept, anew = (self._requests(kind, seconds / 2) for kind in ("kept", "anew"))
            return Result(None, kept, anew)
        # It begins before the requests and ends behind them.
        with self.visitor(direction, self.bulk, WARM, seconds + 0.5) as bulk, ExitStack() as stack:
            small = [
                stack.enter_context(self.visitor(kind, self.small, WARM, seconds))
                for kind in ("kept", "anew")
            ]
        return Result(bulk[0], small[0][0], small[1][0])

    def _requests(self, kind: str, seconds: float) -> list[float]:
        with self.visitor(kind, self.small, 0.3, seconds) as found:
            pass
        return list(found[0])


@contextmanager
def site(peer: Peer, *, rate: int = RATE, congestion: str | None = None) -> Iterator[Site]:
    """A `Site` that runs; all of it ends with the block.

    Raises:
      Missing: no network namespaces here, or no token bucket.
    """
    with (
        tempfile.TemporaryDirectory(prefix="shaped-") as directory,
        cable() as wire,
        ExitStack() as stack,
    ):
        wire.shape(rate)
        for host in (wire.a, wire.b):
            host.set_congestion_control(congestion or congestion_controls()[0])
        services = [Service(port, b"G\n") for port in SERVICE_PORTS]
        for service in services:
            command = python("service", str(service.port))
            log = Path(directory, f"service-{service.port}.log")
            stack.callback(Program(command, log, wire.b.prefix).close)
        running = tunnel(
            peer,
            services,
            host=wire.a.address,
            server_prefix=wire.a.prefix,
            client_prefix=wire.b.prefix,
        )
        yield Site(wire, stack.enter_context(running), *services)


def one_round(
    peer: Peer, seconds: float, *, rate: int = RATE, congestion: str | None = None
) -> dict[str, Result]:
    """Set the tunnel up anew, and measure each direction."""
    with site(peer, rate=rate, congestion=congestion) as place:
        results = {}
        for direction in DIRECTIONS:
            results[direction] = place.measure(direction, seconds)
            time.sleep(REST)
        return results


def run(
    peer: Peer, rounds: int, *, seconds: float = 5.0, congestion: str | None = None
) -> dict[str, list[float]]:
    """For the comparison: each figure by name ("download kept p50"), one value for each round."""
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for direction, result in one_round(peer, seconds, congestion=congestion).items():
            for name, value in result.figures().items():
                figures.setdefault(f"{direction} {name}", []).append(value)
    return figures


def find_peer(name: str) -> Peer:
    """The peer of that name, or of the module in `tests.benchmarks.peers` of that name."""
    module = importlib.import_module(f"tests.benchmarks.peers.{NAMES.get(name, name)}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Peer) and value is not Peer:
            return value()
    raise LookupError(f"no peer in {module.__name__}")


def python(module: str, *arguments: str) -> Command:
    """A module beside this one, as a command."""
    argv = (sys.executable, "-m", f"tests.benchmarks.{module}", *arguments)
    return Command(argv, {"PYTHONPATH": str(ROOT)})


def stop_on_sigterm() -> None:
    """SIGTERM is as Ctrl-C: what was started is ended first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="ours,go,ssh")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--congestion", default=congestion_controls()[0])
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    stop_on_sigterm()
    if absent := missing("tbf"):
        parser.exit(1, f"cannot measure over a slow link: {absent}\n")
    peers = {name: find_peer(name) for name in options.peers.split(",")}
    table: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number in range(options.rounds):
        for congestion in options.congestion.split(","):
            for name, peer in peers.items():
                if reason := peer.missing():
                    progress(f"{name} left out: {reason}")
                    continue
                progress(f"round {number + 1} of {options.rounds}: {name} under {congestion}")
                rows = table.setdefault(congestion, {}).setdefault(name, {})
                for figure, values in run(
                    peer, 1, seconds=options.seconds, congestion=congestion
                ).items():
                    rows.setdefault(figure, []).extend(values)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    for congestion, columns in table.items():
        print_table(congestion, columns)


def print_table(congestion: str, columns: dict[str, dict[str, list[float]]]) -> None:
    """Medians, and lowest to highest, of milliseconds or Mbit/s."""
    print(f"\n{RATE / 1e6:g} Mbit/s, {congestion}; milliseconds unless it says Mbit/s")
    print(f"{'':24}" + "".join(f"{name:>24}" for name in columns))
    for figure in next(iter(columns.values())):
        cells = (column[figure] for column in columns.values())
        print(f"{figure:24}" + "".join(f"{_cell(values):>24}" for values in cells))


def _cell(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
