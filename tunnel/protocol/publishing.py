"""What a client wants published and visited, and what becomes of it, then and later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

import attrs

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import Address, RejectionCode
from tunnel.protocol import fields
from tunnel.protocol.framing import Json
from tunnel.protocol.proofs import VISIT_NONCE_SIZE

_U32: Final = 2**32 - 1
#: Keys of a proxy that are left out where they say nothing.
_OPTIONAL: Final = {"allow_from", "visitors_only", "allow_visitors", "visit_nonce"}


@attrs.frozen
class ProxyRequest:
    """One proxy of `Configure` or `Reconfigure`.

    Args:
      name: unique among the client's.
      publish_addr, publish_port: of the server; 0 is any free port.
      preferred_port: the port to take, if it is free, where `publish_port` is 0: so a proxy keeps
        its port over a reconnect.
      local_port: for the server's statistics only.
      allow_from: networks that may visit the public port; none is every one.
      visitors_only: without a public port; clients visit it through the server.
      allow_visitors: the names of the clients that may; none is every one.
      visit_nonce: what visitors' clients must make a proof for, 32 bytes; empty for no secret.
    """

    name: str
    publish_addr: str
    publish_port: int
    preferred_port: int = 0
    local_port: int = 0
    allow_from: tuple[str, ...] = ()
    visitors_only: bool = False
    allow_visitors: tuple[str, ...] = ()
    visit_nonce: bytes = b""

    def to_json(self) -> Json:
        """An entry of `proxies`."""
        entry = attrs.asdict(self) | {"visit_nonce": self.visit_nonce.hex()}
        return {key: value for key, value in entry.items() if key not in _OPTIONAL or value}

    @classmethod
    def from_json(cls, message: Json) -> ProxyRequest:
        """Read an entry of `proxies`."""
        return cls(
            fields.name(message, "name"),
            fields.host(message, "publish_addr"),
            fields.integer(message, "publish_port", 0, 65535),
            fields.integer(message, "preferred_port", 0, 65535, 0),
            fields.integer(message, "local_port", 0, 65535, 0),
            fields.networks(message, "allow_from"),
            fields.switch(message, "visitors_only"),
            fields.names(message, "allow_visitors", limits.MAX_ALLOW_VISITORS),
            fields.token(message, "visit_nonce", VISIT_NONCE_SIZE)
            if "visit_nonce" in message
            else b"",
        )


@attrs.frozen
class VisitorRequest:
    """A proxy of some client that this client wants to visit.

    Args:
      visitor_id: chosen by the client; each stream says it.
      name: the proxy's name.
      publish_port: the proxy's; 0 is whatever it has, if there is only one of that name.
      owner: the name of the client that must have it; empty for any.
    """

    visitor_id: int
    name: str
    publish_port: int = 0
    owner: str = ""

    def to_json(self) -> Json:
        """An entry of `visitors`."""
        entry = {"id": self.visitor_id, "name": self.name, "publish_port": self.publish_port}
        return entry | ({"owner": self.owner} if self.owner else {})

    @classmethod
    def from_json(cls, message: Json) -> VisitorRequest:
        """Read an entry of `visitors`."""
        return cls(
            fields.integer(message, "id", 0, _U32),
            fields.name(message, "name"),
            fields.integer(message, "publish_port", 0, 65535),
            fields.name(message, "owner") if "owner" in message else "",
        )


@attrs.frozen
class Configure:
    """4, client to server."""

    kind: ClassVar = "configure"
    proxies: tuple[ProxyRequest, ...]
    visitors: tuple[VisitorRequest, ...] = ()

    def to_json(self) -> Json:
        """The message's keys."""
        return {
            "proxies": [proxy.to_json() for proxy in self.proxies],
            "visitors": [visitor.to_json() for visitor in self.visitors],
        }

    @classmethod
    def from_json(cls, message: Json) -> Configure:
        """Read the message's keys."""
        entries = fields.objects(message, "proxies", limits.MAX_PROXIES)
        proxies = tuple(map(ProxyRequest.from_json, entries))
        _each_once("name", [proxy.name for proxy in proxies])
        return cls(proxies, _visitors(message))


@attrs.frozen
class Bound:
    """A proxy is published, at these addresses; in `configured`, or a notice later.

    One that is `visitors_only` has no address, and can be visited.
    """

    kind: ClassVar = "bound"
    proxy_id: int
    addresses: tuple[Address, ...]

    def to_json(self) -> Json:
        """The message's keys."""
        addresses = [{"host": a.host, "port": a.port} for a in self.addresses]
        return {"id": self.proxy_id, "bound": addresses}

    @classmethod
    def from_json(cls, message: Json) -> Bound:
        """Read the message's keys."""
        addresses = fields.objects(message, "bound", 8)
        return cls(fields.integer(message, "id", 0, _U32), tuple(map(fields.address, addresses)))


@attrs.frozen
class Rejected:
    """A proxy is not published, and why; in an answer, or a notice when it no longer is.

    Args:
      proxy_id: which.
      code: the reason, for programs; the server keeps trying if it `passes`.
      text: the reason, for people.
    """

    kind: ClassVar = "rejected"
    proxy_id: int
    code: RejectionCode
    text: str

    def to_json(self) -> Json:
        """The message's keys."""
        text = fields.harmless(self.text)
        return {"id": self.proxy_id, "rejected": {"code": self.code, "text": text}}

    @classmethod
    def from_json(cls, message: Json) -> Rejected:
        """Read the message's keys."""
        rejected = message.get("rejected")
        if type(rejected) is not dict:
            raise RemoteProtocolError("an answer is neither bound nor rejected")
        return cls(
            fields.integer(message, "id", 0, _U32),
            fields.code(rejected, RejectionCode, RejectionCode.INTERNAL),
            fields.harmless(fields.text(rejected, "text", 1024)),
        )


