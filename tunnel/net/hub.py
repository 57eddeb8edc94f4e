"""The fast carrier: one task for all TCP connections of a link, with one nested epoll.

An epoll descriptor can itself be waited for. So Trio waits for one descriptor, and one turn of
`_serve` reads and sends on every socket that is ready, by plain method calls; then the link is
flushed once. A connection is a small object, not a task: it costs neither a task switch an event
nor a nursery. The sockets belong to this task: when it ends, they are closed.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import trio

from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection, Carrier
from tunnel.net.endpoint import Endpoint
from tunnel.net.scratch import scratch
from tunnel.net.transport import finish_on_close, reset_on_close

if TYPE_CHECKING:
    from tunnel.net.link import Link

_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
_ERR = select.EPOLLERR
_HUP = select.EPOLLHUP
#: The peer has sent its FIN: asked for with `_IN`, so that its last bytes and its end are one turn.
_RDHUP = select.EPOLLRDHUP
_READ = _IN | _RDHUP


class Hub(Carrier):
    """One nested epoll and the sockets in it."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        #: There is one from the first socket to the end of the link.
        self._epoll: select.epoll | None = None
        self._sockets: dict[int, SocketEndpoint] = {}
        #: Where the next socket is read to; only within a turn.
        self.free = memoryview(b"")
        self._space = scratch().read

    async def _run(self, epoll: select.epoll) -> None:
        with epoll:
            try:
                while True:
                    await trio.lowlevel.wait_readable(epoll.fileno())
                    self._serve()
                    self.link.flush()
            finally:
                self._epoll = None
                for endpoint in list(self._sockets.values()):
                    endpoint.fail(ResetCode.LINK_LOST)

    def look(self) -> None:
        """See `Carrier`."""
        if self._epoll is not None:
            self._serve()

    def _ensure_epoll(self) -> select.epoll | None:
        """The epoll, and the task that waits for it; None if the link carries no sockets now."""
        if self._epoll is None and self.link.carrying:
            self._epoll = select.epoll()
            self.link.spawn(self._run, self._epoll)
        return self._epoll

    def _serve(self) -> None:
        """One turn: whatever is ready, each socket once."""
        assert self._epoll is not None  # as long as `_run` runs  # noqa: S101
        self.free = self._space
        for descriptor, events in self._epoll.poll(0, limits.POLL_BURST):
            # One that was closed earlier in this turn is not in the table any more.
            endpoint = self._sockets.get(descriptor)
            if endpoint is not None:
                endpoint.ready(events)
                if len(self.free) < limits.HUB_CHUNK:
                    self.link.flush()  # after it what was read so far is needed no more
                    self.free = self._space

    def adopt(
        self,
        sock: socket.socket,
        stream_id: int,
        connection: CarriedConnection,
        *,
        parked: bytes | bytearray = b"",
        finished: bool = False,
    ) -> None:
        """See `Carrier`."""
        reset_on_close(sock)
        if not self._register(sock):
            self.link.reset(stream_id, ResetCode.LIMIT)
            sock.close()
            connection.refused(ResetCode.LIMIT if self.link.carrying else ResetCode.LINK_LOST)
            return
        endpoint = SocketEndpoint(self, sock, stream_id, connection)
        self._sockets[sock.fileno()] = endpoint
        self.started()
        connection.begin()
        self.link.attach(stream_id, endpoint)
        if parked and (taken := endpoint.deliver(memoryview(parked))):
            self.link.consumed(stream_id, taken)
        if finished:
            endpoint.finish()

    def _register(self, sock: socket.socket) -> bool:
        """Watch a new socket; False if the link carries none now, or the system has no room."""
        try:
            epoll = self._ensure_epoll()
            if epoll is not None:
                epoll.register(sock.fileno(), _READ)
        except OSError:
            # No descriptor for the epoll (its first socket has taken the last), or no memory. That
            # is this visitor's end, and no other's.
            return False
        return epoll is not None

    def watch(self, descriptor: int, old: int | None, new: int | None) -> None:
        """Change what a socket is watched for; None is not even for errors."""
        if self._epoll is None or old == new:
            return
        if new is None:
            self._epoll.unregister(descriptor)
        elif old is None:
            self._epoll.register(descriptor, new)
        else:
            self._epoll.modify(descriptor, new)

    def drop(self, descriptor: int) -> None:
        """A socket is about to be closed."""
        del self._sockets[descriptor]
        self.ended()


