"""Real processes: servers and clients as users start them, and a network that can be cut."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from tests.rig import echo, is_free, own_host, read_all, visit
from tunnel.certificates import spki_pin
from tunnel.model import Address
from tunnel.protocol.keys import generate_key
from tunnel.store import leaf_der

#: How long anything may take on a slow machine; nothing waits for it when all is well.
PATIENCE = 30
#: What starts this tree's `tls-tunnel`.
OWN = (sys.executable, "-m", "tunnel")


def command_of(role: str) -> tuple[str, ...]:
    """What starts the "server" or the "client": SERVER_COMMAND and CLIENT_COMMAND, or this tree.

    They are read as a shell reads them. What they start is given the arguments of `tls-tunnel`.
    """
    return tuple(shlex.split(os.environ.get(f"{role.upper()}_COMMAND", ""))) or OWN


class Process:
    """A running `tls-tunnel`, and the lines that it has logged."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[dict] = []
        #: It has ended, and all that it logged is in `lines`.
        self.over = trio.Event()
        self._news = trio.Event()
        self._read = 0

    async def read_log(self) -> None:
        """Collect what it logs, until it ends."""
        buffer = b""
        async for chunk in self.process.stderr:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                self.lines.append(parse(line))
            self._tell()
        await self.process.wait()
        self.over.set()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def wait_for(self, event: str, **fields) -> dict:
        """The next line of that event (not one that an earlier call has passed by)."""
        with trio.fail_after(PATIENCE):
            while True:
                while self._read < len(self.lines):
                    line = self.lines[self._read]
                    self._read += 1
                    if line["event"] == event and fields.items() <= line.items():
                        return line
                if self.process.returncode is not None:
                    raise AssertionError(f"it ended without saying {event!r}: {self.lines}")
                await self._news.wait()

    async def news(self) -> None:
        """Wait for the next line."""
        await self._news.wait()

    async def wait_said(self, *events: str) -> None:
        """Wait until it has said all of these, in any order, no matter when."""
        with trio.fail_after(PATIENCE):
            while not set(events) <= set(self.events()):
                await self.news()

    def events(self) -> list[str]:
        """Every event so far."""
        return [line["event"] for line in self.lines]

    async def kill(self) -> None:
        """End it as nobody wants to be ended: `kill -9`."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE):
            return await self.process.wait()

    @property
    def memory(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def parse(line: bytes) -> dict:
    try:
        return json.loads(line)
    except ValueError:
        return {"event": line.decode(errors="replace")}


class Lab:
    """A directory, a key, a certificate, an address; and the processes that were started."""

    def __init__(self, nursery: trio.Nursery, directory: Path, certificate: Path, carrier: str):
        self.nursery = nursery
        self.directory = directory
        self.certificate = certificate
        self.carrier = carrier
        self.host = own_host()
        self.key = generate_key(secrets.token_bytes(32))
        self.pin = f"{spki_pin(leaf_der(certificate / 'cert.pem'))}"
        self.server_port = 0
        self.processes: list[Process] = []
        #: What goes before a command ("server", "client"), to run it on a host of its own.
        self.prefixes: dict[str, tuple[str, ...]] = {}
        #: What starts the server and the clients.
        self.commands = {role: command_of(role) for role in ("server", "client")}

    async def run(self, *arguments: str, environ: dict | None = None, **options) -> Process:
        """Start `tls-tunnel` with these arguments; the options are `trio.Process`'s."""
        prefix = self.prefixes.get(arguments[0], ())
        command = self.commands.get(arguments[0], OWN)
        process = await trio.lowlevel.open_process(
            [*prefix, *command, "--log-format", "json", *arguments],
            stderr=subprocess.PIPE,
            env=os.environ | {"TLS_TUNNEL_CARRIER": self.carrier} | (environ or {}),
            **options,
        )
        running = Process(process)
        self.processes.append(running)
        self.nursery.start_soon(running.read_log)
        return running

    async def start_server(self, *, clients: tuple[dict, ...] = (), **keys) -> Process:
        """Start a server; the second time on the port of the first."""
        settings = {
            "bind_addr": self.host,
            "bind_port": self.server_port,
            "cert_path": str(self.certificate / "cert.pem"),
            "key_path": str(self.certificate / "key.pem"),
            "auth_key": self.key,
            "state_dir": str(self.directory),
        } | keys
        path = self.directory / "server.toml"
        tables = ["[server]\n", *("[[server.clients]]\n" for _ in clients)]
        texts = map(toml, (settings, *clients))
        write_secret(path, "\n".join(map("".join, zip(tables, texts, strict=True))))
        server = await self.run("server", "-c", str(path))
        line = await server.wait_for("Server listening")
        self.server_port = int(line["address"].rpartition(":")[2])
        return server

    def write_client(
        self, *proxies: dict, name: str = "client", visitors: tuple[dict, ...] = (), **keys
    ) -> Path:
        """Write a client's configuration."""
        settings = {
            "server_addr": self.host,
            "server_port": self.server_port,
            "auth_key": self.key,
            "pin": self.pin,
            "name": name,
            "state_dir": str(self.directory),
            "reconnect_delay": 0.05,
            "local_connect_retries": 0,
        } | keys
        tables = ["[client]\n" + toml(settings)]
        for number, proxy in enumerate(proxies):
            table = {"name": f"proxy{number}", "publish_addr": self.host} | proxy
            tables.append("[[proxies]]\n" + toml({"publish_port": 0} | table))
        for visitor in visitors:
            table = {"bind_addr": self.host, "bind_port": free_port(self.host)}
            tables.append("[[visitors]]\n" + toml(table | visitor))
        path = self.directory / f"{name}.toml"
        write_secret(path, "\n".join(tables))
        return path

    async def start_client(self, *proxies: dict, name: str = "client", **keys) -> Process:
        """Start a client with this configuration."""
        return await self.run("client", "-c", str(self.write_client(*proxies, name=name, **keys)))

    async def publish(self, *proxies: dict, **keys) -> tuple[Process, list[Address]]:
        """Start a client and wait until all its proxies are published; where they are."""
        client = await self.start_client(*proxies, **keys)
        return client, [await published(client) for _ in proxies]


