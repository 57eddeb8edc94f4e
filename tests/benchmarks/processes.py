"""Servers and clients as users start them, for benchmarks: real processes over loopback."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tunnel import compose
from tunnel.client.state import Client
from tunnel.config import load_client

HOST = "127.0.0.1"
#: How long anything may take on a slow machine.
PATIENCE = 20.0


class Process:
    """A running program, and what it writes to its standard error."""

    def __init__(self, *command: str, env: dict[str, str] | None = None) -> None:
        # A file, not a pipe: a pipe that nobody empties would stop the program.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | (env or {}),
        )
        self._read = 0
        self.pid = self._process.pid
        self.text = ""

    def said(self, event: str) -> bool:
        """True if it has written that; what went before it is forgotten then. Does not wait."""
        data = os.pread(self._errors.fileno(), 1 << 24, self._read)
        self._read += len(data)
        self.text += data.decode()
        _, found, after = self.text.partition(event)
        if found:
            self.text = after
        return bool(found)

    def wait_for(self, event: str) -> None:
        """Wait until it writes that."""
        deadline = time.monotonic() + PATIENCE
        while not self.said(event):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{event!r} did not come: {self.text}")
            time.sleep(0.002)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()

    def close(self) -> None:
        """End it and wait for its end."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._errors.close()

    def memory(self) -> int:
        """Bytes that the system would get back if it ended now (its unique set size)."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return 1024 * sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE)))


class Site:
    """A directory with a matching pair of configurations, and what was started from it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self._stack = stack
        self.server_port = free_ports(1)[0]
        address = f"{HOST}:{self.server_port}"
        subprocess.run(
            [sys.executable, "-m", "tunnel", "init", str(directory), "--server", address],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.reread()

    def reread(self) -> None:
        """Begin with what client.toml says now, when the next one is written."""
        self._client = (self.directory / "client.toml").read_text().partition("\n[[")[0]

    def run(self, *command: str, env: dict[str, str] | None = None) -> Process:
        """Start a Python program; it is killed when the benchmark ends, if not before."""
        environ = {"XDG_STATE_HOME": str(self.directory / "state"), **(env or {})}
        process = Process(*command, env=environ)
        self._stack.callback(process.close)
        return process

    def server(self, env: dict[str, str] | None = None) -> Process:
        """Start the server and wait until it listens."""
        config = str(self.directory / "server.toml")
        process = self.run("-m", "tunnel", "server", "-c", config, env=env)
        process.wait_for("Server listening")
        return process

    def client_file(self, proxies: list[tuple[int, int]]) -> Path:
        """A client's configuration: pairs of a published and a local port."""
        path = self.directory / "client.toml"
        path.write_text(self._client + "".join(map(_proxy, proxies)))
        return path

    def client(self, proxies: list[tuple[int, int]], env: dict[str, str] | None = None) -> Process:
        """Start a client and wait until it is connected."""
        config = str(self.client_file(proxies))
        process = self.run("-m", "tunnel", "client", "-c", config, env=env)
        process.wait_for(" Connected")
        return process

    def service(self) -> tuple[Process, int]:
        """Start the local service (`tests.benchmarks.service`); returns it and its port."""
        port = free_ports(1)[0]
        process = self.run("-m", "tests.benchmarks.service", str(port))
        process.wait_for("ready")
        return process, port


def _proxy(ports: tuple[int, int]) -> str:
    published, local = ports
    return (
        f'\n[[proxies]]\nname = "port-{published}"\npublish_addr = "{HOST}"\n'
        f"publish_port = {published}\nlocal_port = {local}\n"
    )


@contextmanager
def site() -> Iterator[Site]:
    """A `Site` in a temporary directory; everything ends with the block."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        yield Site(Path(directory), stack)


def prepared_client(path: Path) -> Client:
    """What a file says, ready to be run in this process."""
    config = load_client(path.read_text(), source=str(path), environ={}).value
    return compose.make_client(attrs.evolve(config, client_id=secrets.token_hex(16)), path)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, from below those that the system hands out by itself."""
    found: list[int] = []
    port = 20_000 + os.getpid() % 10_000
    while len(found) < count:
        port = port + 1 if port < 32_000 else 16_000
        if port not in _given and can_bind(port):
            found.append(port)
    _given.update(found)
    return found


_given: set[int] = set()


def can_bind(port: int) -> bool:
    """True if a new listener can be bound there: SO_REUSEADDR, no SO_REUSEPORT."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
            sock.listen()
        except OSError:
            return False
    return True


def quantile(values: list[float], share: float) -> float:
    """The value that this share of the others does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def progress(text: str) -> None:
    """A line for whoever waits."""
    print(f"... {text}", file=sys.stderr, flush=True)
