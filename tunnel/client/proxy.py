"""One proxy as the client keeps it: what is published, and the way to the service behind it."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import time
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs
import trio
from trio_util import AsyncValue

from tunnel import limits
from tunnel.client.settings import UNIX, ProxySpec
from tunnel.client.visit_auth import Guard
from tunnel.errors import RemoteProtocolError
from tunnel.events import (
    EventStream,
    LocalServiceUnreachable,
    OwnProxyPublished,
    OwnProxyRejected,
)
from tunnel.model import Address, ResetCode, within
from tunnel.net.account import Account
from tunnel.net.carrier import CarriedConnection
from tunnel.net.dial import (
    begin_connect,
    connect_address,
    connect_tcp,
    connect_unix,
    finish_connect,
)
from tunnel.net.incoming import IncomingEndpoint
from tunnel.net.link import Link
from tunnel.net.transport import keep_alive
from tunnel.protocol.messages import Bound, ProxyRequest, Rejected
from tunnel.protocol.preamble import Preamble, proxy_v1, proxy_v2
from tunnel.stats import Counters
from tunnel.views import ProxyStatistics

logger = logging.getLogger(__name__)

ASKED: Final = "asked"
#: What a server last said of a proxy; `ASKED` while it has not answered, None while no server has
#: been asked, or it was told to forget it.
ProxyStatus: TypeAlias = Bound | Rejected | Literal["asked"] | None


@attrs.define(eq=False)
class LocalProxy:
    """A proxy of this client: what is published, and the way to the local service behind it.

    Args:
      spec: what the configuration says of it now.
    """

    spec: ProxySpec
    counters: Counters = attrs.field(factory=Counters, init=False)
    start_time: float = attrs.field(factory=time.time, init=False)
    #: Where visitors reach it now; empty while it is not published.
    addresses: tuple[Address, ...] = attrs.field(default=(), init=False)
    status: AsyncValue[ProxyStatus] = attrs.field(factory=lambda: AsyncValue(None), init=False)
    #: The port that the server picked for it last time.
    preferred_port: int = attrs.field(default=0, init=False)
    #: What is asked of visitors through other clients.
    guard: Guard = attrs.field(init=False)
    #: Of the session that it is served in; without subscribers before that.
    _events: EventStream = attrs.field(factory=EventStream, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _retired: trio.Event = attrs.field(factory=trio.Event, init=False)
    _unreachable: bool = attrs.field(default=False, init=False)
    _quiet_until: float = attrs.field(default=-math.inf, init=False)
    _turned_away_quiet_until: float = attrs.field(default=-math.inf, init=False)
    _warned: bool = attrs.field(default=False, init=False)

    @guard.default
    def _guard_by_spec(self) -> Guard:
        return Guard(self.spec.visit_key)

    def update(self, spec: ProxySpec) -> None:
        """Do what another configuration says, at the same published port.

        Connections that live go on as they are.

        Args:
          spec: what it says; its `place` is the same.
        """
        self.spec = spec
        self.guard.update(spec.visit_key)
        self._unreachable = False

    @property
    def name(self) -> str:
        """Unique in this client."""
        return self.spec.name

    @property
    def place(self) -> tuple[str, str, int, bool]:
        """What makes it the same proxy; see `ProxySpec.place`."""
        return self.spec.place

    def request(self) -> ProxyRequest:
        """What the server is asked for."""
        spec = self.spec
        return ProxyRequest(
            spec.name,
            spec.publish_addr,
            spec.publish_port,
            self.preferred_port,
            spec.local_port,
            spec.allow_from,
            spec.visitors_only,
            spec.allow_visitors,
            self.guard.nonce,
        )

    # --- What the server says of it ----------------------------------------------------------

    def begin_session(self, owner: str) -> None:
        """A server is asked to publish it.

        Args:
          owner: what that server calls this client.
        """
        self.status.value = ASKED
        self.guard.begin(owner)

    def end_session(self) -> None:
        """The server is asked no more: the session is over, or the proxy was removed from it."""
        self.status.value = None
        self.guard.end()

    def on_answer(self, answer: Bound | Rejected) -> None:
        """The server has published it, or has not. While it is served (see `serve`).

        Raises:
          RemoteProtocolError: it has no address, or is for visitors only and has one.
        """
        spec = self.spec
        if isinstance(answer, Bound) and bool(answer.addresses) is spec.visitors_only:
            fault = "no address" if not answer.addresses else "an address, and is for visitors only"
            raise RemoteProtocolError(f"the server says that {spec.name} has {fault}")
        self.status.value = answer
        if isinstance(answer, Rejected):
            self.addresses = ()
            event = OwnProxyRejected(spec.name, spec.publish_port, answer.code, answer.text)
            self._events.emit(event)
        elif self.addresses != answer.addresses or spec.visitors_only:
            self.addresses = answer.addresses
            if not spec.publish_port and answer.addresses:
                self.preferred_port = answer.addresses[0].port
            self._events.emit(OwnProxyPublished(spec.name, answer.addresses, self.target))

    @property
    def up(self) -> bool:
        """True while it is published, or can be visited if that is all that is wanted."""
        return bool(self.addresses) or (
            self.spec.visitors_only and isinstance(self.status.value, Bound)
        )

    @property
    def target(self) -> str:
        """The local service as a log line shows it."""
        return self.spec.target

    def statistics(self) -> ProxyStatistics:
        """The proxy at this moment."""
        return ProxyStatistics(
            self.name,
            self.addresses,
            self.spec.local_port,
            self.start_time,
            self.counters.statistics(),
        )

    # --- Dialling ----------------------------------------------------------------------------

    async def serve(
        self,
        events: EventStream,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Own the connections to the local service that are being made, until cancelled.

        Retired (see `retire`), it takes no new visitors, and ends when each visitor that is there
        is connected to the service, or was turned away. Cancelled, it gives up the connections that
        are being made; their visitors are reset with the link.

        Args:
          events: told what becomes of the proxy in this session.
          task_status: told when it takes visitors.
        """
        async with trio.open_nursery() as nursery:
            self._nursery, self._events = nursery, events
            self._retired = trio.Event()
            task_status.started()
            try:
                await self._retired.wait()
            finally:
                # A nursery takes no other task once its last one has ended: no visitor from now on.
                self._nursery = None
                self.addresses = ()

    def retire(self) -> None:
        """Have `serve` take no new visitors: the proxy is no longer published."""
        self._retired.set()

    def on_visitor(self, endpoint: DiallingEndpoint, preamble: Preamble) -> None:
        """A visitor has come: connect it to the local service, at once if that answers at once.

        Args:
          endpoint: its stream; connected or refused in the end. The caller flushes the link.
          preamble: who it is, as the server says.
        """
        if self._nursery is None:
            endpoint.refuse(ResetCode.CANCELLED)
            return
        if self.spec.visitors_only and not self._may_visit(preamble):
            # The server should have seen to that.
            reason = "its client is not in allow_visitors"
            self._turn_away_visit(endpoint, preamble, ResetCode.NOT_ALLOWED, reason)
            return
        if self.spec.networks and not within(preamble.source.host, self.spec.networks):
            self._turn_away_network(endpoint, preamble)
            return
        if preamble.through is not None and self.guard.asks:
            answer = self.guard.answer(self.name, self.spec.publish_port, preamble)
            if isinstance(answer, str):
                self._turn_away_visit(endpoint, preamble, ResetCode.WRONG_SECRET, answer)
                return
            endpoint.link.send(endpoint.stream_id, answer)
        self._serve_visitor(endpoint, preamble, self._nursery)

    def _may_visit(self, preamble: Preamble) -> bool:
        """True if it comes through a client that may visit; a name that one chose is no proof."""
        if preamble.through is None:
            return False
        return not self.spec.allow_visitors or (
            preamble.assigned and preamble.through in self.spec.allow_visitors
        )

    def _turn_away_visit(
        self, endpoint: DiallingEndpoint, preamble: Preamble, code: ResetCode, reason: str
    ) -> None:
        """Reset it, and log why; not too often, for visitors could fill the log."""
        endpoint.refuse(code)
        now = trio.current_time()
        if now >= self._turned_away_quiet_until:
            self._turned_away_quiet_until = now + limits.LOCAL_FAILURE_LOG_INTERVAL
            logger.warning(
                "Visit refused",
                extra={
                    "proxy": self.name,
                    "guest_of": preamble.through or "",
                    "address": str(preamble.source),
                    "connection": preamble.connection_id.hex(),
                    "reason": reason,
                },
            )

    def _serve_visitor(
        self, endpoint: DiallingEndpoint, preamble: Preamble, nursery: trio.Nursery
    ) -> None:
        """Connect a visitor that is let in."""
        sock, connected = self._dial_at_once()
        if sock is not None and connected:
            self._hand_over(sock, endpoint, preamble)
        else:
            nursery.start_soon(self._connect, endpoint, preamble, sock, endpoint.waiting())

    def _dial_at_once(self) -> tuple[socket.socket | None, bool]:
        """A connection to the local service, and whether it is made; None if it takes a task."""
        if self.spec.is_literal:
            with contextlib.suppress(OSError):
                return begin_connect(self.spec.local_addr, self.spec.local_port)
        return None, False

    def _turn_away_network(self, endpoint: DiallingEndpoint, preamble: Preamble) -> None:
        """Reset a visitor that the server should have turned away: it knows no `allow_from`."""
        endpoint.refuse(ResetCode.NOT_ALLOWED)
        if not self._warned:
            self._warned = True
            logger.warning(
                "Server ignores allow_from",
                extra={
                    "proxy": self.name,
                    "address": str(preamble.source),
                    "consequence": "such visitors are turned away here; update the server",
                },
            )

    async def _connect(
        self,
        endpoint: DiallingEndpoint,
        preamble: Preamble,
        begun: socket.socket | None,
        scope: trio.CancelScope,
    ) -> None:
        with scope:
            sock = await self._dial_patiently(begun)
            if isinstance(sock, ResetCode):
                endpoint.refuse(sock)
            elif scope.cancel_called:
                sock.close()  # the visitor went at the moment at which the connection came
            else:
                self._hand_over(sock, endpoint, preamble)
            endpoint.link.flush()

    async def _dial_patiently(
        self, begun: socket.socket | None = None
    ) -> socket.socket | ResetCode:
        """A connection to the local service, or why there is none after the last try."""
        code = ResetCode.NONE
        for attempt in range(1 + self.spec.retries):
            if attempt:
                await trio.sleep(self.spec.retry_delay)
            try:
                with trio.fail_after(limits.LOCAL_CONNECT_TIMEOUT):
                    return await self._dial(begun)
            except (OSError, trio.TooSlowError) as error:
                self._on_unreachable(error)
                code = _reset_code(error)
                begun = None
        return code

    async def _dial(self, begun: socket.socket | None) -> socket.socket:
        if begun is not None:
            await finish_connect(begun)
            return begun
        if self.spec.local_addr.startswith(UNIX):
            return await connect_unix(self.spec.local_addr.removeprefix(UNIX))
        if self.spec.is_literal:
            return await connect_address(self.spec.local_addr, self.spec.local_port)
        return await connect_tcp(self.spec.local_addr, self.spec.local_port)

    def _hand_over(
        self, sock: socket.socket, endpoint: DiallingEndpoint, preamble: Preamble
    ) -> None:
        self._unreachable = False
        if not self.spec.is_near:
            keep_alive(sock)
        if self.spec.proxy_protocol is not None:
            header = proxy_v1 if self.spec.proxy_protocol == "v1" else proxy_v2
            try:
                # Nothing is in the socket's buffer yet: it takes a hundred bytes whole.
                sock.send(header(preamble.source, preamble.destination))
            except OSError:
                sock.close()
                endpoint.refuse(ResetCode.LOCAL_RESET)
                return
        connection = CarriedConnection(
            self.name, preamble.connection_id.hex(), self.counters, ResetCode.LOCAL_RESET
        )
        endpoint.connected(sock, connection)

    def _on_unreachable(self, error: Exception) -> None:
        """Tell it once, until it works again, and not too often: visitors could fill the log."""
        now = trio.current_time()
        if not self._unreachable and now >= self._quiet_until:
            self._unreachable = True
            self._quiet_until = now + limits.LOCAL_FAILURE_LOG_INTERVAL
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            self._events.emit(LocalServiceUnreachable(self.name, self.target, reason))


