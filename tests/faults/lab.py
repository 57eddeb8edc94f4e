"""The fault laboratory: real servers and clients, and a network between them that misbehaves."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.e2e.rig import PATIENCE, Lab, Process, lab, published, visit
from tests.faults.proxy import QUEUE, FaultProxy
from tunnel.model import Address


class FaultLab:
    """A server, a client, and the proxy that the client's link goes through."""

    def __init__(self, place: Lab) -> None:
        self.place = place
        self.server: Process
        self.client: Process
        self.proxy: FaultProxy
        self.address: Address
        #: How many bytes may be under way on the link, each way.
        self.queue = QUEUE
        self._proxies: tuple[dict, ...] = ()
        self._server_keys: dict = {}
        self._client_keys: dict = {}

    async def start(self, *proxies: dict, server: dict | None = None, client: dict | None = None):
        """Start all of it; returns where the proxies are published."""
        self._proxies, self._server_keys, self._client_keys = proxies, server or {}, client or {}
        self.server = await self.place.start_server(**self._server_keys)
        self.proxy = FaultProxy(Address(self.place.host, self.place.server_port), queue=self.queue)
        await self.place.nursery.start(self.proxy.run)
        addresses = await self.start_client()
        self.address = addresses[0]
        return addresses

    async def start_client(self) -> list[Address]:
        """Start the client (again); returns where its proxies are published."""
        self.client, addresses = await self.place.publish(
            *self._proxies,
            server_addr="127.0.0.1",
            server_port=self.proxy.port,
            **self._client_keys,
        )
        await self.client.wait_for("Connected")
        # From now on it asks for the same ports, also after a restart.
        self._proxies = tuple(
            proxy | {"publish_port": address.port}
            for proxy, address in zip(self._proxies, addresses, strict=True)
        )
        return addresses

    async def start_server(self) -> None:
        """Start the server again."""
        self.server = await self.place.start_server(**self._server_keys)

    async def back(self) -> None:
        """Wait until the client says that its proxies are published again."""
        for _ in self._proxies:
            await published(self.client)


@asynccontextmanager
async def fault_lab(directory: Path, certificate: Path, carrier: str = "hub"):
    """A `FaultLab` whose processes end with the block."""
    async with lab(directory, certificate, carrier) as place:
        yield FaultLab(place)


# --- Processes ----------------------------------------------------------------------------------


def freeze(process: Process) -> None:
    """SIGSTOP: it does nothing more, and its kernel goes on answering for it."""
    process.process.send_signal(signal.SIGSTOP)


def thaw(process: Process) -> None:
    """SIGCONT."""
    process.process.send_signal(signal.SIGCONT)


def descriptors(process: Process) -> int:
    """How many file descriptors it has open."""
    return len(os.listdir(f"/proc/{process.process.pid}/fd"))


def limit_memory(process: Process, more: int) -> None:
    """A ceiling on its address space, so many bytes above what it has now (RLIMIT_AS)."""
    pages = int(Path(f"/proc/{process.process.pid}/statm").read_text().split()[0])
    ceiling = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.prlimit(process.process.pid, resource.RLIMIT_AS, (ceiling, ceiling))


def limit_descriptors(process: Process, most: int) -> None:
    """A ceiling on its file descriptors (RLIMIT_NOFILE)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE, (most, hard))


# --- Visitors -----------------------------------------------------------------------------------


@asynccontextmanager
async def crowd(address: Address, size: int, *, says: bytes = b""):
    """So many visitors who have said something; they go with the block, without a goodbye."""
    streams = [await visit(address) for _ in range(size)]
    try:
        for stream in streams:
            with contextlib.suppress(trio.BrokenResourceError):  # it was sent away already
                await stream.send_all(says)
        yield streams
    finally:
        for stream in streams:
            stream.socket.close()


class Probe:
    """A visitor with one connection who asks all the time, and remembers the longest wait.

    The service behind it must send back what comes.
    """

    def __init__(self, address: Address, *, hello: bytes = b"", interval: float = 0.01) -> None:
        self.address = address
        self._hello = hello
        self._interval = interval
        self.longest = 0.0
        self.answers = 0
        self._answered = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled; any error is the test's failure."""
        async with await visit(self.address) as stream:
            await stream.send_all(self._hello)
            while True:
                question = b"%08d" % self.answers
                asked = trio.current_time()
                await stream.send_all(question)
                got = b""
                with trio.fail_after(PATIENCE):
                    while len(got) < len(question):
                        got += await stream.receive_some(len(question) - len(got))
                assert got == question
                self.longest = max(self.longest, trio.current_time() - asked)
                self.answers += 1
                self._answered.set()
                self._answered = trio.Event()
                if self.answers == 1:
                    task_status.started()
                await trio.sleep(self._interval)

    async def wait_answers(self, more: int) -> None:
        """Wait for so many more answers."""
        for _ in range(more):
            await self._answered.wait()
