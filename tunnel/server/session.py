"""One client's whole life on the server."""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import ssl

import attrs
import trio

from tunnel import limits
from tunnel._version import __version__
from tunnel.errors import Refused, RemoteProtocolError
from tunnel.eventlog import logged_events
from tunnel.events import EndReason, EventStream
from tunnel.model import Address, RefusalCode
from tunnel.net.contexts import ALPN, ServerTls
from tunnel.net.control import Control
from tunnel.net.endpoint import Endpoint
from tunnel.net.framed import next_event
from tunnel.net.link import Link
from tunnel.net.settings import link_settings
from tunnel.net.tls import TlsStream
from tunnel.net.transport import Transport
from tunnel.protocol.handshake import Binding, ClientProved, ConfigureReceived, ServerHandshake
from tunnel.protocol.keys import Verifier
from tunnel.protocol.messages import (
    RECONFIGURE,
    VISITORS,
    Bound,
    Capabilities,
    Message,
    Reconfigure,
    Rejected,
    Stopping,
    Unknown,
)
from tunnel.server import announce
from tunnel.server.complaints import Complaints
from tunnel.server.identity import Identities, Identity, certificate_names
from tunnel.server.listener import Proxy
from tunnel.server.policy import Policy
from tunnel.server.ports import Ports
from tunnel.server.publish import Publisher
from tunnel.server.registry import Owner, Registry, Seat
from tunnel.server.strangers import Stranger, Strangers
from tunnel.server.targets import Targets
from tunnel.server.visitors import Judge, Lobby
from tunnel.server.visits import Visits
from tunnel.stats import Tally
from tunnel.views import SessionStatistics
from tunnel.yamux import Role

logger = logging.getLogger(__name__)


#: What this end can take.
OWN = Capabilities(features=(RECONFIGURE, VISITORS))


@attrs.define(eq=False)
class Server:
    """What all sessions of a server share.

    Args:
      policy: what is asked of every client.
      tls: the certificate that is shown now; a connection keeps the one it began with.
      identities: the keys that it knows, and what each of them allows.
      dummy: what unknown keys are checked against.
    """

    policy: Policy
    tls: ServerTls
    identities: Identities
    dummy: Verifier
    #: Told what happens.
    events: EventStream = attrs.field(factory=logged_events, kw_only=True)
    #: Asked for every visitor that may come in otherwise; a text refuses it. It must not wait.
    judge: Judge | None = attrs.field(default=None, kw_only=True)
    registry: Registry = attrs.field(factory=Registry, init=False)
    targets: Targets = attrs.field(factory=Targets, init=False)
    sessions: dict[str, Session] = attrs.field(factory=dict, init=False)
    draining: trio.Event = attrs.field(factory=trio.Event, init=False)
    #: Whom it turned away, by reason.
    tally: Tally = attrs.field(factory=Tally, init=False)
    #: Log lines that strangers can cause.
    complaints: Complaints = attrs.field(init=False)
    #: Connections that have not proved anything yet.
    strangers: Strangers = attrs.field(init=False)
    #: What the visitors of all proxies share.
    lobby: Lobby = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        policy = self.policy
        self.complaints = Complaints(logger)
        self.strangers = Strangers(
            places=policy.max_unauthenticated, rate=policy.rate, tally=self.tally
        )
        self.lobby = Lobby(
            per_proxy=policy.max_connections_per_proxy,
            per_visitor=policy.max_connections_per_visitor,
            tally=self.tally,
            judge=self.judge,
        )

    def become(self, policy: Policy, identities: Identities) -> None:
        """Ask of every client, and allow it, something else; whose key is gone is ended."""
        if policy.rate != self.policy.rate or (
            policy.max_unauthenticated != self.policy.max_unauthenticated
        ):
            self.strangers.bound(policy.max_unauthenticated, policy.rate)
        self.lobby.per_proxy = policy.max_connections_per_proxy
        self.lobby.crowd.limit = policy.max_connections_per_visitor
        identities.succeed(self.identities)
        self.policy, self.identities = policy, identities
        for session in tuple(self.sessions.values()):
            session.obey(identities)