async def published(client: Process, **fields) -> Address:
    """Where the next proxy is published, by the client's log."""
    line = await client.wait_for("Proxy published", **fields)
    host, _, port = line["address"].split(", ")[0].rpartition(":")
    return Address(host.strip("[]"), int(port))


async def visiting(client: Process, **fields) -> Address:
    """Where the next visitor listens, by the client's log."""
    line = await client.wait_for("Visitor ready", **fields)
    host, _, port = line["address"].rpartition(":")
    return Address(host, int(port))


def free_port(host: str) -> int:
    """A port of an address that is this test's own."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def write_secret(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)


def toml(settings: dict) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


@asynccontextmanager
async def lab(directory: Path, certificate: Path, carrier: str = "hub"):
    """A `Lab` whose processes end with the block."""
    async with trio.open_nursery() as nursery:
        place = Lab(nursery, directory, certificate, carrier)
        try:
            yield place
        finally:
            for running in place.processes:
                if running.process.returncode is None:
                    running.process.kill()
            nursery.cancel_scope.cancel()  # before what its tasks are reading is closed
            with trio.CancelScope(shield=True):
                for running in place.processes:
                    await running.process.wait()
                    process = running.process
                    for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                        await stream.aclose()


# --- A network that can be cut -------------------------------------------------------------------


class Wire:
    """A TCP relay between client and server whose connections can be cut or frozen."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.port = 0
        self.whole = True
        self._connections: set[Connection] = set()

    async def run(self, *, task_status) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._carry, listeners)
            task_status.started()

    async def _carry(self, near: trio.SocketStream) -> None:
        connection = Connection()
        self._connections.add(connection)
        with connection.scope:
            if not self.whole:
                return
            try:
                far = await trio.open_tcp_stream(self.target.host, self.target.port)
            except OSError:
                return
            async with far, trio.open_nursery() as nursery:
                nursery.start_soon(connection.pump, near, far)
                nursery.start_soon(connection.pump, far, near)
        self._connections.discard(connection)

    def cut(self) -> None:
        """End every connection, and take no new one until `mend`."""
        self.whole = False
        for connection in self._connections:
            connection.scope.cancel()

    def freeze(self) -> None:
        """Carry nothing more for those connected now, and tell nobody: a pulled cable."""
        for connection in self._connections:
            connection.flowing = trio.Event()

    def mend(self) -> None:
        """Take new connections again."""
        self.whole = True


class Connection:
    """One connection over a wire."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.flowing = trio.Event()
        self.flowing.set()

    async def pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await self.flowing.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self.flowing.wait()
        self.scope.cancel()


# --- Services and visitors -----------------------------------------------------------------------


@asynccontextmanager
async def service(handler=echo, host="127.0.0.1"):
    """A local service; yields its port."""
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status):
            await trio.serve_tcp(handler, 0, host=host, task_status=task_status)

        listeners = await nursery.start(serve)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def ask(address: Address, question: bytes = b"hello") -> bytes:
    """Send a question and the end, and read everything that comes back."""
    async with await visit(address) as visitor:
        await visitor.send_all(question)
        await visitor.send_eof()
        return await read_all(visitor)


def reset(stream: trio.SocketStream) -> None:
    """Close so that the other side sees a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@contextmanager
def occupied(address: Address) -> Iterator[None]:
    """A foreign program has the port."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen()
        yield


__all__ = ["Lab", "Process", "Wire", "ask", "is_free", "lab", "occupied", "service", "visit"]
