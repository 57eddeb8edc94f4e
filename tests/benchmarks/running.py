"""Starts tunnels and services, looks at what their processes use, and ends them.

What is started here is known by its process id, with all its children, and ended by it. What it
writes goes to a file in its directory and is shown when something fails.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.benchmarks.peers.peer import Command, Peer, Place, find_program
from tests.benchmarks.processes import free_ports

ROOT = Path(__file__).parents[2]
LOCAL = "127.0.0.1"
#: Seconds that a tunnel may take until it carries.
PATIENCE = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
#: How much of what a program wrote is shown when it failed.
SHOWN = 2000


class Failed(Exception):
    """Something could not be started or measured; the text says what, and what it wrote."""


@attrs.frozen
class Service:
    """A local service: its port on 127.0.0.1, and what makes it answer with at least a byte."""

    port: int
    hello: bytes


@attrs.frozen
class Use:
    """What a tunnel's two sides use: CPU seconds so far, or bytes of memory."""

    server: float
    client: float

    def __sub__(self, other: Use) -> Use:
        return Use(self.server - other.server, self.client - other.client)


class Program:
    """A running command with all its descendants."""

    def __init__(self, command: Command, log: Path, prefix: Sequence[str] = ()) -> None:
        program = find_program(command.argv[0])
        if program is None:
            raise Failed(f"{command.argv[0]} is not on PATH")
        self.argv = (*prefix, program, *command.argv[1:])
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env=os.environ | dict(command.environ),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def pids(self) -> list[int]:
        """Its own id and those of its descendants: sshd, nginx and others fork."""
        children: dict[int, list[int]] = {}
        for pid, fields in _processes():
            children.setdefault(int(fields[1]), []).append(pid)
        found = [self.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found

    def cpu(self) -> float:
        """CPU seconds that it and its descendants have used, those that have ended included."""
        wanted = set(self.pids())
        # utime, stime and, of children that were waited for, cutime and cstime
        ticks = sum(sum(map(int, f[11:15])) for pid, f in _processes() if pid in wanted)
        return ticks / TICKS

    def memory(self) -> int:
        """Bytes that the system would get back if it ended now (unique set sizes)."""
        return sum(map(_unique_memory, self.pids()))

    def check(self) -> None:
        """Raise `Failed` if it has ended."""
        if self._process.poll() is not None:
            name = Path(self.argv[0]).name
            raise Failed(f"{name} ended with status {self._process.returncode}:\n{self.wrote()}")

    def wrote(self) -> str:
        """The end of what it has written."""
        return self.log.read_bytes()[-SHOWN:].decode(errors="replace")

    def kill(self) -> None:
        """`kill -9`, also of its descendants; does not wait."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and its descendants, and wait until they have ended."""
        if self._process.returncode is None:
            with ExitStack() as stack:
                watched = _watch(self.pids(), stack)
                self.kill()
                poll = select.poll()
                for descriptor in watched:
                    poll.register(descriptor, select.POLLIN)
                    poll.poll(1000 * PATIENCE)
                    poll.unregister(descriptor)
        self._process.wait()


def _watch(pids: Iterable[int], stack: ExitStack) -> list[int]:
    """Descriptors that tell when a process ends, which need not be a child."""
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
            stack.callback(os.close, found[-1])
    return found


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Every process: its id, and the fields of its `stat` from the state on."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                yield int(entry), stat.rpartition(")")[2].split()


def _unique_memory(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0
    return 1024 * sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE)))


@attrs.define(eq=False)
class Tunnel:
    """A tunnel that carries, or (`peer` is None) no tunnel at all: the services themselves."""

    peer: Peer | None
    host: str
    """Where visitors go."""
    _published: dict[int, int]
    place: Place | None = None
    servers: list[Program] = attrs.field(factory=list)
    clients: list[Program] = attrs.field(factory=list)

    def port(self, service: Service) -> int:
        """The port on `host` that leads to this service."""
        return self._published[service.port]

    def cpu(self) -> Use:
        """CPU seconds of both sides so far."""
        return Use(sum(p.cpu() for p in self.servers), sum(p.cpu() for p in self.clients))

    def memory(self) -> Use:
        """Bytes of unique memory of both sides."""
        return Use(sum(p.memory() for p in self.servers), sum(p.memory() for p in self.clients))

    def check(self) -> None:
        """Raise `Failed` if a program of it has ended."""
        for program in (*self.servers, *self.clients):
            program.check()