@attrs.frozen
class Configured:
    """5, server to client: an answer for each proxy, in the order of `Configure`."""

    kind: ClassVar = "configured"
    answers: tuple[Bound | Rejected, ...]

    def to_json(self) -> Json:
        """The message's keys."""
        return {"proxies": [answer.to_json() for answer in self.answers]}

    @classmethod
    def from_json(cls, message: Json) -> Configured:
        """Read the message's keys."""
        return cls(_answers(message))


@attrs.frozen
class Reconfigure:
    """Client to server, while connected: what it no longer wants published, and what else it does.

    Args:
      remove: ids of proxies; their ports are free before the answer comes, and before others are
        bound.
      proxies: by id. The id of a proxy that is there changes it in place: only what leaves its
        port as it is may differ. A new one has an id greater than every id before.
      visitors: all that the client visits from now on; None if that stays as it is. The id of one
        that was there before means the same as before.
    """

    kind: ClassVar = "reconfigure"
    remove: tuple[int, ...]
    proxies: tuple[tuple[int, ProxyRequest], ...]
    visitors: tuple[VisitorRequest, ...] | None = None

    def to_json(self) -> Json:
        """The message's keys."""
        proxies = [{"id": number} | proxy.to_json() for number, proxy in self.proxies]
        message: Json = {"remove": list(self.remove), "proxies": proxies}
        if self.visitors is not None:
            message["visitors"] = [visitor.to_json() for visitor in self.visitors]
        return message

    @classmethod
    def from_json(cls, message: Json) -> Reconfigure:
        """Read the message's keys."""
        remove = fields.integers(message, "remove", limits.MAX_PROXIES, 0, _U32)
        proxies = tuple(
            (fields.integer(entry, "id", 0, _U32), ProxyRequest.from_json(entry))
            for entry in fields.objects(message, "proxies", limits.MAX_PROXIES)
        )
        _each_once("id", [*remove, *(number for number, _ in proxies)])
        _each_once("name", [proxy.name for _, proxy in proxies])
        return cls(remove, proxies, _visitors(message) if "visitors" in message else None)


@attrs.frozen
class Reconfigured:
    """Server to client: an answer for each proxy of `Reconfigure`, in the same order."""

    kind: ClassVar = "reconfigured"
    answers: tuple[Bound | Rejected, ...]

    def to_json(self) -> Json:
        """The message's keys."""
        return {"proxies": [answer.to_json() for answer in self.answers]}

    @classmethod
    def from_json(cls, message: Json) -> Reconfigured:
        """Read the message's keys."""
        return cls(_answers(message))


@attrs.frozen
class Target:
    """A notice: what has become of a proxy that the client visits.

    Args:
      visitor_id: which visitor of the client's.
      owner: the name of the client that has it; empty if it cannot be visited now.
      port: the `publish_port` that its owner configured.
      nonce: for the proof, if it has a secret; else empty.
      reason: why it cannot be visited now; empty if it can.
    """

    kind: ClassVar = "target"
    visitor_id: int
    owner: str = ""
    port: int = 0
    nonce: bytes = b""
    reason: str = ""

    def to_json(self) -> Json:
        """The message's keys."""
        message: Json = {"id": self.visitor_id}
        if self.owner:
            message |= {"owner": self.owner, "publish_port": self.port}
        if self.nonce:
            message["nonce"] = self.nonce.hex()
        if self.reason:
            message["reason"] = fields.harmless(self.reason)
        return message

    @classmethod
    def from_json(cls, message: Json) -> Target:
        """Read the message's keys."""
        return cls(
            fields.integer(message, "id", 0, _U32),
            fields.name(message, "owner") if "owner" in message else "",
            fields.integer(message, "publish_port", 0, 65535, 0),
            fields.token(message, "nonce", VISIT_NONCE_SIZE) if "nonce" in message else b"",
            fields.harmless(fields.text(message, "reason", limits.MAX_REFUSAL_TEXT, "")),
        )


def _answers(message: Json) -> tuple[Bound | Rejected, ...]:
    answers: list[Bound | Rejected] = [
        Bound.from_json(entry) if "bound" in entry else Rejected.from_json(entry)
        for entry in fields.objects(message, "proxies", limits.MAX_PROXIES)
    ]
    _each_once("id", [answer.proxy_id for answer in answers])
    return tuple(answers)


def _visitors(message: Json) -> tuple[VisitorRequest, ...]:
    entries = fields.objects(message, "visitors", limits.MAX_VISITORS, [])
    visitors = tuple(map(VisitorRequest.from_json, entries))
    _each_once("id", [visitor.visitor_id for visitor in visitors], of="visitors")
    return visitors


def _each_once(key: str, values: Iterable[object], *, of: str = "proxies") -> None:
    values = list(values)
    if len(set(values)) != len(values):
        raise RemoteProtocolError(f"{of} has the same {key} twice")