class SocketEndpoint(Endpoint):
    """A TCP connection as the local end of a stream.

    Closing the socket resets the connection until both directions have ended cleanly, so that
    whatever goes wrong, up to the death of the process, looks wrong to whoever is connected.
    """

    __slots__ = (
        "_connection",
        "_hub",
        "_link",
        "_mask",
        "_parked",
        "_peer_finished",
        "_read_all",
        "_shut",
        "_sock",
        "_stream_id",
    )

    def __init__(
        self, hub: Hub, sock: socket.socket, stream_id: int, connection: CarriedConnection
    ) -> None:
        self._hub = hub
        self._link = hub.link
        self._sock = sock
        self._stream_id = stream_id
        self._connection = connection
        #: What epoll watches the socket for; None if it is not registered.
        self._mask: int | None = _READ
        #: Bytes of the stream that the socket has not taken.
        self._parked: bytearray | None = None
        self._peer_finished = False
        self._read_all = False
        self._shut = False

    # --- From the socket ---------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Epoll says that something can be done."""
        if events == _IN:
            self._read()
            return
        if events & _ERR:
            self.fail(self._connection.failure)
            return
        if events & _OUT:
            self._send_parked()
        if self._sock.fileno() < 0:
            return
        if events & _IN:
            self._read()
            if events & _RDHUP:
                self._read_on()
        elif events & _HUP:
            # Reported whether asked for or not, again and again: look away until there is room.
            self._watch(None)

    def _read(self) -> None:
        room = self._link.room(self._stream_id)
        if not room:
            self._stop_watching(_READ)  # `resume` watches again
            return
        free = self._hub.free
        try:
            size = self._sock.recv_into(free, min(room, limits.HUB_CHUNK))
        except BlockingIOError:
            return
        except OSError:
            self.fail(self._connection.failure)
            return
        if size:
            self._connection.counters.read += size
            self._link.lend(self._stream_id, free[:size])
            self._hub.free = free[size:]
        else:
            self._read_all = True
            self._link.send_eof(self._stream_id)
            if not self._close_if_done():
                self._stop_watching(_READ)

    def _read_on(self) -> None:
        """The end was announced: it may come next, and then needs no turn of its own."""
        if (
            not self._read_all
            and self._sock.fileno() >= 0
            and len(self._hub.free) >= limits.HUB_CHUNK
        ):
            self._read()

    def resume(self) -> None:
        """See `Endpoint`."""
        if not self._read_all:
            self._watch((self._mask or 0) | _READ)

    # --- To the socket -----------------------------------------------------------------------

    def deliver(self, data: memoryview) -> int:
        """See `Endpoint`: straight into the socket, the rest is parked."""
        if self._parked is not None:
            self._parked += data
            return 0
        sent = self._send(data)
        if sent < len(data) and self._sock.fileno() >= 0:
            self._parked = bytearray(data[sent:])
            self._watch((self._mask or 0) | _OUT)
        return sent

    def _send_parked(self) -> None:
        if self._parked is None:
            return
        with memoryview(self._parked) as view:
            sent = self._send(view)
        if not sent:
            return
        self._link.consumed(self._stream_id, sent)
        del self._parked[:sent]
        if not self._parked:
            self._parked = None
            self._stop_watching(_OUT)
            if self._peer_finished:
                self._shut_down()

    def _send(self, data: memoryview) -> int:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.fail(self._connection.failure)
            return 0
        self._connection.counters.delivered += sent
        return sent

    # --- Ends --------------------------------------------------------------------------------

    def finish(self) -> None:
        """See `Endpoint`: the FIN goes to the socket behind what is parked."""
        self._peer_finished = True
        if self._parked is None and self._sock.fileno() >= 0:
            self._shut_down()

    def _shut_down(self) -> None:
        if not self._read_all:  # else closing says FIN as well
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.fail(self._connection.failure)
                return
        self._shut = True
        self._close_if_done()

    def _close_if_done(self) -> bool:
        done = self._read_all and self._shut
        if done:
            finish_on_close(self._sock)
            self._link.detach(self._stream_id)
            self._close(None)
        return done

    def reset(self, code: int) -> None:
        """See `Endpoint`: a reset stays a reset."""
        if self._sock.fileno() >= 0:
            self._close(ResetCode.of(code))

    def fail(self, code: ResetCode) -> None:
        """The socket broke, or the hub ends: reset both the stream and the socket."""
        self._link.reset(self._stream_id, code)
        self._close(code)

    def _close(self, code: ResetCode | None) -> None:
        self._watch(None)
        self._hub.drop(self._sock.fileno())
        self._sock.close()
        self._connection.end(code)

    # --- What epoll watches ------------------------------------------------------------------

    def _stop_watching(self, flag: int) -> None:
        if self._mask is not None:
            self._watch(self._mask & ~flag)

    def _watch(self, mask: int | None) -> None:
        self._hub.watch(self._sock.fileno(), self._mask, mask)
        self._mask = mask
