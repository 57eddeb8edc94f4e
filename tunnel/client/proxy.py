"""One proxy as the client keeps it: what is published, and the local service behind it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import math
import socket
import time
from typing import Final, Literal, TypeAlias

import attrs
import trio
from trio_util import AsyncValue

from tunnel import limits
from tunnel.client.dialling import DiallingEndpoint
from tunnel.client.secret import Guard
from tunnel.model import Address, Network, ResetCode, within
from tunnel.net.carrier import CarriedConnection
from tunnel.net.dial import (
    begin_connect,
    connect_address,
    connect_tcp,
    connect_unix,
    finish_connect,
)
from tunnel.net.transport import keep_alive
from tunnel.protocol.messages import Bound, ProxyRequest, Rejected
from tunnel.protocol.preamble import Preamble, proxy_v1, proxy_v2
from tunnel.stats import Counters
from tunnel.views import ProxyStatistics

logger = logging.getLogger(__name__)

_UNIX = "unix:"

ASKED: Final = "asked"
#: What a server last said of a proxy; `ASKED` while it has not answered, None while no server has
#: been asked, or it was told to forget it.
Standing: TypeAlias = Bound | Rejected | Literal["asked"] | None


@attrs.define(eq=False)
class LocalProxy:
    """A published proxy and its local service.

    Args:
      name: unique in this client.
      publish_addr, publish_port: what the server is asked for; port 0 is any.
      local_addr: an address, a name, or "unix:/path".
      local_port: 0 for a Unix socket.
      proxy_protocol: "v1" or "v2" to tell the local service who visits it.
      allow_from: the networks that may visit it; none is everybody.
      visitors_only: without a public port, for guests of other clients.
      allow_visitors: the clients whose guests they may be; none is every one.
      guard: what else is asked of guests of other clients.
      retries: how often the local service is tried again for one visitor.
      retry_delay: seconds between two tries.
    """

    name: str
    publish_addr: str
    publish_port: int
    local_addr: str
    local_port: int
    proxy_protocol: str | None = None
    allow_from: tuple[str, ...] = ()
    visitors_only: bool = attrs.field(default=False, kw_only=True)
    allow_visitors: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    guard: Guard = attrs.field(factory=Guard, kw_only=True)
    retries: int = limits.LOCAL_CONNECT_RETRIES
    retry_delay: float = limits.LOCAL_RETRY_DELAY
    counters: Counters = attrs.field(factory=Counters, init=False)
    start_time: float = attrs.field(factory=time.time, init=False)
    #: Where visitors reach it now; empty while it is not published.
    addresses: tuple[Address, ...] = attrs.field(default=(), init=False)
    standing: AsyncValue[Standing] = attrs.field(factory=lambda: AsyncValue(None), init=False)
    #: The port that the server picked for it last time.
    preferred_port: int = attrs.field(default=0, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _retired: trio.Event = attrs.field(factory=trio.Event, init=False)
    _complained: bool = attrs.field(default=False, init=False)
    _quiet_until: float = attrs.field(default=-math.inf, init=False)
    _guests_quiet_until: float = attrs.field(default=-math.inf, init=False)
    _warned: bool = attrs.field(default=False, init=False)
    _networks: tuple[Network, ...] = attrs.field(init=False)
    _is_literal: bool = attrs.field(init=False)
    #: The service is on this machine, where nobody vanishes without the kernel's saying so.
    _is_near: bool = attrs.field(init=False)

    @_is_literal.default
    def _no_name_to_look_up(self) -> bool:
        return _is_address(self.local_addr)

    @_is_near.default
    def _on_this_machine(self) -> bool:
        if self._is_literal:
            return ipaddress.ip_address(self.local_addr).is_loopback
        return self.local_addr.startswith(_UNIX)

    @_networks.default
    def _parse_networks(self) -> tuple[Network, ...]:
        return tuple(map(ipaddress.ip_network, self.allow_from))

    def become(self, other: LocalProxy) -> None:
        """Be as the other one, at the same published port; who is connected goes on as before."""
        self.local_addr, self.local_port = other.local_addr, other.local_port
        self.proxy_protocol, self.allow_from = other.proxy_protocol, other.allow_from
        self.retries, self.retry_delay = other.retries, other.retry_delay
        self.allow_visitors = other.allow_visitors
        self.guard.become(other.guard)
        self._networks = other._networks
        self._is_literal, self._is_near = other._is_literal, other._is_near
        self._complained = False

    @property
    def place(self) -> tuple[str, str, int, bool]:
        """What makes it the same proxy: its name, and what the server is asked to publish."""
        return self.name, self.publish_addr, self.publish_port, self.visitors_only

    def request(self) -> ProxyRequest:
        """What the server is asked for."""
        return ProxyRequest(
            self.name,
            self.publish_addr,
            self.publish_port,
            self.preferred_port,
            self.local_port,
            self.allow_from,
            self.visitors_only,
            self.allow_visitors,
            self.guard.nonce,
        )

    def published(self, addresses: tuple[Address, ...]) -> None:
        """The server has bound it."""
        self.addresses = addresses
        if not self.publish_port and addresses:
            self.preferred_port = addresses[0].port
        logger.info(
            "Proxy published",
            extra={
                "proxy": self.name,
                "address": ", ".join(map(str, addresses)) or "visitors only",
                "local": self.target,
            },
        )

    @property
    def up(self) -> bool:
        """True while it is published, or can be visited if that is all that is wanted."""
        return bool(self.addresses) or (
            self.visitors_only and isinstance(self.standing.value, Bound)
        )

    @property
    def target(self) -> str:
        """The local service as a log line shows it."""
        if self.local_addr.startswith(_UNIX):
            return self.local_addr
        return str(Address(self.local_addr, self.local_port))

    def statistics(self) -> ProxyStatistics:
        """The proxy now."""
        return ProxyStatistics(
            self.name,
            self.addresses,
            self.local_port,
            self.start_time,
            self.counters.statistics(),
        )

    # --- Dialling ----------------------------------------------------------------------------

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the connections to the local service that are being made, until cancelled.

        Retired, it takes no new visitors, and ends when those who are there are connected.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._retired = trio.Event()
            task_status.started()
            try:
                await self._retired.wait()
            finally:
                self._nursery = None  # nobody is dialled for from now on
                self.addresses = ()

    def retire(self) -> None:
        """It is no longer published."""
        self._retired.set()

    def visit(self, endpoint: DiallingEndpoint, preamble: Preamble) -> None:
        """A visitor has come: connect to the local service, at once if it answers at once."""
        if self._nursery is None:
            endpoint.refuse(ResetCode.CANCELLED)
            return
        if self.visitors_only and not self._may_visit(preamble):
            # The server should have seen to that.
            reason = "its client is not in allow_visitors"
            self._refuse_guest(endpoint, preamble, ResetCode.NOT_ALLOWED, reason)
            return
        if self._networks and not within(preamble.source.host, self._networks):
            self._turn_away(endpoint, preamble)
            return
        if preamble.guest is not None and self.guard.asks:
            answer = self.guard.answer(self.name, self.publish_port, preamble)
            if isinstance(answer, str):
                self._refuse_guest(endpoint, preamble, ResetCode.WRONG_SECRET, answer)
                return
            endpoint.link.send(endpoint.stream_id, answer)
        self._receive(endpoint, preamble, self._nursery)

    def _may_visit(self, preamble: Preamble) -> bool:
        """True for a guest of a client that may visit; a name that it chose itself is none."""
        if preamble.guest is None:
            return False
        return not self.allow_visitors or (
            preamble.assigned and preamble.guest in self.allow_visitors
        )

    def _refuse_guest(
        self, endpoint: DiallingEndpoint, preamble: Preamble, code: ResetCode, reason: str
    ) -> None:
        """Reset it, and say why; not too often, for guests could fill the log."""
        endpoint.refuse(code)
        now = trio.current_time()
        if now >= self._guests_quiet_until:
            self._guests_quiet_until = now + limits.LOCAL_COMPLAINT_INTERVAL
            logger.warning(
                "Visit refused",
                extra={
                    "proxy": self.name,
                    "guest_of": preamble.guest or "",
                    "address": str(preamble.source),
                    "connection": preamble.connection_id.hex(),
                    "reason": reason,
                },
            )

    def _receive(
        self, endpoint: DiallingEndpoint, preamble: Preamble, nursery: trio.Nursery
    ) -> None:
        """Somebody who may visit has come."""
        sock, connected = self._dial_at_once()
        if sock is not None and connected:
            self._hand_over(sock, endpoint, preamble)
        else:
            nursery.start_soon(self._connect, endpoint, preamble, sock, endpoint.waiting())

    def _dial_at_once(self) -> tuple[socket.socket | None, bool]:
        """A connection to the local service, and whether it is made; None if it takes a task."""
        if self._is_literal:
            with contextlib.suppress(OSError):
                return begin_connect(self.local_addr, self.local_port)
        return None, False

    def _turn_away(self, endpoint: DiallingEndpoint, preamble: Preamble) -> None:
        """The server should have done it; one that does not know `allow_from` does not."""
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
                sock.close()  # the visitor went in the moment in which the connection came
            else:
                self._hand_over(sock, endpoint, preamble)
            endpoint.link.flush()

    async def _dial_patiently(
        self, begun: socket.socket | None = None
    ) -> socket.socket | ResetCode:
        """A connection to the local service, or why there is none after the last try."""
        code = ResetCode.NONE
        for attempt in range(1 + self.retries):
            if attempt:
                await trio.sleep(self.retry_delay)
            try:
                with trio.fail_after(limits.LOCAL_CONNECT_TIMEOUT):
                    return await self._dial(begun)
            except (OSError, trio.TooSlowError) as error:
                self._complain(error)
                code = _reset_code(error)
                begun = None
        return code

    async def _dial(self, begun: socket.socket | None) -> socket.socket:
        if begun is not None:
            await finish_connect(begun)
            return begun
        if self.local_addr.startswith(_UNIX):
            return await connect_unix(self.local_addr.removeprefix(_UNIX))
        if self._is_literal:
            return await connect_address(self.local_addr, self.local_port)
        return await connect_tcp(self.local_addr, self.local_port)

    def _hand_over(
        self, sock: socket.socket, endpoint: DiallingEndpoint, preamble: Preamble
    ) -> None:
        self._complained = False
        if not self._is_near:
            keep_alive(sock)
        if self.proxy_protocol is not None:
            header = proxy_v1 if self.proxy_protocol == "v1" else proxy_v2
            try:
                # Nothing is in the socket's buffer yet: it takes a hundred bytes whole.
                sock.send(header(preamble.source, preamble.destination))
            except OSError:
                sock.close()
                endpoint.refuse(ResetCode.LOCAL_RESET)
                return
        visit = CarriedConnection(
            self.name, preamble.connection_id.hex(), self.counters, ResetCode.LOCAL_RESET
        )
        endpoint.connected(sock, visit)

    def _complain(self, error: Exception) -> None:
        """Once, until it works again, and not too often: visitors could fill the log otherwise."""
        now = trio.current_time()
        if not self._complained and now >= self._quiet_until:
            self._complained = True
            self._quiet_until = now + limits.LOCAL_COMPLAINT_INTERVAL
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            logger.warning(
                "Local service unreachable",
                extra={"proxy": self.name, "local": self.target, "reason": reason},
            )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _reset_code(error: Exception) -> ResetCode:
    if isinstance(error, trio.TooSlowError):
        return ResetCode.LOCAL_TIMEOUT
    if getattr(error, "errno", None) == errno.ECONNREFUSED:
        return ResetCode.LOCAL_REFUSED
    return ResetCode.LOCAL_UNREACHABLE
