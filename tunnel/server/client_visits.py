"""What one client visits of others: its streams, joined to streams of the proxies' owners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import attrs
import trio
from trio_util import wait_any

from tunnel import limits
from tunnel.events import VisitRefused
from tunnel.model import Address, ResetCode
from tunnel.net.endpoint import Endpoint
from tunnel.net.incoming import IncomingEndpoint
from tunnel.net.link import Link
from tunnel.net.splice import splice
from tunnel.protocol import messages
from tunnel.protocol.messages import VisitorRequest
from tunnel.protocol.preamble import Preamble, build_forwarded_preamble
from tunnel.server.admission import Admission
from tunnel.server.directory import Directory, Refusal
from tunnel.server.member import Member
from tunnel.server.registry import Registration

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class ClientVisits:
    """What one session visits of other clients.

    Args:
      directory: what can be visited.
      admission: what the visitors of all proxies share.
      registration: of the session that visits.
      here: the server's address that the client is connected to.
      say: tells the client something.
    """

    directory: Directory
    admission: Admission
    registration: Registration
    here: Address
    say: Callable[[messages.Message], None]
    #: What the client visits now, by its own ids.
    requests: dict[int, VisitorRequest] = attrs.field(factory=dict, init=False)
    #: What it was told last.
    _told: dict[int, messages.Target] = attrs.field(factory=dict, init=False)
    #: A session that is refused after all must leave no watcher behind.
    _living: bool = attrs.field(default=False, init=False)

    @contextmanager
    def living(self) -> Iterator[None]:
        """Hear of targets within this block, and tell the client."""
        self._living = True
        self._watch()
        try:
            yield
        finally:
            self._living = False
            self._unwatch()

    def want(self, requests: Iterable[VisitorRequest]) -> None:
        """Exactly these from now on; live visits go on."""
        self._unwatch()
        self.requests = {request.visitor_id: request for request in requests}
        self._told = {
            number: notice for number, notice in self._told.items() if number in self.requests
        }
        self._watch()

    async def change(self, requests: Iterable[VisitorRequest]) -> None:
        """As `want`, for a task of its own: the client is told, which an endpoint must not do."""
        self.want(requests)

    def _watch(self) -> None:
        if self._living:
            for request in self.requests.values():
                self.directory.watch(request.name, self._changed)
            self._changed()

    def _unwatch(self) -> None:
        for request in self.requests.values():
            self.directory.unwatch(request.name, self._changed)

    def _changed(self) -> None:
        """Tell the client what is new to it."""
        for number, request in self.requests.items():
            notice = _notice(number, self.directory.find(request, self.registration))
            if self._told.get(number) != notice:
                self._told[number] = notice
                self.say(notice)

    # --- Streams -----------------------------------------------------------------------------

    def accept(self, link: Link, stream_id: int) -> Endpoint | None:
        """The client has opened a stream; None if it has nothing to visit."""
        return VisitEndpoint(link, stream_id, self) if self.requests else None

    def admit(self, preamble: Preamble) -> Member | Refusal:
        """What is visited by a stream that begins so, if it may be; else the visitor is counted."""
        number = preamble.visitor_id
        request = None if number is None else self.requests.get(number)
        if request is None:
            return Refusal("the client visits nothing by that id", ResetCode.UNKNOWN_PROXY)
        found = self.directory.find(request, self.registration)
        if isinstance(found, Member):
            admission, source = found.proxy.admission, self.registration.address
            if (reason := admission.why_not(source, self.registration.name)) is not None:
                admission.count_turned_away(reason, source)
                return Refusal(reason, ResetCode.NOT_ALLOWED)
        return found

    def refuse(self, endpoint: VisitEndpoint, preamble: Preamble, refusal: Refusal) -> None:
        """Reset a stream, and say why in a line that cannot flood."""
        endpoint.refuse(refusal.code)
        request = self.requests.get(-1 if preamble.visitor_id is None else preamble.visitor_id)
        proxy = "" if request is None else request.name
        connection = preamble.connection_id.hex()
        self.admission.limited.emit(
            f"visit/{refusal.code}",
            lambda left_out: VisitRefused(
                self.registration.name,
                self.registration.address,
                proxy,
                connection,
                refusal.reason,
                left_out,
            ),
        )

    def join(self, endpoint: VisitEndpoint, preamble: Preamble, member: Member) -> None:
        """Open a stream to the owner, and join the two. Flush both links after it."""
        source = self.registration.address
        header = build_forwarded_preamble(
            source,
            self.here,
            member.proxy.proxy_id,
            preamble,
            self.registration.name,
            assigned=self.registration.assigned,
        )
        stream_id, connection = member.open_stream(header, source, preamble.connection_id)
        splice(
            (endpoint.link, endpoint.stream_id),
            (member.link, stream_id),
            connection,
            parked=endpoint.parked,
            finished=endpoint.finished,
        )
        endpoint.link.flush_with(member.link)
        logger.debug(
            "Guest connected",
            extra={
                "proxy": member.proxy.name,
                "client": member.registration.name,
                "guest_of": self.registration.name,
                "connection": connection.connection_id,
            },
        )


def _notice(number: int, found: Member | Refusal) -> messages.Target:
    if isinstance(found, Refusal):
        return messages.Target(number, reason=found.reason)
    proxy = found.proxy
    return messages.Target(number, found.registration.name, proxy.port, proxy.request.visit_nonce)


class VisitEndpoint(IncomingEndpoint):
    """A stream of a visiting client, until it is joined to one of the owner's."""

    __slots__ = ("_scope", "_visits")

    def __init__(self, link: Link, stream_id: int, visits: ClientVisits) -> None:
        super().__init__(link, stream_id)
        self._visits = visits
        #: Cancelled when the visitor goes before the owner's link takes another stream.
        self._scope: trio.CancelScope | None = None

    def preamble_received(self, preamble: Preamble) -> None:
        """See `IncomingEndpoint`."""
        found = self._visits.admit(preamble)
        if isinstance(found, Refusal):
            self._visits.refuse(self, preamble, found)
        elif found.open:
            self._visits.join(self, preamble, found)
        else:
            self._scope = trio.CancelScope()
            self.link.spawn(self._wait, preamble, found, self._scope)

    async def _wait(self, preamble: Preamble, member: Member, scope: trio.CancelScope) -> None:
        """The owner's link takes no other stream now: wait for a while that it does.

        Or for the owner to go, and perhaps come back: a link that has ended is not waited for.
        """
        visits, name = self._visits, member.proxy.name
        found: Member | Refusal = member
        with scope:
            with trio.move_on_after(limits.VISIT_TIMEOUT):
                while isinstance(found, Member) and not found.open:
                    with visits.directory.changing(name) as changed:
                        await wait_any(found.wait_open, changed.wait)
                    found = visits.admit(preamble)
            if isinstance(found, Member) and not found.open:
                found = Refusal("the owner takes no other connection now", ResetCode.LIMIT)
            if isinstance(found, Refusal):
                visits.refuse(self, preamble, found)
            else:
                visits.join(self, preamble, found)
            self.link.flush()

    def reset(self, code: int) -> None:  # noqa: ARG002
        """See `Endpoint`."""
        if self._scope is not None:
            self._scope.cancel()
