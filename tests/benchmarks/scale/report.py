"""What was seen at a small and at a large scale, as a table and as charts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import attrs

from tests.benchmarks.scale.meter import quantile, slopes
from tests.benchmarks.scale.plot import Chart


@attrs.frozen
class Look:
    """What everything uses while nothing happens, at one scale.

    Args:
      clients, ports, connections: how many there are.
      descriptors: the server's.
      server, client: KiB; the client's is that of all clients together.
      server_cpu, client_cpu: percent of a core.
      visits: milliseconds from connecting to the answer, of visitors one after the other.
    """

    clients: int
    ports: int
    connections: int
    descriptors: int
    server: float
    client: float
    server_cpu: float
    client_cpu: float
    visits: list[float]


@attrs.frozen
class Rush:
    """Many visitors at once, each followed by another.

    Args:
      rate: of them in a second.
      each: milliseconds that each took, from connecting to the answer.
      cpu: microseconds of the server's CPU for each.
    """

    rate: float
    each: list[float]
    cpu: float


@attrs.frozen
class Scale:
    """The whole run.

    Args:
      growing: looks as clients come.
      crowding: looks as visitors come who stay; it begins with the last of `growing`.
      before: a rush with all clients and no idle connection.
      after: the same with all of them.
      worst: the longest answers to a probe, in milliseconds: through the tunnel, and without it.
    """

    growing: list[Look]
    crowding: list[Look]
    before: Rush
    after: Rush
    worst: dict[str, list[float]]


def table(scale: Scale) -> str:
    """Markdown."""
    return "\n".join([*_costs(scale), "", *_looks(scale), "", *_service(scale), ""])


def _costs(scale: Scale) -> Iterator[str]:
    yield "| idle | each | first half | last half | ratio |"
    yield "|---|---|---|---|---|"
    for what, looks, count in (
        ("client", scale.growing, _clients),
        ("connection", scale.crowding, _connections),
    ):
        numbers = [count(look) for look in looks]
        for side in ("server", "client"):
            kib = slopes(numbers, [getattr(look, side) for look in looks])
            yield (
                f"| memory of a {what}, {side} side, KiB | {kib.all:.2f} | {kib.first:.2f} "
                f"| {kib.last:.2f} | {kib.ratio:.2f} |"
            )
        for side in ("server", "client"):
            # Percent of a core, each: microseconds a second are easier to read.
            busy = slopes(numbers, [1e4 * getattr(look, f"{side}_cpu") for look in looks])
            yield (
                f"| CPU of a {what}, {side} side, µs/s | {busy.all:.2f} | {busy.first:.2f} "
                f"| {busy.last:.2f} | |"
            )


def _looks(scale: Scale) -> Iterator[str]:
    yield (
        "| clients | ports | connections | server's descriptors | server, MiB | clients, MiB "
        "| server's CPU, % | clients' CPU, % | connect to answer, p50 / p99, ms |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for look in scale.growing + scale.crowding[1:]:
        served = "" if not look.visits else _quantiles(look.visits)
        yield (
            f"| {look.clients} | {look.ports} | {look.connections} | {look.descriptors} "
            f"| {look.server / 1024:.1f} | {look.client / 1024:.1f} "
            f"| {look.server_cpu:.2f} | {look.client_cpu:.2f} | {served} |"
        )


def _service(scale: Scale) -> Iterator[str]:
    last = scale.crowding[-1]
    yield f"| with {last.clients} clients and this many idle connections | 0 | {last.connections} |"
    yield "|---|---|---|"
    rushes = (scale.before, scale.after)
    for what, shown in (
        ("new connections a second, 64 at once", [f"{rush.rate:.0f}" for rush in rushes]),
        ("server's CPU for each, µs", [f"{rush.cpu:.0f}" for rush in rushes]),
        ("connect to answer, p50 / p99, ms", [_quantiles(rush.each) for rush in rushes]),
    ):
        yield f"| {what} | {' | '.join(shown)} |"
    yield ""
    yield "| slowest answer to a byte every 10 ms, ms | through the tunnel | without it |"
    yield "|---|---|---|"
    for when, (through, beside) in scale.worst.items():
        yield f"| {when} | {through:.1f} | {beside:.1f} |"
    yield ""
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg()[:2])
    yield f"{os.cpu_count()} cores; processes that wanted one, last minute and last five: {busy}."


def _quantiles(values: Sequence[float]) -> str:
    return f"{quantile(values, 0.5):.2f} / {quantile(values, 0.99):.2f}"


def charts(scale: Scale) -> list[Chart]:
    """Memory, CPU and time, over clients and over connections."""
    found = []
    for across, looks, count in (
        ("idle clients", scale.growing, _clients),
        ("idle visitor connections", scale.crowding, _connections),
    ):

        def over(value: Callable[[Look], float], looks: list[Look] = looks, count=count):
            return [(count(look), value(look)) for look in looks]

        found += [
            Chart(
                "memory, MiB",
                across,
                {
                    "server": over(lambda look: look.server / 1024),
                    "clients": over(lambda look: look.client / 1024),
                },
            ),
            Chart(
                "CPU while idle, % of a core",
                across,
                {
                    "server": over(lambda look: look.server_cpu),
                    "clients": over(lambda look: look.client_cpu),
                },
            ),
        ]
    return found


def _clients(look: Look) -> float:
    return look.clients


def _connections(look: Look) -> float:
    return look.connections