def _reset_code(error: Exception) -> ResetCode:
    if isinstance(error, trio.TooSlowError):
        return ResetCode.LOCAL_TIMEOUT
    if getattr(error, "errno", None) == errno.ECONNREFUSED:
        return ResetCode.LOCAL_REFUSED
    return ResetCode.LOCAL_UNREACHABLE


class DiallingEndpoint(IncomingEndpoint):
    """A visitor's stream while its local connection is being made: parks what comes.

    Args:
      link: whose stream it is.
      stream_id: the stream, which the server has opened.
      proxies: by the ids that the server knows them by.
      events: told of the visitor, if there are subscribers to visitors.
    """

    __slots__ = ("_account", "_events", "_proxies", "_scope")

    def __init__(
        self,
        link: Link,
        stream_id: int,
        proxies: Mapping[int, LocalProxy],
        events: EventStream,
    ) -> None:
        super().__init__(link, stream_id)
        self._proxies = proxies
        self._events = events
        self._account: Account | None = None
        self._scope: trio.CancelScope | None = None

    def waiting(self) -> trio.CancelScope:
        """A scope for the task that makes the connection: cancelled when the visitor goes."""
        self._scope = trio.CancelScope()
        return self._scope

    def preamble_received(self, preamble: Preamble) -> None:
        """See `IncomingEndpoint`."""
        # By the id alone, to what this client's own file says: never to an address from the wire.
        number = preamble.proxy_id
        proxy = None if number is None else self._proxies.get(number)
        if self._events.wants_visitors:
            self._account = _account(self._events, proxy, preamble)
        if proxy is None:
            self.refuse(ResetCode.UNKNOWN_PROXY)
        else:
            proxy.on_visitor(self, preamble)

    def reset(self, code: int) -> None:
        """See `Endpoint`."""
        if self._scope is not None:
            self._scope.cancel()
        if self._account is not None:
            self._account.close(ResetCode.of(code))

    def refuse(self, code: ResetCode) -> None:
        """There will be no connection: a reset before any byte. Flush the link after it."""
        super().refuse(code)
        if self._account is not None:
            self._account.close(code)

    def connected(self, sock: socket.socket, connection: CarriedConnection) -> None:
        """There is one: the carrier takes over, with what is parked. Flush the link after it."""
        self.link.carrier.adopt(
            sock,
            self.stream_id,
            self.with_account(connection),
            parked=self.parked,
            finished=self.finished,
        )

    def with_account(self, connection: CarriedConnection) -> CarriedConnection:
        """A connection for the carrier, with its bytes and its end told if that is wanted."""
        if self._account is not None:
            connection.counters, connection.on_end = self._account, self._account.close
        return connection


def _account(events: EventStream, proxy: LocalProxy | None, preamble: Preamble) -> Account:
    name, counters = ("", Counters()) if proxy is None else (proxy.name, proxy.counters)
    connection = preamble.connection_id.hex()
    return Account(events, name, "", connection, preamble.source, counters, published_here=False)
