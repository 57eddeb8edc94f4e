"""What is measured: the work, and the rows of the table that each gives."""

from __future__ import annotations

import importlib
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import attrs

from tests.benchmarks import digest, losses
from tests.benchmarks.peers.peer import Peer, find_program
from tests.benchmarks.report import Row
from tests.benchmarks.running import Failed, Service, Tunnel, tunnel
from tests.benchmarks.services import SMALL, Services
from tests.benchmarks.tools import iperf3, wrk

GO, SSH = "Go (minimal)", "ssh -R"
MIB = 1 << 20
#: Idle visitors whose memory is measured, and those who come before, so that what a tunnel
#: allocates once is not counted.
IDLE, EARLIER = 2000, 100
#: Seconds for a tunnel to give back what it needed only while they came.
SETTLE = 1.0
CHECKED = 256 * MIB
PROXIES = 100
CUTS = 2


@attrs.frozen
class Case:
    """One measurement: what is to be measured, and how long."""

    peer: Peer | None
    """None is the way without a tunnel."""
    standing: Tunnel | None
    """A tunnel that stands for the whole round, if the work wants one."""
    services: Services
    seconds: int
    quick: bool

    @property
    def tunnel(self) -> Tunnel:
        """The standing tunnel."""
        assert self.standing is not None
        return self.standing

    @property
    def http(self) -> Service:
        """nginx."""
        assert self.services.http is not None
        return self.services.http


@attrs.frozen
class Work:
    """Something to be measured; `measure` gives a value for each row, and more for the record.

    Args:
      name: as after `--work`.
      standing: it goes through a tunnel that stands for the whole round; else `measure` starts one.
      direct: it makes sense without a tunnel.
    """

    name: str
    rows: tuple[Row, ...]
    measure: Callable[[Case], dict[str, float]]
    programs: tuple[str, ...] = ()
    standing: bool = True
    direct: bool = True

    def missing(self) -> str | None:
        """Why it cannot be done here; None if it can."""
        absent = [name for name in self.programs if find_program(name) is None]
        return f"no {', '.join(absent)} on PATH" if absent else None

    def applies(self, peer: Peer | None) -> bool:
        """Whether this peer can be measured so."""
        if peer is None:
            return self.direct
        if self.name == "recovery":
            return peer.reconnects
        return self.name != "ports" or peer.ports >= PROXIES


def _bulk(streams: int, way: str) -> Work:
    name = f"bulk{streams}-{way}"
    count = "1 stream" if streams == 1 else f"{streams} streams"
    options = ["-P", str(streams)] + ["-R"] * (way == "down")
    least = 1.35 if streams == 1 else 1.15

    def measure(case: Case) -> dict[str, float]:
        assert case.services.bulk is not None
        here = case.tunnel
        port = here.port(case.services.bulk)
        iperf3(here.host, port, *options, "-n", "32M", seconds=5)
        before = here.cpu()
        done = iperf3(here.host, port, *options, "-t", str(case.seconds), seconds=case.seconds)
        found = {name: done.size * 8 / done.seconds / 1e9}
        if case.peer is not None:
            used = here.cpu() - before
            gigabytes = done.size / 1e9
            found[f"cpu{streams}-{way}"] = (used.server + used.client) / gigabytes
            found[f"cpu{streams}-{way} server"] = used.server / gigabytes
            found[f"cpu{streams}-{way} client"] = used.client / gigabytes
        return found

    rows = (
        Row(name, f"bulk {way}, {count}", "Gbit/s", True, {GO: least, SSH: 1}),
        Row(f"cpu{streams}-{way}", f"CPU, {count} {way}", "s/GB", False, {GO: 0.8, SSH: 1}),
    )
    return Work(name, rows, measure, ("iperf3",))


def _requests(name: str, connections: int, rows: tuple[Row, ...], *headers: str) -> Work:
    def measure(case: Case) -> dict[str, float]:
        url = f"http://{case.tunnel.host}:{case.tunnel.port(case.http)}{SMALL}"
        wrk(url, 1, connections, *headers)
        found = wrk(url, case.seconds, connections, *headers)
        return {
            name: found.rate,
            f"{name} p50": 1e6 * found.p50,
            f"{name} p99": 1e6 * found.p99,
        }

    return Work(name, rows, measure, ("wrk", "nginx"))


KEEP = _requests(
    "keep64",
    64,
    (
        Row("keep64", "keep-alive, 64 connections", "requests/s", True, {GO: 1.35, SSH: 1}),
        Row("keep64 p50", "keep-alive, 64 connections: p50", "µs", False, {SSH: 1}),
        Row("keep64 p99", "keep-alive, 64 connections: p99", "µs", False, {GO: 1, SSH: 1}),
    ),
)
ONE = _requests(
    "keep1",
    1,
    (Row("keep1 p50", "keep-alive, 1 connection: p50", "µs", False, {GO: 1.15, SSH: 1.4}),),
)
NEW = _requests(
    "new16",
    16,
    (
        Row("new16", "new connections, 16 at once", "requests/s", True,
            {GO: 1.5, SSH: 1}),
        Row("new16 p50", "new connections, 16 at once: p50", "µs", False, {SSH: 1}),
    ),
    "Connection: close",
)  # fmt: skip


