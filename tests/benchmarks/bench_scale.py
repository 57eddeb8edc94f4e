"""One server with many clients, ports and visitors: what each costs as there are more of them.

    python -m tests.benchmarks.bench_scale [--clients 500] [--connections 10000] [--out DIR]

takes about three minutes on two cores, prints a table and writes it, the points behind it and a
plot to DIR (`scale.md`, `scale.json`, `scale.svg`). The server is the program with the
configuration that `init` writes. Clients are many to a process, so that a small machine can hold
them; so what they cost each is without what a process has once. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.benchmarks.processes import Process, progress, site
from tests.benchmarks.scale.meter import cpu, descriptors, memory
from tests.benchmarks.scale.plot import page
from tests.benchmarks.scale.report import Look, Rush, Scale, charts, table
from tests.benchmarks.scale.worker import Worker, ask_all, shares
from tunnel.ops.descriptors import raise_descriptor_limit

#: Processes for the clients, for the services, and for the visitors.
SPREAD = 4
#: What was allocated in passing is given back, and what was sent has arrived.
SETTLE = 0.5
#: Descriptors that a process has beside those that are counted.
SPARE = 100
#: Visitors at once, of those who hurry.
CONNECTORS = 64


@attrs.frozen
class Options:
    """How much of everything. Seconds."""

    clients: int
    ports: int
    connections: int
    steps: int
    idle: float
    rush: float
    visits: int
    out: Path


class Stage:
    """The processes, and how many of everything there are now."""

    def __init__(self, stack: ExitStack, options: Options) -> None:
        self._options = options
        self._stack = stack
        here = stack.enter_context(site())
        self.server: Process = here.server()
        self._file = str(here.client_file([(0, 9)]))
        self._services = [worker.ask()["port"] for worker in self._workers("service")]
        self._hosts = self._workers("clients", self._file)
        self._crowds = self._workers("visitors")
        self.clients = self.connections = 0
        self.ports: list[int] = []
        self._probe: Worker | None = None

    def _workers(self, module: str, *arguments: str, count: int = SPREAD) -> list[Worker]:
        started = [Worker(module, *arguments) for _ in range(count)]
        for worker in started:
            self._stack.callback(worker.close)
        return started

    def warm_up(self) -> None:
        """A few clients and visitors come and go, so that what comes only once has come."""
        [host] = self._workers("clients", self._file, count=1)
        self.ports = host.ask(clients=20, ports=2, services=self._services)["ports"]
        for crowd in self._crowds:
            crowd.ask(do="stay", count=100, ports=self.ports)
            crowd.ask(do="leave")
        self.hurry(1.0)
        host.close()
        self.ports = []
        self.add_clients(0)  # its processes have imported everything when they answer

    def add_clients(self, clients: int) -> float:
        """So many more; returns how many of them were connected in a second."""
        begin = time.perf_counter()
        orders = [
            {"clients": share, "ports": self._options.ports, "services": self._services}
            for share in shares(clients, SPREAD)
        ]
        for answer in ask_all(self._hosts, orders):
            self.ports += answer["ports"]
        self.clients += clients
        return clients / (time.perf_counter() - begin)

    def add_visitors(self, count: int) -> float:
        """So many more who stay; returns how many of them were served in a second."""
        begin = time.perf_counter()
        # Every crowd begins at another port, so that all ports get equally many.
        orders = [
            {"do": "stay", "count": share, "ports": self._ports_from(number)}
            for number, share in enumerate(shares(count, SPREAD))
        ]
        ask_all(self._crowds, orders)
        self.connections += count
        return count / (time.perf_counter() - begin)

    def _ports_from(self, crowd: int) -> list[int]:
        first = (self.connections + crowd * len(self.ports) // SPREAD) % len(self.ports)
        return self.ports[first:] + self.ports[:first]

    def come(self, count: int) -> list[float]:
        """Milliseconds that each of `count` visitors took, one after the other."""
        each = self._crowds[0].ask(do="come", count=count, ports=self.ports)["each"]
        return [1000 * took for took in each]

    def hurry(self, seconds: float) -> Rush:
        """Many visitors at once, each followed by another as soon as it has gone."""
        began = cpu(self.server.pid)
        answer = self._crowds[0].ask(
            do="hurry", count=CONNECTORS, seconds=seconds, ports=self.ports
        )
        each = [1000 * took for took in answer["each"]]
        spent = cpu(self.server.pid) - began
        return Rush(len(each) / answer["seconds"], each, 1e6 * spent / len(each))

    @contextmanager
    def probing(self, worst: dict[str, list[float]], when: str) -> Iterator[None]:
        """Ask all the while; `worst` gets the longest times, through the tunnel and without it."""
        if self._probe is None:
            targets = (str(self.ports[0]), str(self._services[0]))
            [self._probe] = self._workers("probe", *targets, count=1)
        self._probe.ask(asking=True)
        yield
        worst[when] = [1000 * took for took in self._probe.ask(asking=False)["worst"]]

    def look(self) -> Look:
        """What everything uses while nothing happens, and how a visitor is served then."""
        time.sleep(SETTLE)
        began, begin = self._busy(), time.perf_counter()
        time.sleep(self._options.idle)
        elapsed = time.perf_counter() - begin
        server_cpu, client_cpu = (
            100 * (now - then) / elapsed for now, then in zip(self._busy(), began, strict=True)
        )
        return Look(
            self.clients,
            len(self.ports),
            self.connections,
            descriptors(self.server.pid),
            memory(self.server.pid) / 1024,
            sum(memory(host.pid) for host in self._hosts) / 1024,
            server_cpu,
            client_cpu,
            self.come(self._options.visits) if self.ports else [],
        )

    def _busy(self) -> tuple[float, float]:
        return cpu(self.server.pid), sum(cpu(host.pid) for host in self._hosts)

    def connected(self) -> int:
        """How many clients have a session now."""
        return sum(host.ask(connected=True)["connected"] for host in self._hosts)


def measure(options: Options) -> Scale:
    """Everything, with fewer and with more."""
    worst: dict[str, list[float]] = {}
    with ExitStack() as stack:
        stage = Stage(stack, options)
        stage.warm_up()
        growing = [stage.look()]
        for share in shares(options.clients, options.steps):
            rate = stage.add_clients(share)
            growing.append(stage.look())
            progress(f"{stage.clients} clients, {len(stage.ports)} ports ({rate:.0f} clients/s)")
        before = stage.hurry(options.rush)
        crowding = [growing[-1]]
        for share in shares(options.connections, options.steps):
            with stage.probing(worst, f"visitors up to {stage.connections + share}"):
                rate = stage.add_visitors(share)
            crowding.append(stage.look())
            progress(f"{stage.connections} visitors ({rate:.0f} visitors/s)")
        with stage.probing(worst, "all idle"):
            time.sleep(options.idle)
        with stage.probing(worst, f"{CONNECTORS} connectors"):
            after = stage.hurry(options.rush)
        if stage.connected() != options.clients:
            raise RuntimeError("a client has lost its session")
    return Scale(growing, crowding, before, after, worst)


def check(options: Options) -> None:
    """Say at once what this machine does not allow."""
    # Each client is its link, its epoll and its ports; each visitor is one connection.
    needed = options.clients * (2 + options.ports) + options.connections + SPARE
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        sys.exit(
            f"error: the server needs {needed} descriptors and may have {hard}: raise the hard "
            "limit (ulimit -Hn), or ask for fewer --connections"
        )


def parse() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--ports", type=int, default=4, help="of each client")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=5, help="in which they grow")
    parser.add_argument("--idle", type=float, default=5.0, help="seconds of each idle phase")
    parser.add_argument("--rush", type=float, default=6.0, help="seconds of many at once")
    parser.add_argument("--visits", type=int, default=300, help="to time at each step")
    parser.add_argument("--out", type=Path, default=Path("build/scale"))
    return Options(**vars(parser.parse_args()))


def main() -> None:
    """Measure, print, write."""
    options = parse()
    check(options)
    raise_descriptor_limit()
    scale = measure(options)
    text = table(scale)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scale.md").write_text(text)
    (options.out / "scale.svg").write_text(page(charts(scale)))
    (options.out / "scale.json").write_text(json.dumps(attrs.asdict(scale), indent=1))
    progress(f"written to {options.out}")


if __name__ == "__main__":
    main()