def direct(services: Iterable[Service]) -> Tunnel:
    """The way without a tunnel, for scale."""
    return Tunnel(None, LOCAL, {service.port: service.port for service in services})


@contextmanager
def tunnel(
    peer: Peer,
    services: Sequence[Service],
    *,
    host: str | None = None,
    server_port: int | None = None,
    through: int | None = None,
    server_prefix: Sequence[str] = (),
    client_prefix: Sequence[str] = (),
) -> Iterator[Tunnel]:
    """A tunnel of that kind that publishes the services, from when all of them answer through it.

    `services` may name one more than once: each gets a published port. `host` is the server's
    address (by default a loopback address of its own) and `server_port` its port, `through` the
    port of a forwarder that the client dials, and the prefixes are put before the commands
    (`ip netns exec NAME`). Visitors are sent from where the server is. Raises `Failed`.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, ExitStack() as stack:
        place = lay_out(peer, services, Path(directory), host)
        place = attrs.evolve(place, through=through, server_port=server_port or place.server_port)
        try:
            peer.prepare(place)
        except subprocess.SubprocessError as error:
            raise Failed(f"preparing {peer.name}: {error}") from error
        reach = {local: published for published, local in place.published}
        running = Tunnel(peer, place.server_host, reach, place)

        def start(commands: Sequence[Command], side: str, prefix: Sequence[str]) -> list[Program]:
            programs = []
            for number, command in enumerate(commands):
                programs.append(Program(command, Path(directory, f"{side}-{number}.log"), prefix))
                stack.callback(programs[-1].close)
            return programs

        running.servers = start(peer.servers(place), "server", server_prefix)
        wait_for(running, {place.server_port: b""}, server_prefix)
        running.clients = start(peer.clients(place), "client", client_prefix)
        hello = {service.port: service.hello for service in services}
        wait_for(running, {p: hello[local] for p, local in place.published}, server_prefix)
        yield running


def lay_out(
    peer: Peer,
    services: Sequence[Service],
    directory: Path,
    host: str | None = None,
) -> Place:
    """A place for this tunnel, with free ports and, unless told, an address of its own."""
    server_port, *ports = free_ports(1 + len(services))
    published = tuple(zip(ports, (service.port for service in services), strict=True))
    return Place(directory, host or own_address(), peer.server_port or server_port, published)


_addresses = itertools.count()


def own_address() -> str:
    """A loopback address that no other tunnel of this run has; another run has others."""
    number = os.getpid() % 4096 * 256 + next(_addresses) % 254 + 1
    return f"127.{32 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def wait_for(running: Tunnel, hello: dict[int, bytes], prefix: Sequence[str] = ()) -> None:
    """Wait until every port answers its hello; raises `Failed` with what the programs wrote."""
    ports = (f"{port}={text.hex()}" for port, text in hello.items())
    argv = (*prefix, sys.executable, "-m", "tests.benchmarks.probe", running.host, *ports)
    prober = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while (status := prober.poll()) is None:
            running.check()
            if time.monotonic() > deadline:
                raise Failed(f"some port did not answer in {PATIENCE:.0f} s:\n{_wrote(running)}")
            time.sleep(0.005)
        if status:
            raise Failed(f"probing ended with status {status}")
    finally:
        prober.kill()
        prober.wait()


def _wrote(running: Tunnel) -> str:
    programs = (*running.servers, *running.clients)
    return "\n".join(f"--- {program.log.name}\n{program.wrote()}" for program in programs)
