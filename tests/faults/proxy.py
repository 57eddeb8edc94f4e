"""A TCP proxy that does to connections what networks do to them, on command or at a byte.

In a test it is a task::

    proxy = FaultProxy(Address(host, port))
    await nursery.start(proxy.run)
    ...                                  # connect to 127.0.0.1, proxy.port
    proxy.corrupt(Way.DOWN, after=1000)  # the byte behind the next thousand
    proxy.reset()                        # everything, now

and by itself a process, told what to do on its standard input, a command a line::

    python -m tests.faults.proxy --target 127.0.0.1:8443 --listen 127.0.0.1:9443
"""

from __future__ import annotations

import argparse
import enum
import errno
import socket
import struct
import sys
from collections.abc import Callable

import attrs
import trio

from tunnel.model import Address

#: Bytes that may be under way in one direction, unless told otherwise; and in how many pieces.
QUEUE = 1024 * 1024
PIECES = 16
#: How long a connection that was cut goes on reading what the two ends still say, in seconds.
DROPPING = 5.0


class Way(enum.Enum):
    """A direction, seen from who connects to the proxy."""

    UP = "up"
    DOWN = "down"


class Action(enum.Enum):
    """What can happen at a byte."""

    CUT = "cut"  # FIN both ways; what still comes is dropped
    RESET = "reset"  # RST both ways
    TRUNCATE = "truncate"  # FIN behind this byte, in this direction only
    STALL = "stall"  # nothing more is carried, and nobody is told
    CORRUPT = "corrupt"  # the next byte arrives as another one


@attrs.frozen
class Fault:
    """Something that happens to a connection when so many bytes went one way."""

    action: Action | Callable[[], None]
    way: Way
    offset: int


@attrs.define(eq=False)
class Conditions:
    """What one direction is like, for all connections."""

    #: Seconds that every byte is under way.
    delay: float = 0.0
    #: At most so many bytes, and seconds until the next ones.
    drip: tuple[int, float] | None = None


