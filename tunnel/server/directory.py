"""The directory: which proxies other clients can visit now, by name, and who is told of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from tunnel.model import ResetCode
from tunnel.net.link import Link
from tunnel.protocol.messages import VisitorRequest
from tunnel.server.proxy import Proxy
from tunnel.server.registry import FreedEvents, Registration


@attrs.frozen(eq=False)
class Target:
    """A proxy that can be visited now.

    Args:
      proxy: what is visited.
      session: whose it is.
      link: the way there.
    """

    proxy: Proxy
    session: Registration
    link: Link

    @property
    def open(self) -> bool:
        """True if its owner takes another stream now."""
        return self.link.carrying and self.link.can_open()

    async def wait_open(self) -> None:
        """Wait until it does; for ever, if its owner's link has ended."""
        await self.link.running.wait()  # before, the handshake is not over
        await self.link.wait_can_open()
        if not self.link.carrying:
            await trio.sleep_forever()

    def answers_to(self, port: int) -> bool:
        """True if whoever asks for that port means this one; 0 is any."""
        proxy = self.proxy
        return port in (0, proxy.port) or any(port == place.port for place in proxy.addresses)

    def admits(self, visitor: Registration) -> bool:
        """True if that client may visit it. Only names that a key of its own stands for count."""
        allowed = self.proxy.request.allow_visitors
        return not allowed or (visitor.assigned and visitor.name in allowed)


@attrs.frozen
class Refusal:
    """Why there is nothing to visit: for a log line, and as the stream's end says it."""

    reason: str
    code: ResetCode = ResetCode.AWAY


class Directory:
    """The proxies of one server by name. A name and a `publish_port` are one target's at a time."""

    def __init__(self) -> None:
        self._targets: dict[str, dict[int, Target]] = {}
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        #: By name and port.
        self.freed = FreedEvents()

    def __len__(self) -> int:
        return sum(map(len, self._targets.values()))

    def claimant(self, proxy: Proxy) -> Registration | None:
        """Whose proxy is visited by that name and port."""
        target = self._targets.get(proxy.name, {}).get(proxy.port)
        return None if target is None else target.session

    @contextmanager
    def visitable(self, target: Target) -> Iterator[bool]:
        """Let it be visited within this block; False if another one has its name and port."""
        name, port = target.proxy.name, target.proxy.port
        if port in self._targets.get(name, {}):
            yield False
            return
        self._targets.setdefault(name, {})[port] = target
        self.changed(name)
        try:
            yield True
        finally:
            del self._targets[name][port]
            if not self._targets[name]:
                del self._targets[name]
            self.freed.tell((name, port))
            self.changed(name)

    def find(self, request: VisitorRequest, visitor: Registration) -> Target | Refusal:
        """What a client visits with that, or why it cannot.

        Args:
          request: what it asks for.
          visitor: who it is.
        """
        targets = self._targets.get(request.name, {}).values()
        found = [target for target in targets if target.answers_to(request.publish_port)]
        if request.owner:
            # A client that chose its name itself proves nothing with it.
            found = [t for t in found if t.session.assigned and t.session.name == request.owner]
        if not found:
            return Refusal(_nobody(request))
        if len(found) > 1:
            return Refusal(f"several proxies are called {request.name}: say publish_port")
        if not found[0].admits(visitor):
            return Refusal("the client is not in the proxy's allow_visitors", ResetCode.NOT_ALLOWED)
        return found[0]

    # --- Telling -----------------------------------------------------------------------------

    def watch(self, name: str, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a target of that name comes or goes."""
        self._watchers.setdefault(name, set()).add(changed)

    def unwatch(self, name: str, changed: Callable[[], None]) -> None:
        """Stop what `watch` began."""
        watchers = self._watchers.get(name, set())
        watchers.discard(changed)
        if not watchers:
            self._watchers.pop(name, None)

    @contextmanager
    def changing(self, name: str) -> Iterator[trio.Event]:
        """Set when a target of that name comes or goes, or is different, within this block."""
        changed = trio.Event()
        self.watch(name, changed.set)
        try:
            yield changed
        finally:
            self.unwatch(name, changed.set)

    def changed(self, name: str) -> None:
        """Tell who watches: a target of that name has come, gone, or is different."""
        for changed in tuple(self._watchers.get(name, ())):
            changed()


def _nobody(request: VisitorRequest) -> str:
    what = request.name + (f" at {request.publish_port}" if request.publish_port else "")
    if request.owner:
        return (
            f"no client that [[server.clients]] calls {request.owner} has a proxy {what} connected"
        )
    return f"no client has a proxy {what} connected"
