"""The events of a server."""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

from tunnel.events.base import Details, End, EndReason, Event, Level
from tunnel.model import Address, RefusalCode, RejectionCode


class _ServerEvent(Event):
    __slots__ = ()
    logger = "tunnel.server"


@attrs.frozen
class ServerListening(_ServerEvent):
    """Clients can connect; `pin` is what they may trust the server by."""

    text = "Server listening"
    kind = "listening"
    address: Address
    pin: str


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


@attrs.frozen
class ProxyPublished(_ServerEvent):
    """A proxy can be visited; at no address if only other clients may."""

    text = "Proxy listening"
    kind = "published"
    client: str
    proxy: str
    addresses: tuple[Address, ...]


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
    code: str
    reason: str
    left_out: int = 0

    @property
    def text(self) -> str:
        """A refusal for the key has a line of its own, which fail2ban and people look for."""
        is_key = self.code == RefusalCode.AUTHENTICATION
        return "Authentication failed" if is_key else "Refused"


@attrs.frozen
class HandshakeFailed(_ServerEvent):
    """A connection ended before its client had proved itself and was configured."""

    text = "Handshake failed"
    kind = "handshake failed"
    address: Address
    end: End
    left_out: int = 0


@attrs.frozen
class ConnectionTurnedAway(_ServerEvent):
    """A new connection was closed before a byte of it was read, or gave way to another."""

    text = "Connection turned away"
    level = "warning"
    kind = "turned away"
    address: Address
    reason: str
    left_out: int = 0


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


@attrs.frozen
class VisitRefused(_ServerEvent):
    """A client's visit to another client's proxy was refused."""

    text = "Visit refused"
    level = "warning"
    client: str
    address: Address
    proxy: str
    connection: str
    reason: str
    left_out: int = 0


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


#: What the library tells the program that a server runs in.
ServerEvent: TypeAlias = ClientConnected | ClientDisconnected | ProxyPublished | ProxyWithdrawn
SERVER_EVENTS: Final = (ClientConnected, ClientDisconnected, ProxyPublished, ProxyWithdrawn)
