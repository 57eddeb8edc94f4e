"""A guest of another client compared with a visitor of the same service's public port.

`python -m tests.benchmarks.bench_visits [PAIRS]` takes about two minutes. Each pair is the same
work both ways, in turns, through the same server and the same owner; on a visit another client and
its link are in between. It prints medians, the median of the ratios and their quartiles. Load,
service, server and both clients are processes of one machine, so a visit has one more to share its
cores.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.bench_carry import WORK, load
from tests.benchmarks.processes import Process, Site, free_ports, progress, site

PAIRS = 10
SECRET = "a secret that takes a moment once"


@contextmanager
def tunnel() -> Iterator[tuple[int, int]]:
    """A service's public port, and the port of a client that visits it."""
    public, guests = free_ports(2)
    with site() as here:
        here.server()
        _, service = here.service()
        name = f'name = "service"\npublish_port = {public}\nvisitor_secret = "{SECRET}"\n'
        # On every address: that is what can be visited as well.
        client(here, "owner", f"[[proxies]]\n{name}local_port = {service}\n")
        guest = client(here, "visitor", f"[[visitors]]\n{name}bind_port = {guests}\n")
        guest.wait_for("Target present")
        yield public, guests


def client(here: Site, name: str, table: str) -> Process:
    """One of the two clients, connected."""
    path = here.directory / f"{name}.toml"
    path.touch(0o600)
    path.write_text(f"{here._client}\n{table}")
    process = here.run("-m", "tunnel", "client", "-c", str(path))
    process.wait_for(" Connected")
    return process


def main() -> None:
    """Measure in turns and print."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    figures: dict[str, list[tuple[float, float]]] = {what: [] for what, *_ in WORK}
    with tunnel() as ports:
        for number in range(pairs):
            for what, kind, connections in WORK:
                order = ports if number % 2 else ports[::-1]
                found = {port: load(port, kind, connections) for port in order}
                figures[what].append((found[ports[0]], found[ports[1]]))
            progress(f"pair {number + 1} of {pairs}")
    print(f"{'median of ' + str(pairs):<30}{'direct':>10}{'visit':>10}{'ratio':>8}  quartiles")
    for what, both in figures.items():
        direct, visit = (statistics.median(values) for values in zip(*both, strict=True))
        low, middle, high = statistics.quantiles([guest / own for own, guest in both], n=4)
        print(f"{what:<30}{direct:>10.0f}{visit:>10.0f}{middle:>8.2f}  {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