class Session:
    """A client that has proved itself: who it is, the link to it, what it wants published."""

    def __init__(
        self,
        session_id: str,
        seat: Seat,
        identity: Identity,
        server: Server,
        here: Address,
    ) -> None:
        self.session_id = session_id
        self.seat = seat
        self.identity = identity
        self.ports = Ports(server.lobby, seat.name, identity.room, self.say)
        self.visits = Visits(server.targets, server.lobby, seat, here, self.say)
        self.started = trio.current_time()
        self.link: Link
        #: Up to the moment in which the link runs.
        self.arriving = trio.CancelScope()
        #: Set when the client has opened the control stream.
        self.reachable = trio.Event()
        self._control: Control | None = None
        self._unsaid: list[Message] = []

    def accept(self, link: Link, stream_id: int) -> Endpoint | None:
        """The first stream that the client opens is the control stream; the others are visits."""
        if self._control is not None:
            return self.visits.accept(link, stream_id)
        self._control = Control(link, stream_id, self._heard)
        for notice in self._unsaid:
            self._control.say(notice)
        self.reachable.set()
        return self._control

    def _heard(self, notice: Message | Unknown) -> None:
        """What a later client says besides is ignored."""
        if isinstance(notice, Reconfigure):
            self.ports.change(notice)
            if notice.visitors is not None:
                self.link.spawn(self.visits.change, notice.visitors)

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """What the client wants published."""
        return tuple(self.ports.proxies.values())

    def obey(self, identities: Identities) -> None:
        """Be allowed what is allowed now, from now on; end if the key is not known any more."""
        identity = identities.find(bytes.fromhex(self.seat.owner.identity))
        if identity is None:
            self.link.end("its key was taken out of the configuration")
        elif identity is not self.identity:
            self.identity, self.seat.max_proxies = identity, identity.max_proxies
            self.ports.obey(identity.rules)

    def evict(self, text: str) -> None:
        """End the session at once, even while its ports are still being bound."""
        self.link.lose(text, EndReason.TAKEN_OVER)
        self.arriving.cancel()

    def say(self, notice: Message) -> None:
        """Tell the client something, as soon as it can be told."""
        if self._control is None:
            self._unsaid.append(notice)
        else:
            self._control.say(notice)
            self.link.flush()

    def statistics(self) -> SessionStatistics:
        """The session now."""
        return SessionStatistics(
            self.seat.name,
            self.seat.address,
            self.session_id,
            self.link.carrier.count,
            self.link.rtt,
            tuple(proxy.statistics() for proxy in self.proxies if proxy.up),
        )


async def serve_client(transport: Transport, server: Server, stranger: Stranger) -> None:
    """One client's whole life: TLS, proofs, its ghost gone, ports up, traffic, ports down.

    Nothing that a peer can cause is raised: each such end is a log line.
    """
    tls = TlsStream(transport, server.tls.context, server_side=True)
    handshake = _handshake(server)
    address = stranger.address
    try:
        with trio.fail_after(server.policy.handshake_timeout) as patience:
            session = await _meet(tls, handshake, stranger, server)
            patience.deadline += limits.PROBE_LONGEST  # asking a ghost takes time of its own
            async with server.registry.seat(session.seat):
                async with trio.open_nursery() as nursery:
                    with session.arriving:
                        answers = await nursery.start(_hold_ports, session, server)
                        await tls.send_all(handshake.configured(answers))
                        patience.deadline = math.inf
                        server.sessions[session.session_id] = session
                        session.obey(server.identities)  # they may have changed meanwhile
                        announce.connected(session, server.lobby)
                    with session.visits.living():
                        end = await session.link.run()
                    nursery.cancel_scope.cancel()
            announce.disconnected(session, end, server.lobby)
    except* Refused as group:
        await _refuse(tls, handshake, server, address, group.exceptions[0])
    except* RemoteProtocolError as group:
        await _refuse(tls, handshake, server, address, group.exceptions[0])
    except* (OSError, trio.BrokenResourceError) as group:
        _log_failed(server, address, str(group.exceptions[0]))
    except* trio.TooSlowError:
        _log_failed(server, address, "too slow")
    finally:
        server.sessions.pop(handshake.session_id, None)
        tls.abort()


# --- Getting to know each other ---------------------------------------------------------------


def _handshake(server: Server) -> ServerHandshake:
    return ServerHandshake(
        lookup=server.identities.verifier,
        dummy=server.dummy,
        binding=Binding("certificate", server.tls.leaf_hash),
        nonce=secrets.token_bytes(32),
        session_id=secrets.token_hex(16),
        capabilities=OWN,
        server_version=__version__,
    )


