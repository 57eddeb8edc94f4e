"""What happens in a running server or client, as values: one stream, and whoever listens to it.

The log, the journal behind `/events`, the metrics, the audit log and the library's `events()` are
subscribers of the same stream. An event knows the line that the log has for it; nobody reads that
line to learn what happened.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Final, Literal, TypeAlias

import attrs

from tunnel.model import Address, RefusalCode, RejectionCode, ResetCode

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Details: TypeAlias = dict[str, object]


class EndReason(enum.StrEnum):
    """Why a session, or an attempt to begin one, came to its end; the label of a metric."""

    #: A later connection of the same client took its place.
    TAKEN_OVER = "taken_over"
    #: The other side has given no sign of life.
    SILENCE = "silence"
    #: The server stops.
    STOPPED = "stopped"
    #: The other side broke the protocol, or says that this side did.
    PROTOCOL = "protocol"
    #: It took longer than it may.
    TOO_SLOW = "too_slow"
    #: What connected to the server's port is no client.
    NOT_A_CLIENT = "not_a_client"
    #: The other side closed the connection properly.
    CLOSED = "closed"
    #: The connection ended in the middle of something.
    CUT = "cut"
    #: This side ended it.
    ENDED = "ended"
    #: Anything else, such as what a system says of a socket.
    OTHER = "other"


@attrs.frozen
class End:
    """How something came to its end: the reason, for programs, and in words, for people."""

    reason: EndReason
    text: str


class Event:
    """Something that happened.

    Args (of the class, not of the event):
      text: the log's line, which scripts may look for; empty if the log has none.
      level: how much it matters.
      kind: what the journal files it under.
      logger: the logger that the line goes to.
    """

    __slots__ = ()

    kind: ClassVar[str] = "other"
    logger: ClassVar[str] = "tunnel"

    @property
    def text(self) -> str:
        """The log's line; some depend on what happened."""
        return ""

    @property
    def level(self) -> Level:
        """How much it matters; the same."""
        return "info"

    def details(self) -> Details:
        """What the log line says besides, by the keys that scripts rely on."""
        return {}


class _ServerEvent(Event):
    __slots__ = ()
    logger = "tunnel.server"


class _ClientEvent(Event):
    __slots__ = ()
    logger = "tunnel.client"


# --- A server --------------------------------------------------------------------------------


@attrs.frozen
class ServerListening(_ServerEvent):
    """Clients can connect; `pin` is what they may trust the server by."""

    text = "Server listening"
    kind = "listening"
    address: Address
    pin: str

    def details(self) -> Details:
        """See `Event`."""
        return {"address": str(self.address), "pin": self.pin}


@attrs.frozen
class ServerStopped(_ServerEvent):
    """The server has ended, and every port is free."""

    text = "Server stopped"
    kind = "stopping"


@attrs.frozen
class ClientConnected(_ServerEvent):
    """A client has connected; what it publishes was told before.

    `session` is the `session_id` of its `SessionStatistics`; logs have the first eight characters.
    `proxies` is how many of its proxies are published.
    """

    text = "Client connected"
    kind = "connected"
    client: str
    address: Address
    session: str
    proxies: int = attrs.field(default=0, eq=False)

    def details(self) -> Details:
        """See `Event`."""
        return {
            "client": self.client,
            "address": str(self.address),
            "session": self.session[:8],
            "proxies": self.proxies,
        }


@attrs.frozen
class ClientDisconnected(_ServerEvent):
    """A client's session is over, and its ports are free.

    Args:
      client, session, address: as in its `ClientConnected`.
      reason: why, in words.
      end: why, as one of a few.
      duration: seconds since it had proved itself.
    """

    text = "Client disconnected"
    kind = "disconnected"
    client: str
    session: str
    reason: str
    address: Address | None = attrs.field(default=None, eq=False)
    end: EndReason = attrs.field(default=EndReason.OTHER, eq=False)
    duration: float = attrs.field(default=0.0, eq=False)

    def details(self) -> Details:
        """See `Event`."""
        return {
            "client": self.client,
            "address": str(self.address),
            "session": self.session[:8],
            "reason": self.reason,
            "duration": round(self.duration, 1),
        }


