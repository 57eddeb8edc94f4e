"""Two hosts with a cable between them, on one machine: network namespaces and a veth pair.

The cable can be made as slow as a real one (a token bucket at each end), pulled and put back, and a
host can lose its address or get another. Needs root and Linux; `missing` says what is not there.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

#: The network device of each host, at its end of the cable.
DEVICE = "wire"
NETWORK = "10.213.0.0/24"
#: Seconds of traffic that wait at a shaped end before packets are dropped.
QUEUE = 0.05
#: Bytes that a shaped end lets through at once.
BURST = 16 * 1024

_NAME = "tls-tunnel-{pid}-{number}{side}"
_NAMES = re.compile(r"^tls-tunnel-(\d+)-\d+[ab]\b", re.MULTILINE)
_CLONE_NEWNET = 0x4000_0000
_numbers = itertools.count()


class Missing(Exception):
    """This machine cannot do what was asked for; the message says why."""


@attrs.define(eq=False)
class Host:
    """One end of the cable: a network namespace.

    Args:
      name: what `ip netns` calls it.
      address: its address on the cable, as it is now.
    """

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What goes before a command so that it runs on this host."""
        return ("ip", "netns", "exec", self.name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes inside the block are of this host, and stay so."""
        with (
            open("/proc/thread-self/ns/net") as home,
            open(f"/run/netns/{self.name}") as here,
        ):
            _enter(here.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def set_congestion_control(self, name: str) -> None:
        """What new TCP connections over the cable use (bbr, cubic, ...), until it is pulled."""
        # By the route: a namespace's own sysctl takes only what the machine allows to everybody.
        self._ip("route", "replace", NETWORK, "dev", DEVICE, "src", self.address, "congctl", name)

    def shape(self, bits: int, *, queue: float = QUEUE, burst: int = BURST) -> None:
        """Send at most `bits` a second, and let `queue` seconds of traffic wait for it."""
        rate, limit = f"{bits}bit", f"{queue * 1000:g}ms"
        self.set_qdisc("tbf", "rate", rate, "burst", str(burst), "latency", limit)

    def delay(self, seconds: float, *, loss: float = 0.0) -> None:
        """Send everything that much later, and lose that share of it. Replaces the shape.

        Raises:
          Missing: the kernel has no netem.
        """
        self.set_qdisc("netem", "delay", f"{seconds * 1000:g}ms", "loss", f"{loss:.4%}")

    def set_qdisc(self, kind: str, *options: str) -> None:
        """How packets wait for the cable: `tc`'s words."""
        try:
            run("tc", "-n", self.name, "qdisc", "replace", "dev", DEVICE, "root", kind, *options)
        except Missing as error:
            if "unknown" in str(error):
                raise Missing(
                    f"this kernel has no {kind} (CONFIG_NET_SCH_{kind.upper()})"
                ) from None
            raise

    def drop_addresses(self) -> None:
        """Lose the address: what is under way from and to it is lost, and nobody is told."""
        self._ip("address", "flush", "dev", DEVICE)

    def take_address(self, address: str) -> None:
        """Have this address, beside those that the host has; `restore_address` for the old one."""
        self._ip("address", "add", f"{address}/24", "dev", DEVICE)
        self.address = address

    def restore_address(self) -> None:
        """Have the address again that `drop_addresses` took."""
        self.take_address(self.address)

    def _ip(self, *words: str) -> None:
        run("ip", "-n", self.name, *words)


@attrs.frozen(eq=False)
class Cable:
    """Two hosts and the cable between them."""

    a: Host
    b: Host

    def shape(self, bits: int, *, queue: float = QUEUE, burst: int = BURST) -> None:
        """Make it carry at most `bits` a second each way, with `queue` seconds of queue."""
        for host in (self.a, self.b):
            host.shape(bits, queue=queue, burst=burst)

    def down(self, end: Host | None = None) -> None:
        """Pull it at one end (b's if not told): no FIN, no RST, no ICMP.

        The host at that end has no route any more, so that its new connections fail at once; those
        of the other are silently lost.
        """
        self._set(end, "down")

    def up(self, end: Host | None = None) -> None:
        """Put it back."""
        self._set(end, "up")

    def _set(self, end: Host | None, state: str) -> None:
        run("ip", "-n", (end or self.b).name, "link", "set", DEVICE, state)


@contextmanager
def cable() -> Iterator[Cable]:
    """Two hosts, 10.213.0.1 and 10.213.0.2, joined by a cable; both are gone behind the block.

    Raises:
      Missing: not root, no `ip` or `tc`, or a kernel or container that does not let us.
    """
    check()
    _remove_stale()
    number = next(_numbers)
    hosts = [
        Host(_NAME.format(pid=os.getpid(), number=number, side=side), f"10.213.0.{index}")
        for index, side in enumerate("ab", start=1)
    ]
    with ExitStack() as stack:
        for host in hosts:
            run("ip", "netns", "add", host.name)
            stack.callback(_remove, host.name)
        a, b = hosts
        ends = ("name", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", b.name)
        run("ip", "-n", a.name, "link", "add", *ends)
        for host in hosts:
            host.restore_address()
            for device in ("lo", DEVICE):
                run("ip", "-n", host.name, "link", "set", device, "up")
        yield Cable(a, b)


def check() -> None:
    """Raise `Missing` if network namespaces cannot be had at all."""
    if os.geteuid() != 0:
        raise Missing("network namespaces need root")
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            raise Missing(f"`{program}` is not installed (Debian: apt install iproute2)")


def missing(*qdiscs: str) -> str | None:
    """Why there can be no `cable` with these queueing disciplines; None if there can."""
    try:
        with cable() as pair:
            for kind in qdiscs:
                _try_qdisc(pair.a, kind)
    except Missing as error:
        return str(error)
    return None


def _try_qdisc(host: Host, kind: str) -> None:
    if kind == "tbf":
        host.shape(1_000_000)
    else:
        host.set_qdisc(kind)


def congestion_controls() -> tuple[str, ...]:
    """What this kernel has; the first is what it uses when not told otherwise."""
    settings = Path("/proc/sys/net/ipv4")
    default = (settings / "tcp_congestion_control").read_text().strip()
    others = (settings / "tcp_available_congestion_control").read_text().split()
    return (default, *(name for name in others if name != default))


def run(*command: str) -> str:
    """Run a program and return what it prints.

    Raises:
      Missing: it failed, with what it said.
    """
    # A group of its own: Ctrl-C is for us, who still need the program to tidy up.
    done = subprocess.run(command, capture_output=True, text=True, process_group=0)
    if done.returncode:
        raise Missing(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout


def _remove_stale() -> None:
    """Remove what a killed process has left."""
    for match in _NAMES.finditer(run("ip", "netns", "list")):
        if not Path("/proc", match[1]).exists():
            _remove(match[0])


def _remove(name: str) -> None:
    """End every process of a namespace, and the namespace."""
    for pid in run("ip", "netns", "pids", name).split():
        if int(pid) != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "delete", name)


def _enter(namespace: int) -> None:
    # os.setns is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")
