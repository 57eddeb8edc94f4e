"""A proxy as the server keeps it: what its client asked for, and what became of it."""

from __future__ import annotations

import ipaddress
import logging
import time

import attrs
import trio

from tunnel.model import Address
from tunnel.protocol.messages import Bound, ProxyRequest, Rejected
from tunnel.server.admission import ProxyAdmission
from tunnel.stats import Counters
from tunnel.views import ProxyStatistics

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Proxy:
    """What a client wants published.

    Args:
      proxy_id: what both ends call it.
      request: what the client asks for now; replaced as a whole.
      admission: which visitors may come in.
    """

    proxy_id: int
    request: ProxyRequest
    admission: ProxyAdmission
    start_time: float = attrs.field(factory=time.time)
    counters: Counters = attrs.field(factory=Counters)
    #: Where visitors reach it now; empty while it is not published.
    addresses: tuple[Address, ...] = ()
    #: Other clients can visit it now.
    visitable: bool = False
    #: What its client was told of it last; None before it was tried.
    answer: Bound | Rejected | None = None
    #: Around the task that serves it.
    _scope: trio.CancelScope | None = attrs.field(default=None, init=False)
    _gone: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.update(self.request)

    def update(self, request: ProxyRequest) -> None:
        """What the client asks for now; the port, and visitors that are connected, stay."""
        self.request = request
        self.admission.allow_from = tuple(map(ipaddress.ip_network, request.allow_from))

    @property
    def name(self) -> str:
        """Its name, unique in its session."""
        return self.request.name

    @property
    def host(self) -> str:
        """The address to publish it on."""
        return self.request.publish_addr

    @property
    def port(self) -> int:
        """The port to publish it at; 0 is any."""
        return self.request.publish_port

    @property
    def visitors_only(self) -> bool:
        """Without a public port: only other clients visit it."""
        return self.request.visitors_only

    @property
    def up(self) -> bool:
        """True while it is published, or can be visited if that is all that is wanted."""
        return bool(self.addresses) or (self.visitors_only and self.visitable)

    @property
    def wanted(self) -> bool:
        """True while a task serves it, or waits for what it needs."""
        return self._scope is not None

    def cancellable(self) -> trio.CancelScope:
        """A scope for all that the task waits for which serves it: `withdraw` cancels that."""
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        return self._scope

    def withdrawn(self) -> None:
        """That task has ended, and everything of it is free."""
        self._scope = None
        self._gone.set()

    async def withdraw(self) -> None:
        """End that task; everything of it is free on return. Connected visitors go on.

        Cancelled, it returns early, and the task ends all the same.
        """
        if self._scope is not None:
            self._scope.cancel()
            await self._gone.wait()

    def statistics(self) -> ProxyStatistics:
        """The proxy now."""
        return ProxyStatistics(
            self.name,
            self.addresses,
            self.request.local_port,
            self.start_time,
            self.counters.statistics(),
        )