@attrs.frozen
class SessionTakenOver(_ServerEvent):
    """A new connection of a client ends the former one, which is dead or silent."""

    text = "Session taken over"
    level = "warning"
    kind = "taken over"
    client: str
    address: Address

    def details(self) -> Details:
        """See `Event`."""
        return {"client": self.client, "address": str(self.address)}


@attrs.frozen
class ProxyPublished(_ServerEvent):
    """A proxy can be visited; at no address if only other clients may."""

    text = "Proxy listening"
    kind = "published"
    client: str
    proxy: str
    addresses: tuple[Address, ...]

    def details(self) -> Details:
        """See `Event`."""
        return {"client": self.client, "proxy": self.proxy, "address": _shown(self.addresses)}


@attrs.frozen
class ProxyRejected(_ServerEvent):
    """A proxy is not published, at least not now."""

    text = "Proxy rejected"
    level = "warning"
    kind = "rejected"
    client: str
    proxy: str
    port: int
    code: RejectionCode
    reason: str

    def details(self) -> Details:
        """See `Event`."""
        return {
            "client": self.client,
            "proxy": self.proxy,
            "port": self.port,
            "code": self.code.value,
            "reason": self.reason,
        }


@attrs.frozen
class ProxyWithdrawn(_ServerEvent):
    """A proxy cannot be visited any more, and its port is free."""

    kind = "port lost"
    client: str
    proxy: str


@attrs.frozen
class ClientRefused(_ServerEvent):
    """A client was refused, as a whole. `left_out` such events before it were not told."""

    level = "warning"
    kind = "refused"
    address: Address
    code: RefusalCode
    reason: str
    left_out: int = 0

    @property
    def text(self) -> str:
        """A refusal for the key has a line of its own, which fail2ban and people look for."""
        is_key = self.code == RefusalCode.AUTHENTICATION
        return "Authentication failed" if is_key else "Refused"

    def details(self) -> Details:
        """See `Event`."""
        details: Details = {
            "address": str(self.address),
            "code": self.code,
            "reason": self.reason,
        }
        return _left_out(details, self.left_out)


@attrs.frozen
class HandshakeFailed(_ServerEvent):
    """A connection ended before its client had proved itself and was configured."""

    text = "Handshake failed"
    kind = "handshake failed"
    address: Address
    end: End
    left_out: int = 0

    def details(self) -> Details:
        """See `Event`."""
        details: Details = {"address": str(self.address), "reason": self.end.text}
        return _left_out(details, self.left_out)


@attrs.frozen
class ConnectionTurnedAway(_ServerEvent):
    """A new connection was closed before a byte of it was read, or gave way to another."""

    text = "Connection turned away"
    level = "warning"
    kind = "turned away"
    address: Address
    reason: str
    left_out: int = 0

    def details(self) -> Details:
        """See `Event`."""
        return _left_out({"address": str(self.address), "reason": self.reason}, self.left_out)


@attrs.frozen
class VisitorTurnedAway(_ServerEvent):
    """A visitor's connection was reset when it came."""

    text = "Visitor turned away"
    level = "warning"
    kind = "turned away"
    client: str
    proxy: str
    address: Address
    reason: str
    left_out: int = 0

    def details(self) -> Details:
        """See `Event`."""
        details: Details = {
            "client": self.client,
            "proxy": self.proxy,
            "address": str(self.address),
            "reason": self.reason,
        }
        return _left_out(details, self.left_out)


@attrs.frozen
class CertificateRead(_ServerEvent):
    """The certificate's files were read; `same_pin` is False if its key is another."""

    kind = "certificate"
    pin: str
    until: str
    changed: bool
    same_pin: bool

    @property
    def text(self) -> str:
        """See `Event`."""
        return "Certificate reloaded" if self.changed else "Certificate unchanged"

    @property
    def level(self) -> Level:
        """Another key keeps clients out that pin the old one."""
        return "info" if self.same_pin else "warning"

    def details(self) -> Details:
        """See `Event`."""
        details: Details = {"pin": self.pin, "until": self.until}
        if not self.same_pin:
            consequence = "its key is another: clients that pin the old one cannot connect"
            details["consequence"] = consequence
        return details


