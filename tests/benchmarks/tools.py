"""The load generators, wrk and iperf3: how they are run, and what they print."""

from __future__ import annotations

import json
import re
import subprocess
import time

import attrs

from tests.benchmarks.peers.peer import find_program
from tests.benchmarks.running import Failed

#: Seconds beyond a measurement's own until it counts as stuck.
PATIENCE = 15
#: The iperf3 server takes one visitor at a time, and needs a moment after each.
ATTEMPTS = 20
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
#: More failed requests than this share, and a figure means nothing.
ERRORS = 0.001


@attrs.frozen
class Requests:
    """What wrk found: requests a second, and seconds of latency."""

    rate: float
    p50: float
    p99: float


@attrs.frozen
class Bulk:
    """What iperf3 found: bytes that arrived, and the seconds it took."""

    size: int
    seconds: float


def wrk(url: str, seconds: int, connections: int, *headers: str) -> Requests:
    """Load a URL; raises `Failed`, also if requests failed."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    for header in headers:
        argv += ["-H", header]
    return parse_wrk(_run([*argv, url], seconds))


def parse_wrk(text: str) -> Requests:
    """Read what wrk prints; raises `Failed`."""
    found = {
        name: re.search(pattern, text)
        for name, pattern in (
            ("rate", r"Requests/sec:\s+([\d.]+)"),
            ("p50", r"50%\s+([\d.]+)([a-z]+)"),
            ("p99", r"99%\s+([\d.]+)([a-z]+)"),
            ("total", r"(\d+) requests in"),
        )
    }
    rate, p50, p99, total = (found[name] for name in ("rate", "p50", "p99", "total"))
    if not (rate and p50 and p99 and total) or not int(total[1]):
        raise Failed(f"wrk had no answers:\n{text}")
    errors = re.findall(r"(?:connect|read|write|timeout|Non-2xx or 3xx responses:) (\d+)", text)
    if sum(map(int, errors)) > ERRORS * int(total[1]):
        raise Failed(f"wrk had errors:\n{text}")
    seconds = [float(match[1]) * UNITS[match[2]] for match in (p50, p99)]
    return Requests(float(rate[1]), *seconds)


def iperf3(host: str, port: int, *options: str, seconds: int) -> Bulk:
    """One transfer; "-R" is from the service to the visitor. Raises `Failed`."""
    argv = ["iperf3", "-c", host, "-p", str(port), "-J", *options]
    for attempt in range(ATTEMPTS):
        try:
            return parse_iperf3(_run(argv, seconds))
        except _Busy:
            time.sleep(0.05 * (attempt + 1))
    raise Failed("the iperf3 server stayed busy")


class _Busy(Failed):
    """The iperf3 server still has its former visitor."""


def parse_iperf3(text: str) -> Bulk:
    """Read what iperf3 prints as JSON; raises `Failed`."""
    try:
        found = json.loads(text)
    except ValueError:
        raise Failed(f"iperf3 printed no JSON:\n{text}") from None
    if error := found.get("error"):
        # A visitor who is refused hears of it or is cut off, as the tunnel has it.
        busy = any(word in error for word in ("busy", "reset by peer", "unable to receive"))
        raise (_Busy if busy else Failed)(f"iperf3: {error}")
    total = found["end"]["sum_received"]
    if not total["bytes"]:
        raise Failed("iperf3: nothing arrived")
    return Bulk(total["bytes"], total["seconds"])


def _run(argv: list[str], seconds: int) -> str:
    program = find_program(argv[0])
    if program is None:
        raise Failed(f"{argv[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(argv)} did not end") from None
    if not done.stdout:
        raise Failed(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
