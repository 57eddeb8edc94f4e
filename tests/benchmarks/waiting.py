"""Where do the milliseconds wait? `python -m tests.benchmarks.waiting --peer ours`

Looks at the link's TCP connection while `tests.benchmarks.shaped` measures: what its sender holds
unsent, what is in flight, what stands in the cable's queue, each in milliseconds of the cable's
rate. What a request takes beyond them it has waited for in the tunnel itself.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from tests.benchmarks.processes import quantile
from tests.benchmarks.shaped import RATE, WARM, find_peer, site, stop_on_sigterm
from tests.namespaces import DEVICE, Host, congestion_controls, missing, run

#: Seconds between two looks.
PERIOD = 0.05
_FIELDS = {
    "rtt": re.compile(r"\brtt:([\d.]+)/"),
    "minrtt": re.compile(r"\bminrtt:([\d.]+)"),
    "cwnd": re.compile(r"\bcwnd:(\d+)"),
    "unacked": re.compile(r"\bunacked:(\d+)"),
    "notsent": re.compile(r"\bnotsent:(\d+)"),
    "mss": re.compile(r"\bmss:(\d+)"),
    "retrans": re.compile(r"\bretrans:\d+/(\d+)"),
}
_BACKLOG = re.compile(r"\bbacklog (\d+)([KM]?)b")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


@attrs.frozen
class Look:
    """One look at a sender.

    Args:
      rtt: seconds, as TCP smooths it.
      minrtt: the least it has seen, in seconds.
      cwnd: what TCP would have in flight, in bytes.
      unacked: what is in flight, in bytes.
      notsent: what the kernel holds and has not sent once, in bytes.
      queued: what stands in the queue before the cable, in bytes.
      retrans: segments sent again, so far.
    """

    rtt: float
    minrtt: float
    cwnd: int
    unacked: int
    notsent: int
    queued: int
    retrans: int


def parse_ss(text: str, queued: int) -> Look | None:
    """What `ss -tin` says of a connection; None if there is none."""
    found = {name: float(m[1]) for name, rule in _FIELDS.items() if (m := rule.search(text))}
    if not found.get("mss"):
        return None
    mss = int(found["mss"])
    return Look(
        rtt=found.get("rtt", 0) / 1000,
        minrtt=found.get("minrtt", 0) / 1000,
        cwnd=int(found.get("cwnd", 0)) * mss,
        unacked=int(found.get("unacked", 0)) * mss,
        notsent=int(found.get("notsent", 0)),
        queued=queued,
        retrans=int(found.get("retrans", 0)),
    )


def parse_backlog(text: str) -> int:
    """The bytes that wait in the queue, out of `tc -s qdisc`."""
    return sum(int(number) * _UNITS[unit] for number, unit in _BACKLOG.findall(text)[:1])


def look(host: Host, port: int) -> Look | None:
    """Look at the host's end of the link: the busiest connection with that port on the cable."""
    where = f"( sport = :{port} or dport = :{port} )"
    command = (*host.prefix, "ss", "-tinOH", "state", "established", where)
    lines = run(*command).splitlines()
    queued = parse_backlog(run("tc", "-n", host.name, "-s", "qdisc", "show", "dev", DEVICE))
    looks = [found for line in lines if (found := parse_ss(line, queued))]
    return max(looks, key=lambda seen: seen.unacked + seen.notsent, default=None)


@contextmanager
def looking(host: Host, port: int, warm: float) -> Iterator[list[Look]]:
    """Look again and again during the block, from `warm` seconds on."""
    looks: list[Look] = []
    done = threading.Event()

    def keep_looking() -> None:
        done.wait(warm)
        while not done.wait(PERIOD):
            if seen := look(host, port):
                looks.append(seen)

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        yield looks
    finally:
        done.set()
        thread.join()


def report(looks: list[Look], rate: int = RATE) -> Iterator[str]:
    """Lines of a table."""
    if not looks:
        yield "nobody sent anything"
        return
    yield f"{'':12}{'p10':>10}{'p50':>10}{'p90':>10}   ({len(looks)} looks)"

    def row(name: str, values: list[float], digits: int = 2) -> str:
        cells = (f"{quantile(values, share):>10.{digits}f}" for share in (0.1, 0.5, 0.9))
        return f"{name:12}" + "".join(cells)

    for name in ("rtt", "minrtt"):
        yield row(f"{name} ms", [1000 * getattr(seen, name) for seen in looks])
    for name in ("cwnd", "unacked", "queued", "notsent"):
        held = [getattr(seen, name) for seen in looks]
        yield row(f"{name} ms", [size * 8000 / rate for size in held])
        yield row("  KiB", [size / 1024 for size in held], 1)
    yield f"sent again   {looks[-1].retrans - looks[0].retrans} segments"


def main() -> None:
    """Print a table for each direction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="ours")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--congestion", default=congestion_controls()[0])
    options = parser.parse_args()
    stop_on_sigterm()
    if absent := missing("tbf"):
        parser.exit(1, f"cannot measure over a slow link: {absent}\n")
    with site(find_peer(options.peer), congestion=options.congestion) as place:
        for direction, sender in (("download", place.wire.b), ("upload", place.wire.a)):
            with looking(sender, place.server_port, WARM) as looks:
                result = place.measure(direction, options.seconds)
            figures = (f"{name} {value:.2f}" for name, value in result.figures().items())
            print(f"\n{direction} under {options.congestion}: {', '.join(figures)}")
            print("\n".join(report(looks)))
            time.sleep(1.0)


if __name__ == "__main__":
    main()