@attrs.frozen
class CertificateUnusable(_ServerEvent):
    """The certificate's files cannot be used; the former certificate is still shown."""

    text = "Certificate cannot be used"
    level = "warning"
    kind = "certificate"
    reason: str

    def details(self) -> Details:
        """See `Event`."""
        return {"reason": self.reason, "consequence": "the one before is still shown"}


@attrs.frozen
class CertificateExpires(_ServerEvent):
    """The certificate expires in `days` days, or has expired if that is None."""

    level = "warning"
    kind = "certificate"
    path: str
    until: str
    days: int | None

    @property
    def text(self) -> str:
        """See `Event`."""
        return "Certificate has expired" if self.days is None else "Certificate expires soon"

    def details(self) -> Details:
        """See `Event`."""
        return {
            "path": self.path,
            "until": self.until,
            **({} if self.days is None else {"days": self.days}),
            "remedy": "put a new one in its place; it is read without a restart",
        }


# --- A client --------------------------------------------------------------------------------


@attrs.frozen
class Connecting(_ClientEvent):
    """An attempt to connect begins; `attempt` counts from 1."""

    text = "Connecting"
    kind = "connecting"
    attempt: int

    def details(self) -> Details:
        """See `Event`."""
        return {"attempt": self.attempt}


@attrs.frozen
class Connected(_ClientEvent):
    """The session has begun; `published` of its `proxies` are."""

    text = "Connected"
    kind = "connected"
    published: int
    proxies: int

    def details(self) -> Details:
        """See `Event`."""
        return {"published": self.published, "proxies": self.proxies}


@attrs.frozen
class ConnectionLost(_ClientEvent):
    """The session is over, or did not begin."""

    text = "Connection lost"
    level = "warning"
    kind = "lost"
    end: End

    def details(self) -> Details:
        """See `Event`."""
        return {"reason": self.end.text}


@attrs.frozen
class RefusedByServer(_ClientEvent):
    """The server refused the client. The code may be one of a later server's."""

    text = "Refused"
    level = "error"
    kind = "refused"
    code: str
    reason: str
    remedy: str | None

    def details(self) -> Details:
        """See `Event`."""
        details: Details = {"code": self.code, "reason": self.reason}
        return details if self.remedy is None else details | {"remedy": self.remedy}


@attrs.frozen
class Reconnecting(_ClientEvent):
    """The client waits so many seconds before the next attempt."""

    kind = "reconnecting"
    delay: float

    @property
    def text(self) -> str:
        """Stable up to the number."""
        return f"Reconnecting in {round(self.delay, 3):g} seconds"


@attrs.frozen
class MachineSlept(_ClientEvent):
    """This machine slept while the client waited."""

    text = "This machine slept"


@attrs.frozen
class ClientStopped(_ClientEvent):
    """The client has ended."""

    text = "Client stopped"
    kind = "stopping"


@attrs.frozen
class ServerStopping(_ClientEvent):
    """The server said that it stops; `visitors` connections go on for a while."""

    text = "Server stops"
    kind = "stopping"
    visitors: int

    def details(self) -> Details:
        """See `Event`."""
        return {"visitors": self.visitors}


@attrs.frozen
class OwnProxyPublished(_ClientEvent):
    """The server has published a proxy of this client; `local` is the service behind it."""

    text = "Proxy published"
    kind = "published"
    proxy: str
    addresses: tuple[Address, ...]
    local: str

    def details(self) -> Details:
        """See `Event`."""
        return {"proxy": self.proxy, "address": _shown(self.addresses), "local": self.local}


@attrs.frozen
class OwnProxyRejected(_ClientEvent):
    """The server has not published a proxy of this client, at least not now."""

    text = "Proxy rejected"
    level = "warning"
    kind = "rejected"
    proxy: str
    port: int
    code: RejectionCode
    reason: str

    def details(self) -> Details:
        """See `Event`."""
        return {
            "proxy": self.proxy,
            "port": self.port,
            "code": self.code.value,
            "reason": self.reason,
            "again": "the server keeps trying" if self.code.passes else "no",
        }