async def _meet(
    tls: TlsStream, handshake: ServerHandshake, stranger: Stranger, server: Server
) -> Session:
    """TLS, then the handshake up to what the client wants published."""
    await _shake_hands(tls)
    if tls.alpn != ALPN:
        raise trio.BrokenResourceError(f"not a client: it does not speak {ALPN}")
    await tls.send_all(handshake.challenge())
    try:
        proved = await next_event(handshake, tls)
    except Refused as error:
        if error.code == RefusalCode.AUTHENTICATION:
            error.retry_after = server.strangers.failed(stranger)
        raise
    assert isinstance(proved, ClientProved)  # the handshake's table  # noqa: S101
    server.strangers.proved(stranger)
    if (identity := server.identities.find(proved.key_id)) is None:
        raise Refused(RefusalCode.AUTHENTICATION, "the key was taken out of the configuration")
    if (certificate := tls.peer_certificate()) is not None:
        identity.check_certificate(certificate_names(certificate))
    name = server.identities.name(proved.key_id, proved.name)
    await tls.send_all(handshake.accept(name=name))
    wanted = await next_event(handshake, tls)
    assert isinstance(wanted, ConfigureReceived)  # the same  # noqa: S101
    owner = Owner(proved.key_id.hex(), proved.client_id)
    seat = Seat(
        owner,
        proved.instance_id,
        proved.attempt,
        name,
        stranger.address,
        identity.max_proxies,
        identity.name is not None,
    )
    return _session(tls, handshake, seat, identity, proved.capabilities, wanted, server)


async def _shake_hands(tls: TlsStream) -> None:
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            await tls.refuse()  # or the alert, which says why, would be overtaken by a reset
        raise


def _session(
    tls: TlsStream,
    handshake: ServerHandshake,
    seat: Seat,
    identity: Identity,
    theirs: Capabilities,
    wanted: ConfigureReceived,
    server: Server,
) -> Session:
    session = Session(handshake.session_id, seat, identity, server, tls.transport.own_address())
    session.ports.want(wanted.proxies)
    session.visits.want(wanted.visitors)
    policy = server.policy
    settings = link_settings(
        OWN,
        theirs,
        keepalive_interval=policy.keepalive_interval,
        keepalive_timeout=policy.keepalive_timeout,
    )
    session.link = Link(tls, Role.SERVER, settings, session.accept, carrier=policy.carrier)
    seat.evict, seat.probe = session.evict, session.link.answers
    return session


async def _refuse(
    tls: TlsStream,
    handshake: ServerHandshake,
    server: Server,
    address: Address,
    error: BaseException,
) -> None:
    """Say no so that it arrives, and log it once."""
    if not isinstance(error, Refused):
        error = Refused(RefusalCode.PROTOCOL, str(error))
    event = "Authentication failed" if error.code == RefusalCode.AUTHENTICATION else "Refused"
    server.complaints.say(
        logging.WARNING,
        event,
        kind=error.code,
        address=str(address),
        code=error.code,
        reason=error.text,
    )
    with trio.move_on_after(limits.REFUSAL_DRAIN_TIMEOUT):
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await tls.send_all(handshake.refuse(error.code, error.text, error.retry_after))
            await tls.refuse()


# --- Ports ------------------------------------------------------------------------------------


async def _hold_ports(
    session: Session,
    server: Server,
    *,
    task_status: trio.TaskStatus[tuple[Bound | Rejected, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Own the session's listeners, until the server drains; then let what lives finish."""
    async with trio.open_nursery() as nursery:
        rules = session.identity.rules
        publisher = Publisher(
            nursery, rules, session.seat, server.registry, server.targets, session.link
        )
        task_status.started(await session.ports.publish(publisher))
        await server.draining.wait()
        session.ports.close()
        nursery.cancel_scope.cancel()
    session.say(Stopping())
    with trio.move_on_after(server.policy.shutdown_grace):
        await session.reachable.wait()
        await session.link.carrier.wait_idle()
    session.link.end("the server stops", EndReason.STOPPED)


# --- Log lines --------------------------------------------------------------------------------


def _log_failed(server: Server, address: Address, reason: str) -> None:
    server.complaints.say(logging.INFO, "Handshake failed", address=str(address), reason=reason)
