"""What lives in a running server: what its sessions share, and the sessions themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from tunnel.eventlog import logged_events
from tunnel.events import ClientConnected, ClientDisconnected, End, EndReason, EventStream
from tunnel.model import Address
from tunnel.net.contexts import ServerTls
from tunnel.net.control import Control
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.net.tls import TlsStream
from tunnel.protocol.keys import Verifier
from tunnel.protocol.messages import Message, Reconfigure, Unknown
from tunnel.server.admission import Admission, Judge
from tunnel.server.client_visits import ClientVisits
from tunnel.server.directory import Directory
from tunnel.server.identity import Identities, Identity
from tunnel.server.limited_events import LimitedEvents
from tunnel.server.policy import Policy
from tunnel.server.proxies import Proxies
from tunnel.server.registry import Owner, Registration, Registry
from tunnel.server.strangers import Strangers
from tunnel.stats import Tally
from tunnel.views import SessionStatistics
from tunnel.yamux import Role, Settings


@attrs.define(eq=False)
class Server:
    """What all sessions of a server share.

    Args:
      policy: what is asked of every client; replaced as a whole.
      tls: the certificate that is shown now; a connection keeps the one it began with.
      identities: the keys that it knows, and what each of them allows; replaced as a whole.
      dummy: what unknown keys are checked against.
      events: told what happens.
      judge: asked for every visitor that may come in otherwise; see `Judge`.
      reserved: the ports that the program itself listens on, which no rules may allow.
    """

    policy: Policy
    tls: ServerTls
    identities: Identities
    dummy: Verifier
    events: EventStream = attrs.field(factory=logged_events, kw_only=True)
    judge: Judge | None = attrs.field(default=None, kw_only=True)
    reserved: frozenset[int] = attrs.field(default=frozenset(), kw_only=True)
    directory: Directory = attrs.field(factory=Directory, init=False)
    #: Those whose clients were told that they are connected, by id.
    sessions: dict[str, Session] = attrs.field(factory=dict, init=False)
    draining: trio.Event = attrs.field(factory=trio.Event, init=False)
    #: What it turned away, by reason.
    tally: Tally = attrs.field(factory=Tally, init=False)
    registry: Registry = attrs.field(init=False)
    #: Events that strangers can cause.
    limited: LimitedEvents = attrs.field(init=False)
    #: Connections that have not proved anything yet.
    strangers: Strangers = attrs.field(init=False)
    #: What the visitors of all proxies share.
    admission: Admission = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        policy, tally, events = self.policy, self.tally, self.events
        self.registry = Registry(events)
        self.limited = LimitedEvents(events)
        self.strangers = Strangers(policy, tally=tally, events=events)
        self.admission = Admission(policy, tally=tally, events=events, judge=self.judge)

    def update(self, policy: Policy, identities: Identities) -> None:
        """Ask other things of every client, and allow it others; sessions without a key end."""
        self.strangers.update(policy)
        self.admission.update(policy)
        identities.take_over_quotas(self.identities)
        self.policy, self.identities = policy, identities
        for session in tuple(self.sessions.values()):
            session.update(identities)

    @contextmanager
    def present(self, session: Session) -> Iterator[None]:
        """Have a session known, and tell that its client is connected; not known after the block.

        What is told after its end is told without it: nothing outlives the telling.
        """
        self.sessions[session.session_id] = session
        try:
            session.update(self.identities)  # they may have changed meanwhile
            self.events.emit(session.connected())
            yield
        finally:
            del self.sessions[session.session_id]


@attrs.frozen
class Proved:
    """What a client has proved to be, and says of itself.

    Args:
      owner: whose session it is.
      identity: what its key allows.
      name: what it is called.
      instance_id: the client's process.
      attempt: which connection of that process it is.
      address: where it connects from.
    """

    owner: Owner
    identity: Identity
    name: str
    instance_id: str
    attempt: int
    address: Address


class Session:
    """A client that has proved itself: who it is, the link to it, what it wants published.

    Args:
      session_id: for logs.
      client: who it is.
      server: what it shares with the others.
      tls: the connection to it.
      settings: of the link.
    """

    def __init__(
        self,
        session_id: str,
        client: Proved,
        server: Server,
        tls: TlsStream,
        settings: Settings,
    ) -> None:
        self.session_id = session_id
        self.identity = client.identity
        self.started = trio.current_time()
        #: Around all that must be over before the link runs; cancelled by `evict`. To end the link
        #: is not enough then: it ends when it runs, and binding may wait for seconds, for a silent
        #: session that is in the way, while the newcomer waits for this one.
        self.setup = trio.CancelScope()
        #: Why it was told to end before that.
        self.evicted: End | None = None
        #: Set when the client has opened the control stream.
        self.reachable = trio.Event()
        self._control: Control | None = None
        self._unsaid: list[Message] = []
        self.link = Link(tls, Role.SERVER, settings, self._accept, carrier=server.policy.carrier)
        self.registration = Registration(
            client.owner,
            client.instance_id,
            client.attempt,
            client.name,
            client.address,
            self.evict,
            self.link.answers,
            client.identity.max_proxies,
            client.identity.name is not None,
        )
        self.proxies = Proxies(
            self.registration,
            client.identity.rules,
            client.identity.quota,
            server.registry,
            server.directory,
            server.admission,
            server.events,
            self.link,
            self.say,
        )
        here = tls.transport.own_address()
        self.visits = ClientVisits(
            server.directory, server.admission, self.registration, here, self.say
        )

    def _accept(self, link: Link, stream_id: int) -> Endpoint | None:
        """The first stream that the client opens is the control stream; the others are visits."""
        if self._control is not None:
            return self.visits.accept(link, stream_id)
        self._control = Control(link, stream_id, self._on_notice)
        for notice in self._unsaid:
            self._control.say(notice)
        self.reachable.set()
        return self._control

    def _on_notice(self, notice: Message | Unknown) -> None:
        """What a later client says besides is ignored."""
        if isinstance(notice, Reconfigure):
            self.proxies.reconfigure(notice)
            if notice.visitors is not None:
                self.link.spawn(self.visits.change, notice.visitors)

    def say(self, notice: Message) -> None:
        """Tell the client something, as soon as it can be told."""
        if self._control is None:
            self._unsaid.append(notice)
        else:
            self._control.say(notice)
            self.link.flush()

    def update(self, identities: Identities) -> None:
        """Be allowed what is allowed now; end if the key is not known any more."""
        identity = identities.find(bytes.fromhex(self.registration.owner.identity))
        if identity is None:
            self.link.end("its key was taken out of the configuration")
        elif identity is not self.identity:
            self.identity, self.registration.max_proxies = identity, identity.max_proxies
            self.proxies.update(identity.rules)

    def evict(self, reason: str) -> None:
        """End the session at once, even while its ports are still being bound."""
        self.evicted = End(EndReason.TAKEN_OVER, reason)
        self.link.lose(reason, EndReason.TAKEN_OVER)
        self.setup.cancel()

    def connected(self) -> ClientConnected:
        """The event: its ports are bound, and its client knows."""
        return ClientConnected(
            self.registration.name,
            self.registration.address,
            self.session_id,
            sum(1 for proxy in self.proxies if proxy.up),
        )

    def disconnected(self, end: End) -> ClientDisconnected:
        """The event: the session is over, and its ports are free."""
        return ClientDisconnected(
            self.registration.name,
            self.session_id,
            end.text,
            self.registration.address,
            end.reason,
            trio.current_time() - self.started,
        )

    def statistics(self) -> SessionStatistics:
        """The session now."""
        return SessionStatistics(
            self.registration.name,
            self.registration.address,
            self.session_id,
            self.link.carrier.count,
            self.link.rtt,
            tuple(proxy.statistics() for proxy in self.proxies if proxy.up),
        )
