"""What it costs to be watched: CPU time with statistics over HTTP, an audit, and who looks at them.

`python -m tests.benchmarks.bench_watching [SITTINGS]` takes about five minutes. The same work goes
through four tunnels in turns, in an order that is drawn anew each time: one that nobody watches,
one more of that kind, which shows what the measurement cannot tell apart, one with statistics, and
one that keeps an audit as well. A round is short, and a fixed amount of work: whatever else the
machine does meanwhile, it does to all four. What is compared is the CPU time of server and client
together, for a GB downloaded, a request on one of 64 kept connections, and a request on a
connection of its own (16 at a time). It prints the median of the ratios to the first tunnel, within
which bounds it is (95 %), and the quartiles of the ratios.

Whoever looks is measured apart, since that is per second and not per request: the CPU time of one
`/status` and one `/metrics`. What an open page, `top` and Prometheus take together is then added,
at the rate at which the first tunnel did its work.

In each sitting the processes are new. Where the system puts a program in its memory is worth some
percent for as long as it runs.
"""

from __future__ import annotations

import random
import select
import socket
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from tests.benchmarks.load import REQUEST, visit
from tests.benchmarks.processes import HOST, Process, Site, free_ports, progress, site

SITTINGS = 12
PAIRS = 10
KEPT, ANEW = 64, 16
LOOKS = 20
#: How often somebody looks, in seconds: an open page and `top`, each every other second.
STATUS, PROMETHEUS = 1.0, 15.0
PLAIN = "nobody watches"
WATCH = {
    PLAIN: (),
    "the same again": (),
    "statistics": ("stats",),
    "statistics, audit": ("stats", "audit"),
}


class Tunnel:
    """A server and a client, and visitors who stay."""

    def __init__(self, here: Site, service: int, watch: tuple[str, ...]) -> None:
        self.stats = free_ports(2) if "stats" in watch else []
        for number, name in enumerate(("server", "client")):
            lines = f"[{name}]\n"
            if self.stats:
                lines += f"stats_port = {self.stats[number]}\n"
            if "audit" in watch:
                lines += f'audit_log = "{here.directory}/{name}-audit.jsonl"\n'
            path = here.directory / f"{name}.toml"
            path.write_text(path.read_text().replace(f"[{name}]\n", lines, 1))
        here.reread()
        (self.port,) = free_ports(1)
        self.processes = (here.server(), here.client([(self.port, service)]))
        self.kept = [visit(self.port) for _ in range(KEPT)]

    def cpu(self) -> float:
        """Seconds that both processes have used."""
        return sum(map(_cpu, self.processes))

    def cost(self, work: Callable[[Tunnel, int], None], amount: int) -> float:
        """CPU seconds for one of that many."""
        before = self.cpu()
        work(self, amount)
        time.sleep(0.005)  # what there is still to do behind the last answer
        return (self.cpu() - before) / amount

    def close(self) -> None:
        """The visitors go."""
        for sock in self.kept:
            sock.close()


def _cpu(process: Process) -> float:
    """Seconds of all its threads, to the nanosecond (see clock_getcpuclockid(3))."""
    return time.clock_gettime((~process.pid << 3) | 2)


# --- Work ---------------------------------------------------------------------------------------


def download(tunnel: Tunnel, megabytes: int) -> None:
    """So many over one connection."""
    left, buffer = megabytes * 10**6, bytearray(1 << 20)
    with visit(tunnel.port) as sock:
        sock.sendall(b"D")
        while left > 0:
            left -= sock.recv_into(buffer)


def requests(tunnel: Tunnel, count: int) -> None:
    """So many requests on the connections that are there, one at a time on each."""
    socks = {sock.fileno(): sock for sock in tunnel.kept}
    left = dict.fromkeys(socks, len(REQUEST))
    with select.epoll() as poll:
        for descriptor, sock in socks.items():
            poll.register(descriptor, select.EPOLLIN)
            sock.send(REQUEST)
        while count > 0:
            for descriptor, _ in poll.poll(1):
                left[descriptor] -= len(socks[descriptor].recv(left[descriptor]))
                if not left[descriptor]:
                    count -= 1
                    left[descriptor] = len(REQUEST)
                    if count >= len(socks):  # the rest is on its way
                        socks[descriptor].send(REQUEST)


