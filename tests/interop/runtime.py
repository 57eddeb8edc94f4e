"""A link of ours and somebody else's Yamux at the two ends of one connection."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.interop.libraries import Library
from tests.rig import read_all
from tunnel.net.dial import connect_address
from tunnel.net.link import Link
from tunnel.net.listen import accept_burst, open_listeners, wait_connection
from tunnel.net.muxstream import MuxStream
from tunnel.net.tls import TlsStream
from tunnel.net.transport import SocketTransport, own_address
from tunnel.yamux import Role, Settings

#: How long one meeting may take, whatever is done in it.
PATIENCE = 50
READ = 64 * 1024
SMALL = 1000
#: The byte at i is i mod 251, so that bytes out of place are seen.
PATTERN = bytes(range(251)) * 256


# --- Bytes ----------------------------------------------------------------------------------


def pattern(size: int) -> bytes:
    """The first `size` bytes of what both sides send."""
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def digest(data: bytes) -> str:
    """What an answer says."""
    return hashlib.sha256(data).hexdigest()


def digest_of_pattern(size: int) -> str:
    """The digest of `pattern(size)`, without making it."""
    whole = hashlib.sha256()
    for length in _pieces(size):
        whole.update(PATTERN[:length])
    return whole.hexdigest()


async def send_pattern(stream, size: int) -> None:
    """Send `pattern(size)`, then the end."""
    for length in _pieces(size):
        await stream.send_all(PATTERN[:length])
    await stream.send_eof()


def _pieces(size: int):
    while size > 0:
        length = min(size, len(PATTERN))
        yield length
        size -= length


async def read_digest(stream) -> tuple[int, str]:
    """Read everything: how much it was, and its digest."""
    size, whole = 0, hashlib.sha256()
    while data := await stream.receive_some(READ):
        size += len(data)
        whole.update(data)
    return size, whole.hexdigest()


# --- What our side does with streams of its own ---------------------------------------------


async def ask(meeting: Meeting, size: int = SMALL) -> bytes:
    """Send over a new stream, then the end; what comes back."""
    async with await meeting.open() as stream:
        await send_pattern(stream, size)
        return await read_all(stream)


async def talk(stream: MuxStream, size: int) -> tuple[int, str]:
    """Send and read at the same time; the size and the digest of what came back."""
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send_pattern, stream, size)
        return await read_digest(stream)


async def parked(stream: MuxStream, size: int) -> None:
    """Wait until so much has come that nobody has read."""
    while len(stream.endpoint.buffer) < size:
        stream.endpoint.arrived = trio.Event()
        await stream.endpoint.arrived.wait()


async def reset_code(stream: MuxStream) -> int:
    """Wait until the stream is reset, even after its end; why."""
    while stream.endpoint.reset_code is None:
        stream.endpoint.arrived = trio.Event()
        await stream.endpoint.arrived.wait()
    return stream.endpoint.reset_code


# --- What our side does with streams that come in -------------------------------------------


async def echo(stream: MuxStream) -> None:
    """Send back what comes, then the end."""
    async with stream:
        while data := await stream.receive_some(READ):
            await stream.send_all(data)
        await stream.send_eof()


async def answer(stream: MuxStream) -> None:
    """Read everything, then say what it was."""
    async with stream:
        _, found = await read_digest(stream)
        await stream.send_all(found.encode())
        await stream.send_eof()


def source(size: int):
    """Send `pattern(size)`."""

    async def serve(stream: MuxStream) -> None:
        async with stream:
            await send_pattern(stream, size)
            await read_all(stream)

    return serve


# --- The other side -------------------------------------------------------------------------


class Peer:
    """A running peer program."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._send_reply, self._replies = trio.open_memory_channel[str](100)
        self._send_sighting, self._sightings = trio.open_memory_channel[str](10_000)

    async def read(self) -> None:
        """Sort what it prints into answers and what it saw by itself."""
        rest = b""
        with self._send_reply, self._send_sighting:
            async for data in self._process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    word, _, sighting = line.decode().partition(" ")
                    if word == "seen":
                        self._send_sighting.send_nowait(sighting)
                    else:
                        self._send_reply.send_nowait(line.decode())

    async def line(self) -> str:
        """The next line that is not a sighting."""
        return await self._replies.receive()

    async def tell(self, *words: object) -> str:
        """Give it a command and wait for the answer."""
        await self._process.stdin.send_all(" ".join(map(str, words)).encode() + b"\n")
        word, _, rest = (await self.line()).partition(" ")
        assert word == "ok", rest
        return rest

    async def saw(self, expected: str) -> None:
        """Wait until it has seen something that begins like that."""
        while not (await self._sightings.receive()).startswith(expected):
            pass


