"""What it costs to be watched: CPU time with statistics over HTTP, an audit and a page that looks.

`python -m tests.benchmarks.bench_watching [PAIRS]` takes about two minutes. Each pair is the same
work through two tunnels, one that is watched and one that is not, in turns: CPU seconds of server
and client together for a GB downloaded, and for a request on one of 64 kept connections. It prints
the median of the ratios and their quartiles.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

from tests.benchmarks.processes import HOST, Process, Site, free_ports, progress, site

PAIRS = 15
SECONDS = 1.2
#: How often the page and Prometheus look, in seconds.
PAGE, PROMETHEUS = 2.0, 15.0
WORK = (("CPU seconds per GB", "download", 1, 1e3), ("CPU µs per request", "requests", 64, 1e6))


class Tunnel:
    """A server and a client, watched or not."""

    def __init__(self, here: Site, service: int, *, watched: bool) -> None:
        self.stats = free_ports(2) if watched else []
        if watched:
            for name, port in zip(("server", "client"), self.stats, strict=True):
                _watch(here.directory / f"{name}.toml", name, port)
        here._client = (here.directory / "client.toml").read_text().partition("\n[[")[0]
        (self.port,) = free_ports(1)
        self.processes = (here.server(), here.client([(self.port, service)]))

    def cpu(self) -> float:
        """Seconds that both processes have used."""
        return sum(map(_cpu, self.processes))

    def work(self, kind: str, connections: int) -> float:
        """CPU seconds for each unit of the work: a MB, or a request."""
        command = ("tests.benchmarks.load", str(self.port), kind, str(SECONDS), str(connections))
        before = self.cpu()
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, check=True, timeout=30
        )
        return (self.cpu() - before) / (float(done.stdout) * SECONDS)


def _cpu(process: Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _watch(path: Path, name: str, port: int) -> None:
    """Switch everything on that looks."""
    audit = path.parent / f"{name}-audit.jsonl"
    lines = f'[{name}]\nstats_port = {port}\naudit_log = "{audit}"\n'
    path.write_text(path.read_text().replace(f"[{name}]\n", lines, 1))


def _look(ports: list[int], over: threading.Event) -> None:
    """What a page that is open, and a Prometheus, ask for."""
    rounds = 0
    while not over.wait(PAGE):
        rounds += 1
        paths = ["/status"] + (["/metrics"] if rounds % round(PROMETHEUS / PAGE) == 0 else [])
        for port in ports:
            for path in paths:
                with urllib.request.urlopen(f"http://{HOST}:{port}{path}") as answer:
                    answer.read()


def main() -> None:
    """Measure in turns and print."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    ratios: dict[str, list[float]] = {what: [] for what, *_ in WORK}
    costs: dict[str, list[float]] = {what: [] for what, *_ in WORK}
    over = threading.Event()
    with site() as plain, site() as seen:
        _, service = plain.service()
        tunnels = [Tunnel(here, service, watched=here is seen) for here in (plain, seen)]
        watcher = threading.Thread(target=_look, args=(tunnels[1].stats, over))
        watcher.start()
        try:
            for number in range(pairs):
                for what, kind, connections, unit in WORK:
                    order = (0, 1) if number % 2 else (1, 0)
                    cost = {which: tunnels[which].work(kind, connections) for which in order}
                    ratios[what].append(cost[1] / cost[0])
                    costs[what].append(cost[0] * unit)
                progress(f"pair {number + 1} of {pairs}")
        finally:
            over.set()
            watcher.join()
    for what, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        cost = statistics.median(costs[what])
        print(f"{what:<22}{cost:>8.2f} unwatched; watched {middle:.3f} × ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