def connections(tunnel: Tunnel, count: int) -> None:
    """So many requests, each on a connection of its own."""
    socks: dict[int, socket.socket] = {}
    left: dict[int, int] = {}
    with select.epoll() as poll:
        while count or socks:
            while count and len(socks) < ANEW:
                count -= 1
                sock = socket.create_connection((HOST, tunnel.port), 10)
                sock.send(REQUEST)
                socks[sock.fileno()], left[sock.fileno()] = sock, 1 + len(REQUEST)
                poll.register(sock.fileno(), select.EPOLLIN)
            for descriptor, _ in poll.poll(1):
                data = socks[descriptor].recv(left[descriptor])
                assert data, "the connection ended"
                left[descriptor] -= len(data)
                if not left[descriptor]:
                    socks.pop(descriptor).close()


WORK = (
    ("CPU seconds per GB", download, 50, 1e3),
    ("CPU µs per request", requests, 2000, 1e6),
    ("CPU µs per connection", connections, 300, 1e6),
)


def look(path: str, tunnel: Tunnel, times: int) -> None:
    """Ask both ends."""
    for _ in range(times):
        for port in tunnel.stats:
            with urllib.request.urlopen(f"http://{HOST}:{port}{path}") as answer:
                answer.read()


# --- Measuring ----------------------------------------------------------------------------------


@contextmanager
def tunnels() -> Iterator[dict[str, Tunnel]]:
    """All of them, fresh."""
    with ExitStack() as stack:
        sites = {name: stack.enter_context(site()) for name in WATCH}
        _, service = sites[PLAIN].service()
        found = {name: Tunnel(sites[name], service, watch) for name, watch in WATCH.items()}
        for tunnel in found.values():
            stack.callback(tunnel.close)
        yield found


class Figures:
    """What was measured."""

    def __init__(self) -> None:
        self.costs: dict[str, list[float]] = {what: [] for what, *_ in WORK}
        #: CPU seconds in a second, of the tunnel that nobody watches.
        self.load: dict[str, list[float]] = {what: [] for what, *_ in WORK}
        self.ratios: dict[str, dict[str, list[float]]] = {
            what: {name: [] for name in WATCH if name != PLAIN} for what, *_ in WORK
        }
        self.looks: dict[str, list[float]] = {"/status": [], "/metrics": []}

    def sit(self, found: dict[str, Tunnel]) -> None:
        """One sitting; its first pair is not like the others."""
        for number in range(1 + PAIRS):
            for what, work, amount, unit in WORK:
                costs, took = {}, {}
                for name in random.sample([*found], len(found)):
                    begin = time.monotonic()
                    costs[name] = found[name].cost(work, amount)
                    took[name] = time.monotonic() - begin
                if number:
                    self.costs[what].append(costs[PLAIN] * unit)
                    self.load[what].append(costs[PLAIN] * amount / took[PLAIN])
                    for name, ratios in self.ratios[what].items():
                        ratios.append(costs[name] / costs[PLAIN])
        for path, costs_of in self.looks.items():
            costs_of.append(found["statistics"].cost(partial(look, path), LOOKS))

    def show(self) -> None:
        """Print."""
        status, metrics = (statistics.median(costs) for costs in self.looks.values())
        print(f"both ends, /status: {status * 1e3:.1f} ms, /metrics: {metrics * 1e3:.1f} ms of CPU")
        looking = status / STATUS + metrics / PROMETHEUS
        for what, costs in self.costs.items():
            print(f"{what}: {statistics.median(costs):.2f}, {len(costs)} pairs")
            looks = looking / statistics.median(self.load[what])
            for name, ratios in self.ratios[what].items():
                first, middle, third = statistics.quantiles(ratios, n=4)
                low, high = _bounds(ratios)
                end = f"; with who looks {middle + looks:.3f}" if WATCH[name] else ""
                print(
                    f"    {name:<20}{middle:.3f} × (from {low:.3f} to {high:.3f}; "
                    f"quartiles {first:.3f}, {third:.3f}){end}"
                )


def _bounds(values: list[float]) -> tuple[float, float]:
    """The two values between which the median of many more is, in 95 of 100 cases."""
    ordered, half = sorted(values), round(0.98 * len(values) ** 0.5)
    middle = len(ordered) // 2
    return ordered[max(0, middle - half)], ordered[min(len(ordered) - 1, middle + half)]


def main() -> None:
    """Measure in turns and print."""
    sittings = int(sys.argv[1]) if len(sys.argv) > 1 else SITTINGS
    figures = Figures()
    for number in range(sittings):
        with tunnels() as found:
            figures.sit(found)
        progress(f"sitting {number + 1} of {sittings}")
    figures.show()


if __name__ == "__main__":
    main()