@attrs.frozen
class OwnProxyRemoved(_ClientEvent):
    """A proxy of this client is not published any more, since its configuration says so."""

    text = "Proxy removed"
    kind = "port lost"
    proxy: str

    def details(self) -> Details:
        """See `Event`."""
        return {"proxy": self.proxy}


@attrs.frozen
class LocalServiceUnreachable(_ClientEvent):
    """The service behind a proxy does not answer."""

    text = "Local service unreachable"
    level = "warning"
    kind = "local"
    proxy: str
    local: str
    reason: str

    def details(self) -> Details:
        """See `Event`."""
        return {"proxy": self.proxy, "local": self.local, "reason": self.reason}


# --- Both ------------------------------------------------------------------------------------


@attrs.frozen
class VisitorOpened(Event):
    """A visitor's connection is carried from now on. Told only where somebody subscribes to it."""

    proxy: str
    client: str
    connection: str
    visitor: Address


@attrs.define  # not frozen, which takes longer: there is one for each connection
class VisitorClosed(Event):
    """A visitor's connection is over, or was refused. Told only where somebody subscribes to it.

    Args:
      proxy: the name of what was visited; empty if there is no such proxy.
      client: the name of the client that published it; empty on that client itself.
      connection: the id that both sides log; None if it was turned away before it got one.
      visitor: where it came from.
      sent: bytes towards the visitor, as far as they went into a socket here, or came out of one.
      received: bytes from it, the same.
      duration: seconds.
      how: "finished", or why it did not come to that.
    """

    proxy: str
    client: str
    connection: str | None
    visitor: Address
    sent: int
    received: int
    duration: float
    how: str


def how_ended(code: ResetCode | None) -> str:
    """How a connection ended, in words; None is cleanly."""
    return "finished" if code is None else code.text


#: What the library tells the program that a server runs in.
ServerEvent: TypeAlias = ClientConnected | ClientDisconnected | ProxyPublished | ProxyWithdrawn
SERVER_EVENTS: Final = (ClientConnected, ClientDisconnected, ProxyPublished, ProxyWithdrawn)


# --- The stream ------------------------------------------------------------------------------

#: Takes an event at once. It must not wait, and what it raises ends whoever told the event.
Subscriber: TypeAlias = Callable[[Event], None]


class EventStream:
    """Passes each event on to those who subscribed, at once and in the order in which they did.

    Args:
      subscribers: those who get every event but `VisitorOpened` and `VisitorClosed`.
    """

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers: tuple[Subscriber, ...] = subscribers
        self._visits: tuple[Subscriber, ...] = ()

    @property
    def wants_visitors(self) -> bool:
        """True if somebody subscribed to visitors: there are thousands a second of these events."""
        return bool(self._visits)

    def emit(self, event: Event) -> None:
        """It has happened."""
        for subscriber in self._subscribers:
            subscriber(event)

    def emit_visitor(self, event: VisitorOpened | VisitorClosed) -> None:
        """It has happened to a visitor; make the event only if `wants_visitors`."""
        for subscriber in self._visits:
            subscriber(event)

    @contextmanager
    def subscribed(self, subscriber: Subscriber, *, visitors: bool = False) -> Iterator[None]:
        """Have a subscriber told within this block.

        Args:
          subscriber: who is told.
          visitors: of `VisitorOpened` and `VisitorClosed`, and of nothing else.
        """
        if visitors:
            self._visits = (*self._visits, subscriber)
        else:
            self._subscribers = (*self._subscribers, subscriber)
        try:
            yield
        finally:
            # Equality, not identity: a bound method is another object each time it is named.
            self._visits = tuple(it for it in self._visits if it != subscriber or not visitors)
            self._subscribers = tuple(
                it for it in self._subscribers if it != subscriber or visitors
            )


def _shown(addresses: tuple[Address, ...]) -> str:
    return ", ".join(map(str, addresses)) or "visitors only"


def _left_out(details: Details, count: int) -> Details:
    return details | {"left_out": count} if count else details
