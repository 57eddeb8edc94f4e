"""The directory: which proxies other clients can visit now, by name, and who is told of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from tunnel.model import ResetCode
from tunnel.protocol.messages import VisitorRequest
from tunnel.server.member import Member
from tunnel.server.proxy import Proxy
from tunnel.server.registry import FreedEvents, Registration


@attrs.frozen
class Refusal:
    """Why there is nothing to visit: for a log line, and as the stream's end says it."""

    reason: str
    code: ResetCode = ResetCode.AWAY


class Directory:
    """The proxies of one server by name. A name and a `publish_port` are one member's at a time."""

    def __init__(self) -> None:
        self._members: dict[str, dict[int, Member]] = {}
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        #: By name and port.
        self.freed = FreedEvents()

    def __len__(self) -> int:
        return sum(map(len, self._members.values()))

    def claimant(self, proxy: Proxy) -> Registration | None:
        """Whose proxy is visited by that name and port."""
        member = self._members.get(proxy.name, {}).get(proxy.port)
        return None if member is None else member.registration

    def add(self, member: Member) -> bool:
        """Let a proxy be visited until `remove`; False if another one has its name and port."""
        name, port = member.proxy.name, member.proxy.port
        if port in self._members.get(name, {}):
            return False
        self._members.setdefault(name, {})[port] = member
        self.changed(name)
        return True

    def remove(self, member: Member) -> None:
        """It cannot be visited any more, and others may have its name and port."""
        name, port = member.proxy.name, member.proxy.port
        del self._members[name][port]
        if not self._members[name]:
            del self._members[name]
        self.freed.tell((name, port))
        self.changed(name)

    def find(self, request: VisitorRequest, visitor: Registration) -> Member | Refusal:
        """What a client visits with that, or why it cannot.

        Args:
          request: what it asks for.
          visitor: the registration of that client's session.
        """
        members = self._members.get(request.name, {}).values()
        found = [member for member in members if member.answers_to(request.publish_port)]
        if request.owner:
            # A client that chose its name itself proves nothing with it.
            found = [
                t for t in found if t.registration.assigned and t.registration.name == request.owner
            ]
        if not found:
            return Refusal(_nobody(request))
        if len(found) > 1:
            return Refusal(f"several proxies are called {request.name}: say publish_port")
        if not found[0].admits(visitor):
            return Refusal("the client is not in the proxy's allow_visitors", ResetCode.NOT_ALLOWED)
        return found[0]

    # --- Telling -----------------------------------------------------------------------------

    def watch(self, name: str, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a member of that name comes or goes."""
        self._watchers.setdefault(name, set()).add(changed)

    def unwatch(self, name: str, changed: Callable[[], None]) -> None:
        """Stop what `watch` began."""
        watchers = self._watchers.get(name, set())
        watchers.discard(changed)
        if not watchers:
            self._watchers.pop(name, None)

    @contextmanager
    def changing(self, name: str) -> Iterator[trio.Event]:
        """Set when a member of that name comes or goes, or is different, within this block."""
        changed = trio.Event()
        self.watch(name, changed.set)
        try:
            yield changed
        finally:
            self.unwatch(name, changed.set)

    def changed(self, name: str) -> None:
        """Tell who watches: a member of that name has come, gone, or is different."""
        for changed in tuple(self._watchers.get(name, ())):
            changed()


def _nobody(request: VisitorRequest) -> str:
    what = request.name + (f" at {request.publish_port}" if request.publish_port else "")
    if request.owner:
        return (
            f"no client that [[server.clients]] calls {request.owner} has a proxy {what} connected"
        )
    return f"no client has a proxy {what} connected"