class Meeting:
    """Our link and the peer at its other end."""

    def __init__(self, link: Link, peer: Peer) -> None:
        self.link = link
        self.peer = peer
        self._done = trio.Event()
        self._reason = ""

    async def run(self) -> None:
        """Carry the link."""
        self._reason = (await self.link.run()).text
        self._done.set()

    async def ended(self) -> str:
        """Wait until the link is lost; why."""
        await self._done.wait()
        return self._reason

    async def open(self) -> MuxStream:
        """Open a stream of ours, as soon as the limits allow it."""
        await self.link.wait_can_open()
        stream = MuxStream.open(self.link)
        self.link.flush()
        return stream


class Plain:
    """What a link asks of TLS, without TLS."""

    def __init__(self, sock) -> None:
        self.transport = SocketTransport(sock)
        self._unsent = memoryview(b"")
        self.heard_at = trio.current_time()

    async def read_into(self, buffer: memoryview) -> int:
        size = await self.transport.receive_into(buffer)
        self.heard_at = trio.current_time()
        return size

    @property
    def blocked(self) -> bool:
        return bool(self._unsent)

    def send_nowait(self, *parts: bytes) -> None:
        view = memoryview(b"".join(parts))
        self._unsent = view[self.transport.send_nowait([view]) :]

    async def drain(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[await self.transport.send_some([self._unsent]) :]

    def abort(self) -> None:
        self.transport.abort()

    async def aclose(self) -> None:
        await self.drain()
        await self.transport.aclose()


@attrs.frozen
class Setting:
    """Who meets whom, and how."""

    library: Library
    #: What our side is.
    role: Role
    #: Our contexts (a server's, a client's) and the files for the peer; None for plain TCP.
    contexts: tuple | None
    certificate: Path

    @property
    def first_of_the_peers(self) -> int:
        """The number of the first stream that the peer opens."""
        return 2 if self.role is Role.CLIENT else 1

    @asynccontextmanager
    async def meet(self, mode="echo", *, serve=echo):
        """A `Meeting`, with the limits for a foreign Yamux; both ends are gone after the block.

        Args:
          mode: what the peer does with our streams.
          serve: what we do with the peer's streams.
        """
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                peer, sock = await self._connect(nursery, mode)
                accept = _acceptor(nursery, serve)
                link = Link(await self._secure(sock), self.role, Settings(), accept)
                meeting = Meeting(link, peer)
                nursery.start_soon(meeting.run)
                await meeting.link.running.wait()
                yield meeting
                link.lose("the test is over")
                await meeting.ended()
                nursery.cancel_scope.cancel()

    async def _connect(self, nursery, mode):
        if self.role is Role.CLIENT:
            peer = await self._start(nursery, mode, "--listen", *self._tls("cert", "key"))
            return peer, await connect_address("127.0.0.1", int(await peer.line()))
        (listener,) = open_listeners("127.0.0.1", 0)
        with listener:
            where = f"127.0.0.1:{own_address(listener).port}"
            peer = await self._start(nursery, mode, "--connect", where, *self._tls("ca"))
            await wait_connection(listener)
            ((sock, _),) = accept_burst(listener)
            return peer, sock

    def _tls(self, *names: str):
        if self.contexts is not None:
            for name in names:
                yield from (f"--{name}", str(self.certificate / f"{name}.pem"))

    async def _start(self, nursery, mode, *arguments) -> Peer:
        run = partial(
            trio.run_process,
            [*self.library.command, "--mode", mode, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            check=False,
            deliver_cancel=_kill,
        )
        peer = Peer(await nursery.start(run))
        nursery.start_soon(peer.read)
        return peer

    async def _secure(self, sock):
        if self.contexts is None:
            return Plain(sock)
        server_context, client_context = self.contexts
        server = self.role is Role.SERVER
        tls = TlsStream(
            SocketTransport(sock),
            server_context if server else client_context,
            server_side=server,
            server_hostname=None if server else "localhost",
        )
        await tls.do_handshake()
        return tls


async def _kill(process: trio.Process) -> None:
    process.kill()


def _acceptor(nursery, serve):
    def accept(link, stream_id):
        stream = MuxStream(link, stream_id)
        nursery.start_soon(_serve, serve, link, stream)
        return stream.endpoint

    return accept


async def _serve(serve, link, stream) -> None:
    """Serve one stream; that it breaks with the link at the end of a test is no failure."""
    try:
        await serve(stream)
    except trio.BrokenResourceError:
        if link.carrying:
            raise