class FaultProxy:
    """Carries TCP connections to `target`, and is told how to do it badly.

    Args:
      target: where to.
      listen: where from; any free port unless told.
      queue: how many bytes may be under way in one direction.
    """

    def __init__(
        self, target: Address, listen: Address | None = None, *, queue: int = QUEUE
    ) -> None:
        self.target = target
        self._queue = queue
        self._listen = listen or Address("127.0.0.1", 0)
        self.port = 0
        self.connections: list[Connection] = []
        self.conditions = {way: Conditions() for way in Way}
        #: What is to happen to the next connection, from its first byte on.
        self.planned: list[Fault] = []
        #: New connections are accepted and never hear a word.
        self.swallows = False
        #: New connections are reset.
        self.refuses = False

    async def run(
        self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry until cancelled; started when it listens, with the address."""
        listeners = await trio.open_tcp_listeners(self._listen.port, host=self._listen.host)
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started(Address(self._listen.host, self.port))
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = Connection(stream.socket, self.conditions, self._queue)
        self.connections.append(connection)
        try:
            if self.refuses:
                connection.reset()
            elif self.swallows:
                await connection.swallow()
            else:
                connection.faults, self.planned = self.planned, []
                await connection.carry(self.target)
        finally:
            connection.close()
            self.connections.remove(connection)

    # --- Commands ----------------------------------------------------------------------------

    def at(self, action: Action | Callable[[], None], way: Way, after: int) -> None:
        """Let it happen to the connections there are when `after` more bytes went that way.

        A callable is called then.
        """
        for connection in self.connections:
            connection.plan(Fault(action, way, connection.carried[way] + after))

    def cut(self) -> None:
        """End every connection with FIN both ways."""
        self._each(Connection.cut)

    def reset(self) -> None:
        """End every connection with RST both ways."""
        self._each(Connection.reset)

    def stall(self, *ways: Way) -> None:
        """Carry nothing more of the connections there are; new ones are carried."""
        for connection in self.connections:
            connection.stall(*ways)

    def resume(self) -> None:
        """Carry again what was stalled."""
        self._each(Connection.resume)

    def _each(self, command: Callable[[Connection], None]) -> None:
        for connection in list(self.connections):
            command(connection)

    def delay(self, seconds: float) -> None:
        """Every byte takes so long, each way."""
        for conditions in self.conditions.values():
            conditions.delay = seconds

    def drip(self, size: int, interval: float, *ways: Way) -> None:
        """Carry `size` bytes every `interval` seconds; a size of 0 is the whole link again."""
        for way in ways or Way:
            self.conditions[way].drip = (size, interval) if size else None


class Connection:
    """One connection through the proxy."""

    def __init__(
        self, near: trio.socket.SocketType, conditions: dict[Way, Conditions], queue: int
    ) -> None:
        self._queue = queue
        self._near = near
        self._far: trio.socket.SocketType | None = None
        self._conditions = conditions
        self._flowing = {way: trio.Event() for way in Way}
        self._scope = trio.CancelScope()
        self._dropping = False
        self.faults: list[Fault] = []
        #: Bytes that went each way.
        self.carried = dict.fromkeys(Way, 0)
        self.resume()

    async def carry(self, target: Address) -> None:
        """Connect and carry both ways until both have ended, or something was done to it."""
        try:
            with self._scope:
                far = await trio.open_tcp_stream(target.host, target.port)
                self._far = far.socket
                if self._queue != QUEUE:
                    for sock in self._ends():
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._queue // 2)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, Way.UP, self._near, self._far)
                    nursery.start_soon(self._pump, Way.DOWN, self._far, self._near)
            if self._dropping:
                await self._drop()
        except* OSError:
            self.reset()  # one end was reset or could not be reached: so is the other

    async def swallow(self) -> None:
        """Say nothing, until something is done to it."""
        with self._scope:
            await trio.sleep_forever()

    # --- Faults ------------------------------------------------------------------------------

    def plan(self, fault: Fault) -> None:
        """Let something happen at a byte."""
        self.faults.append(fault)

    def cut(self) -> None:
        """FIN both ways, now."""
        self._dropping = True
        for sock in self._ends():
            _finish(sock)
        self._scope.cancel()

    def reset(self) -> None:
        """RST both ways, now."""
        for sock in self._ends():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._scope.cancel()  # what is closed from now on is closed with a reset

    def stall(self, *ways: Way) -> None:
        """Carry nothing more."""
        for way in ways or Way:
            self._flowing[way] = trio.Event()

    def resume(self) -> None:
        """Carry again."""
        for flowing in self._flowing.values():
            flowing.set()

    def close(self) -> None:
        """Close both sockets; may be called twice."""
        for sock in self._ends():
            sock.close()

    def _ends(self) -> list[trio.socket.SocketType]:
        ends = [self._near] + ([self._far] if self._far is not None else [])
        return [sock for sock in ends if sock.fileno() != -1]

    # --- Carrying ----------------------------------------------------------------------------

    async def _pump(
        self, way: Way, source: trio.socket.SocketType, sink: trio.socket.SocketType
    ) -> None:
        """Read into a queue, which is what is under way, and send from it when it is due."""
        send, receive = trio.open_memory_channel[tuple[float, bytes]](PIECES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, way, sink, receive)
            async with send:
                while data := await source.recv(self._queue // PIECES):
                    due = trio.current_time() + self._conditions[way].delay
                    await send.send((due, data))

    async def _send(
        self,
        way: Way,
        sink: trio.socket.SocketType,
        queue: trio.MemoryReceiveChannel[tuple[float, bytes]],
    ) -> None:
        async for due, data in queue:
            await trio.sleep_until(due)
            start = 0
            while start < len(data):
                if self._act(way):
                    sink = _Nowhere()  # it has ended for who listens; who sends does not know
                await self._flowing[way].wait()
                start += await self._carry_some(way, sink, data[start:])
            sink = _Nowhere() if self._act(way) else sink
        await self._flowing[way].wait()
        _finish(sink)

    async def _carry_some(self, way: Way, sink: trio.socket.SocketType, data: bytes) -> int:
        """Send up to the next fault, or what may be sent now; returns how much went."""
        drip = self._conditions[way].drip
        size = min(len(data), drip[0]) if drip else len(data)
        here = self.carried[way]
        ahead = [fault for fault in self.faults if fault.way is way]
        if any(f.offset == here and f.action is Action.CORRUPT for f in ahead):
            self.faults = [f for f in self.faults if f.way is not way or f.offset != here]
            data, size = bytes([data[0] ^ 0x40]), 1
        else:
            size = min([size, *(f.offset - here for f in ahead if f.offset > here)])
        size = await sink.send(data[:size])
        self.carried[way] += size
        if drip:
            await trio.sleep(drip[1])
        return size

    def _act(self, way: Way) -> bool:
        """Do what is due behind the bytes that went; True if this direction has ended."""
        due = [f for f in self.faults if f.way is way and f.offset <= self.carried[way]]
        for fault in due:
            match fault.action:
                case Action.CUT:
                    self.cut()
                case Action.RESET:
                    self.reset()
                case Action.STALL:
                    self.stall()
                case Action.TRUNCATE:
                    _finish(self._far if way is Way.UP else self._near)
                case Action.CORRUPT:
                    continue  # it happens to the next byte
                case call:
                    call()
            self.faults.remove(fault)
        return any(fault.action is Action.TRUNCATE for fault in due)

    async def _drop(self) -> None:
        """Read what the two ends still say: to close with unread bytes would be a reset."""
        with trio.move_on_after(DROPPING):
            async with trio.open_nursery() as nursery:
                for sock in self._ends():
                    nursery.start_soon(_read_to_the_end, sock)


class _Nowhere:
    """Takes everything."""

    async def send(self, data: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return len(data)

    def shutdown(self, how: int) -> None:
        pass


async def _read_to_the_end(sock: trio.socket.SocketType) -> None:
    try:
        while await sock.recv(65536):
            pass
    except OSError:
        pass


def _finish(sock: trio.socket.SocketType) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EPIPE):
            raise


# --- As a process -------------------------------------------------------------------------------


def obey(proxy: FaultProxy, line: str) -> str:
    """Do what a line says; the answer is "ok", a status, or what is wrong with it."""
    command, *words = line.split() or ["status"]
    try:
        match command:
            case "cut" | "reset" | "resume":
                getattr(proxy, command)()
            case "stall":
                proxy.stall(*map(Way, words))
            case "delay":
                proxy.delay(float(words[0]))
            case "drip":
                proxy.drip(int(words[0]), float(words[1]), *map(Way, words[2:]))
            case "swallow" | "refuse":
                setattr(proxy, command + "s", words != ["off"])
            case "at":
                proxy.at(Action(words[0]), Way(words[1]), int(words[2]))
            case "next":
                proxy.planned.append(Fault(Action(words[0]), Way(words[1]), int(words[2])))
            case "status":
                return " ".join(
                    f"{connection.carried[Way.UP]}/{connection.carried[Way.DOWN]}"
                    for connection in proxy.connections
                )
            case _:
                return f"what is {command!r}? See the source."
    except (ValueError, IndexError) as error:
        return f"{command}: {error}"
    return "ok"


async def _main(target: Address, listen: Address) -> None:
    proxy = FaultProxy(target, listen)
    async with trio.open_nursery() as nursery:
        print(await nursery.start(proxy.run), flush=True)
        async for line in trio.wrap_file(sys.stdin):
            print(obey(proxy, line), flush=True)
        nursery.cancel_scope.cancel()


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=_address, required=True)
    parser.add_argument("--listen", type=_address, default=Address("127.0.0.1", 0))
    arguments = parser.parse_args()
    trio.run(_main, arguments.target, arguments.listen)