def _idle_memory(case: Case) -> dict[str, float]:
    """Bytes of memory for each visitor who has been served once and says nothing more."""
    assert case.peer is not None
    count = IDLE // 4 if case.quick else IDLE
    with tunnel(case.peer, [case.http]) as here, ExitStack() as stack:
        port = here.port(case.http)
        stack.enter_context(visitors(here.host, port, EARLIER))
        time.sleep(SETTLE)
        before = here.memory()
        stack.enter_context(visitors(here.host, port, count))
        time.sleep(SETTLE)
        used = here.memory() - before
    return {"memory server": used.server / count, "memory client": used.client / count}


@contextmanager
def visitors(host: str, port: int, count: int) -> Iterator[None]:
    """So many connections, each of which has been served one request."""
    request = f"GET {SMALL} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    with ExitStack() as stack:
        for first in range(0, count, 50):
            burst = [
                stack.enter_context(socket.create_connection((host, port), 10))
                for _ in range(first, min(first + 50, count))
            ]
            for visitor in burst:
                visitor.sendall(request)
            for visitor in burst:
                answer = b""
                while not answer.endswith(b"s" * 100):
                    more = visitor.recv(4096)
                    if not more:
                        raise Failed("an idle visitor was cut off")
                    answer += more
        yield


MEMORY = Work(
    "memory",
    (
        Row("memory server", "memory per idle connection, server", "bytes", False,
            {GO: 0.1, SSH: 1}),
        Row("memory client", "memory per idle connection, client", "bytes", False,
            {GO: 0.1, SSH: 1}),
    ),
    _idle_memory,
    ("nginx",),
    standing=False,
    direct=False,
)  # fmt: skip


def _integrity(case: Case) -> dict[str, float]:
    """Both ways, with the digest made at both ends; raises `digest.Corrupt`."""
    size = CHECKED // 8 if case.quick else CHECKED
    for way in ("up", "down"):
        digest.check(case.tunnel.host, case.tunnel.port(case.services.digest), way, size)
    return {"integrity": size / MIB}


INTEGRITY = Work("integrity", (), _integrity)


def _recovery(case: Case) -> dict[str, float]:
    assert case.peer is not None
    found = losses.recover(case.peer, case.http, CUTS)
    return {
        "recovery": 1000 * statistics.median(dialled for dialled, _ in found),
        "recovery with delay": 1000 * statistics.median(cut for _, cut in found),
    }


RECOVERY = Work(
    "recovery",
    (Row("recovery", "lost link: next dial to first byte", "ms", False, {SSH: 1}),),
    _recovery,
    ("nginx",),
    standing=False,
    direct=False,
)


def _ports(case: Case) -> dict[str, float]:
    assert case.peer is not None
    return {"ports": 1000 * losses.free(case.peer, case.http, PROXIES)}


PORTS = Work(
    "ports",
    (Row("ports", f"killed client: {PROXIES} ports free", "ms", False, {SSH: 1}),),
    _ports,
    ("nginx",),
    standing=False,
    direct=False,
)


@attrs.frozen
class Shaped(Work):
    """Small requests over a slow link, from the module that makes such links."""

    def missing(self) -> str | None:
        reason: str | None = importlib.import_module("tests.namespaces").missing("tbf")
        return reason


def _shaped(case: Case) -> dict[str, float]:
    assert case.peer is not None
    shaped = importlib.import_module("tests.benchmarks.shaped")
    try:
        found = shaped.run(case.peer, 1, seconds=float(case.seconds))
    except RuntimeError as error:
        raise Failed(str(error)) from error
    return {f"shaped {name}": statistics.median(values) for name, values in found.items()}


SHAPED = Shaped(
    "shaped",
    (
        Row("shaped download kept p50", "50 Mbit/s, requests under a download: p50", "ms",
            False, {GO: 0.25, SSH: 1}),
        Row("shaped download kept p99", "50 Mbit/s, requests under a download: p99", "ms",
            False, {SSH: 1}),
        Row("shaped download bulk Mbit/s", "50 Mbit/s: that download", "Mbit/s", True),
        Row("shaped upload kept p50", "50 Mbit/s, requests under an upload: p50", "ms",
            False, {SSH: 1}),
        Row("shaped upload bulk Mbit/s", "50 Mbit/s: that upload", "Mbit/s", True),
    ),
    _shaped,
    standing=False,
    direct=False,
)  # fmt: skip

ALL: tuple[Work, ...] = (
    *(_bulk(streams, way) for streams in (1, 8) for way in ("up", "down")),
    KEEP, ONE, NEW, INTEGRITY, MEMORY, RECOVERY, PORTS, SHAPED,
)  # fmt: skip
