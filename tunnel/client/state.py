"""What lives in a running client: what its sessions share, and the sessions themselves."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio
from trio_util import AsyncValue

from tunnel.client.proxy import DiallingEndpoint, LocalProxy
from tunnel.client.settings import ClientSettings
from tunnel.client.visit_port import VisitPort
from tunnel.errors import RemoteProtocolError, TunnelError
from tunnel.eventlog import logged_events
from tunnel.events import EndReason, EventStream, OwnProxyRemoved, ServerStopping
from tunnel.net.clock import SleepDetector, sleep_while_awake
from tunnel.net.control import Control
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.net.settings import link_settings
from tunnel.net.tls import TlsStream
from tunnel.protocol.handshake import ServerProved
from tunnel.protocol.messages import (
    RECONFIGURE,
    VISITORS,
    Bound,
    Capabilities,
    Message,
    ProxyRequest,
    Reconfigure,
    Reconfigured,
    Rejected,
    Stopping,
    Target,
    Unknown,
)
from tunnel.views import ClientState
from tunnel.yamux import Role

logger = logging.getLogger(__name__)

#: What this end can take.
OWN = Capabilities(features=(RECONFIGURE, VISITORS))
#: What a link that is ended for another configuration is ended with.
_CHANGED = "the configuration has changed"


@attrs.define(eq=False)
class Client:
    """What all sessions of a client share.

    Args:
      settings: what the configuration says of it now.
      client_id: made once per configuration.
      proxies: what to publish.
      visit_ports: the local ports that lead to other clients' proxies.
      events: told what happens.
      gives_up: asked after each attempt and each session why it ended; True ends the reconnect loop
        with that error.
    """

    settings: ClientSettings
    client_id: str
    proxies: tuple[LocalProxy, ...] = ()
    visit_ports: tuple[VisitPort, ...] = attrs.field(default=(), kw_only=True)
    events: EventStream = attrs.field(factory=logged_events, kw_only=True)
    gives_up: Callable[[TunnelError], bool] = attrs.field(default=lambda _: False, kw_only=True)
    #: The server that answered last, as it was dialled.
    host: str | None = attrs.field(default=None, init=False)
    #: Made once per process: tells a restart from a reconnect.
    instance_id: str = attrs.field(factory=lambda: secrets.token_hex(16), init=False)
    #: Where the reconnect loop is.
    state: AsyncValue[ClientState] = attrs.field(
        factory=lambda: AsyncValue(ClientState.CONNECTING), init=False
    )
    #: The session that lives, once it is connected; None while there is none.
    session: ClientSession | None = attrs.field(default=None, init=False)
    #: Cancelled to try at once, and not after a delay.
    pause: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    #: True if the next session is to begin at once.
    anew: bool = attrs.field(default=False, init=False)

    def update(self, other: Client, *, anew: bool) -> None:
        """Do what another configuration says; returns at once, while it is being done.

        Args:
          other: a client made from it, which was never run. Its ids count for nothing. Proxies that
            it has in the same place stay published.
          anew: in a session of its own; else the one that lives is changed.
        """
        former = {proxy.place: proxy for proxy in self.proxies}
        for proxy in other.proxies:
            if proxy.place in former:
                former[proxy.place].update(proxy.spec)
        self.proxies = tuple(former.get(proxy.place, proxy) for proxy in other.proxies)
        self.anew = self.anew or anew or self._secrets() != other._secrets()
        self.settings, self.visit_ports = other.settings, other.visit_ports
        if self.anew:
            self.pause.cancel()
        if self.session is not None:
            self.session.update(self.proxies, anew=self.anew)

    @contextmanager
    def present(self, session: ClientSession) -> Iterator[None]:
        """Have a session known to whoever looks at the client, within this block."""
        self.session = session
        try:
            yield
        finally:
            self.session = None

    def _secrets(self) -> tuple[object, ...]:
        """What a session begins with, and a file elsewhere may have another of."""
        return self.settings.keys, *(port.visit_key for port in self.visit_ports)


@attrs.frozen
class Agreement:
    """What the handshake has settled.

    Args:
      server: what the server takes part in, and what it calls this client.
      requests: each proxy that was asked for, and how: it may have changed meanwhile.
      answers: what the server said to each of them.
      visit_ports: the local ports whose targets were asked for, in the order of their numbers.
      early: bytes that were read past the handshake; they are the link's.
    """

    server: ServerProved
    requests: tuple[tuple[LocalProxy, ProxyRequest], ...]
    answers: tuple[Bound | Rejected, ...]
    visit_ports: tuple[VisitPort, ...]
    early: bytes


class ClientSession:
    """A client and a server that have agreed: the link, and the proxies by the server's ids.

    Args:
      nursery: where its tasks run; cancelled when the link is lost.
      tls: what the link runs over.
      client: whose session it is.
      agreement: what `meet` returned.
    """

    def __init__(
        self, nursery: trio.Nursery, tls: TlsStream, client: Client, agreement: Agreement
    ) -> None:
        self._nursery = nursery
        self._client = client
        self._events = client.events
        self._agreement = agreement
        self._features = agreement.server.capabilities.features
        #: When the session began, in Unix time.
        self.since = time.time()
        #: True once the server has said that it stops.
        self.server_stopping = False
        #: By the ids that the server knows them by.
        self.proxies: dict[int, LocalProxy] = {}
        #: What the server was asked for.
        self._requests: dict[int, ProxyRequest] = {}
        for (proxy, request), answer in zip(agreement.requests, agreement.answers, strict=True):
            self._add(answer.proxy_id, proxy, request)
        self._next_id = max(self.proxies, default=-1) + 1
        self._visit_ports = dict(enumerate(agreement.visit_ports))
        self._wanted = tuple(self.proxies.values())
        #: True while a task tells the server what is wanted.
        self._reconfiguring = False
        #: The ids that the server's next answer is about, while one is waited for.
        self._due: tuple[int, ...] | None = None
        self._answered = trio.Event()
        self.link = self._make_link(tls)
        # The session ends with the control stream.
        stream_id = self.link.open_stream()
        self._control = Control(self.link, stream_id, self._on_notice)
        self.link.attach(stream_id, self._control)

    def _make_link(self, tls: TlsStream) -> Link:
        client = self._client
        settings = link_settings(
            OWN,
            self._agreement.server.capabilities,
            keepalive_interval=client.settings.keepalive_interval,
            keepalive_timeout=client.settings.keepalive_timeout,
        )
        return Link(
            tls,
            Role.CLIENT,
            settings,
            self._accept,
            carrier=client.settings.carrier,
            early=self._agreement.early,
        )

    def _accept(self, link: Link, stream_id: int) -> Endpoint:
        """Every stream that the server opens is a visitor's."""
        return DiallingEndpoint(link, stream_id, self.proxies, self._events)

    async def serve_visit_ports(self) -> None:
        """Own the local ports that lead to other clients' proxies, until cancelled."""
        if self._visit_ports and VISITORS not in self._features:
            logger.warning("Server knows no visits", extra={"remedy": "update the server"})
            return
        async with trio.open_nursery() as nursery:
            for number, port in self._visit_ports.items():
                nursery.start_soon(port.serve, number, self.link, self._agreement.server.name)

    async def attend(self) -> None:
        """See to what may change meanwhile: the configuration, and whether the server is there.

        When this machine has slept the server is asked for a sign of life: most likely it gave up.
        Runs until cancelled.
        """
        await self.link.running.wait()
        # The configuration may have changed since the server was asked.
        self.update(self._client.proxies, anew=self._client.anew)
        detector = SleepDetector()
        while True:
            await sleep_while_awake(math.inf, detector)
            if not await self.link.answers():
                self.link.lose("no sign of life since this machine slept", EndReason.SILENCE)

    def release(self) -> None:
        """The session is over, and every task of it has ended: no proxy belongs to it any more."""
        for proxy in self.proxies.values():
            proxy.end_session()

    # --- What the server says ----------------------------------------------------------------

    def _on_notice(self, notice: Message | Unknown) -> None:
        match notice:
            case Bound() | Rejected() if notice.proxy_id in self.proxies:
                self.proxies[notice.proxy_id].on_answer(notice)
            case Reconfigured(answers):
                self._on_reconfigured(answers)
            case Target() if notice.visitor_id in self._visit_ports:
                self._visit_ports[notice.visitor_id].on_notice(notice)
            case Stopping():
                self._events.emit(ServerStopping(self.link.carrier.count))
                self.server_stopping = True
            case _:
                logger.debug("Notice ignored", extra={"notice": notice.kind})

    def on_answers(self, answers: tuple[Bound | Rejected, ...]) -> None:
        """The server has published proxies that it was asked for, or has not.

        Raises:
          RemoteProtocolError: an answer does not fit what was asked.
        """
        for answer in answers:
            self.proxies[answer.proxy_id].on_answer(answer)

    def _on_reconfigured(self, answers: tuple[Bound | Rejected, ...]) -> None:
        if self._due != tuple(answer.proxy_id for answer in answers):
            raise RemoteProtocolError("reconfigured does not answer what was asked")
        self._due = None
        self.on_answers(answers)
        self._answered.set()

    # --- Changes -----------------------------------------------------------------------------

    def update(self, proxies: tuple[LocalProxy, ...], *, anew: bool) -> None:
        """Begin to publish exactly these proxies; those that are published already stay.

        Before that is done it may be called again: the newest counts.

        Args:
          proxies: what the configuration says now.
          anew: end this session, and leave them to the next one.
        """
        if anew:
            self.link.end(_CHANGED)
            return
        self._wanted = proxies
        if not self._reconfiguring and self._difference():
            self._reconfiguring = True
            self._nursery.start_soon(self._reconfigure)

    def _ask_again(self) -> None:
        """What is wanted is to be asked for in another way."""
        self.update(self._wanted, anew=False)

    async def _reconfigure(self) -> None:
        """Tell the server what is different until nothing is."""
        while difference := self._difference():
            if not self._can_reconfigure():
                logger.warning(
                    "Server cannot change a session",
                    extra={"consequence": "connecting anew; update the server"},
                )
                self.link.end(_CHANGED)
                return
            await self._request(difference)
        self._reconfiguring = False

    def _can_reconfigure(self) -> bool:
        """True if the server can be asked for what is wanted.

        One that knows no visits would publish for everybody what is for visitors only.
        """
        private = any(proxy.spec.visitors_only for proxy in self._wanted)
        return RECONFIGURE in self._features and not (private and VISITORS not in self._features)

    def _difference(self) -> tuple[int | LocalProxy, ...]:
        """The ids to remove, and the proxies that the server does not know as they are now."""
        known = {proxy: self._requests[number] for number, proxy in self.proxies.items()}
        removed = (number for number, proxy in self.proxies.items() if proxy not in self._wanted)
        changed = (it for it in self._wanted if known.get(it) != _comparable(it.request()))
        return *removed, *changed

    async def _request(self, difference: tuple[int | LocalProxy, ...]) -> None:
        """Tell the server of a difference, and wait until it is done."""
        numbers = {proxy: number for number, proxy in self.proxies.items()}
        removed, requests = [], []
        for item in difference:
            if isinstance(item, int):
                removed.append(item)
                continue
            number = numbers.get(item)
            if number is None:
                # Before the server is asked: visitors may come before its answer.
                number = await self._start_proxy(item)
            request = item.request()
            self._requests[number] = _comparable(request)
            requests.append((number, request))
        self._due, self._answered = tuple(number for number, _ in requests), trio.Event()
        self._control.say(Reconfigure(tuple(removed), tuple(requests)))
        self.link.flush()
        await self._answered.wait()
        for number in removed:
            self._remove(number)

    async def _start_proxy(self, proxy: LocalProxy) -> int:
        """Have a further proxy take visitors; returns the id that it gets."""
        number, self._next_id = self._next_id, self._next_id + 1
        await self._nursery.start(proxy.serve, self._events)
        proxy.begin_session(self._agreement.server.name)
        self._add(number, proxy, proxy.request())
        return number

    def _add(self, number: int, proxy: LocalProxy, request: ProxyRequest) -> None:
        self.proxies[number] = proxy
        self._requests[number] = _comparable(request)
        proxy.guard.on_renewal = self._ask_again

    def _remove(self, number: int) -> None:
        proxy = self.proxies.pop(number)
        del self._requests[number]
        proxy.retire()
        proxy.end_session()
        self._events.emit(OwnProxyRemoved(proxy.name))


def _comparable(request: ProxyRequest) -> ProxyRequest:
    """What is asked for, without what only helps to find a port."""
    return attrs.evolve(request, preferred_port=0)
