"""The two carriers compared: the hub and the relay, on the same work, in one run.

`python -m tests.benchmarks.bench_carry` takes about a minute and prints medians and their ratio.
Load, server, client and service are four processes on one machine: the ratio says something, the
figures themselves depend on how many cores there are and on who else uses them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from tests.benchmarks.processes import free_ports, progress, site

ROUNDS = 3
SECONDS = 1.2
#: What is printed, the kind of load, and how many connections it has.
WORK = (
    ("download, MB/s", "download", 1),
    ("upload, MB/s", "upload", 1),
    ("requests/s, 64 connections", "requests", 64),
    ("requests/s, 1 connection", "requests", 1),
)
CARRIERS = ("hub", "relay")


def measure(carrier: str) -> list[float]:
    """Every kind of work once, through a fresh server and a fresh client."""
    (port,) = free_ports(1)
    with site() as here:
        environ = {"TLS_TUNNEL_CARRIER": carrier}
        here.server(environ)
        _, service = here.service()
        here.client([(port, service)], environ)
        return [load(port, kind, connections) for _, kind, connections in WORK]


def load(port: int, kind: str, connections: int) -> float:
    """One number from the load generator."""
    command = ("tests.benchmarks.load", str(port), kind, str(SECONDS), str(connections))
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=True, timeout=30
    )
    return float(done.stdout)


def main() -> None:
    """Measure in turns and print."""
    results: dict[str, list[list[float]]] = {carrier: [] for carrier in CARRIERS}
    for number in range(ROUNDS):
        for carrier in CARRIERS:
            results[carrier].append(measure(carrier))
        progress(f"round {number + 1} of {ROUNDS}")
    print(f"{'median of ' + str(ROUNDS):<30}{'hub':>10}{'relay':>10}{'ratio':>8}")
    for index, (what, _, _) in enumerate(WORK):
        hub, relay = (
            statistics.median(result[index] for result in results[carrier]) for carrier in CARRIERS
        )
        print(f"{what:<30}{hub:>10.0f}{relay:>10.0f}{hub / relay:>8.2f}")


if __name__ == "__main__":
    main()
