"""The events of a client."""

from __future__ import annotations

import attrs

from tunnel.events.base import Details, End, Event
from tunnel.model import Address, RejectionCode


class _ClientEvent(Event):
    __slots__ = ()
    logger = "tunnel.client"


@attrs.frozen
class Connecting(_ClientEvent):
    """An attempt to connect begins; `attempt` counts from 1."""

    text = "Connecting"
    kind = "connecting"
    attempt: int


@attrs.frozen
class Connected(_ClientEvent):
    """The session has begun; `published` of its `proxies` are."""

    text = "Connected"
    kind = "connected"
    published: int
    proxies: int


@attrs.frozen
class ConnectionLost(_ClientEvent):
    """The session is over, or did not begin."""

    text = "Connection lost"
    level = "warning"
    kind = "lost"
    end: End


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

    def details(self) -> Details:
        """See `Event`; the line says it all."""
        return {}


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


@attrs.frozen
class OwnProxyPublished(_ClientEvent):
    """The server has published a proxy of this client; `local` is the service behind it."""

    text = "Proxy published"
    kind = "published"
    proxy: str
    addresses: tuple[Address, ...]
    local: str


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


@attrs.frozen
class LocalServiceUnreachable(_ClientEvent):
    """The service behind a proxy does not answer."""

    text = "Local service unreachable"
    level = "warning"
    kind = "local"
    proxy: str
    local: str
    reason: str
