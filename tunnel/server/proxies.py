"""The proxies of one session: published when it begins, changed while it lives."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import attrs
import trio

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.events import EventStream, ProxyPublished, ProxyRejected, ProxyWithdrawn
from tunnel.model import RejectionCode
from tunnel.net.link import Link
from tunnel.protocol.messages import (
    Bound,
    Message,
    ProxyRequest,
    Reconfigure,
    Reconfigured,
    Rejected,
)
from tunnel.server.admission import Admission, ProxyAdmission, Quota
from tunnel.server.directory import Directory
from tunnel.server.entry import Entry, Rejection, make_entry
from tunnel.server.member import Member
from tunnel.server.proxy import Proxy
from tunnel.server.registry import Registration, Registry
from tunnel.server.rules import Rules


async def serve_proxy(
    proxy: Proxy,
    proxies: Proxies,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """One proxy's whole life: bound or rejected, `started`, visitors accepted, freed.

    `proxy.answer` says what became of it when this has started. Where it may help to wait (a port
    that is merely busy) it is tried again for as long as the task lives, and its client is told
    when it is published. Everything it has is free when this returns; to withdraw a proxy is to
    cancel this, and to wait for it.

    Args:
      proxy: the proxy, which no other task serves.
      proxies: those of the session.
    """
    entry, published = proxies.entry(proxy), False
    try:
        with proxy.cancellable():
            reason = proxies.forbidden(entry)
            while reason is None and not published:
                try:
                    entry.open(proxies.rules)
                    published = True
                except OSError as error:
                    # A session that is gone without anybody knowing must not keep its port.
                    if not await proxies.end_silent(entry.in_the_way(error)):
                        reason = entry.why_not(error)
            proxies.answer(proxy, reason)
            task_status.started()
            pause = limits.BIND_RETRY_FIRST
            while reason is not None and reason.code.passes and not published:
                with trio.move_on_after(pause):
                    await entry.wait_freed()
                pause = min(2 * pause, limits.BIND_RETRY_LAST)
                with contextlib.suppress(OSError):
                    entry.open(proxies.rules)
                    published = True
                if published:
                    proxies.answer(proxy, None)
                    proxies.tell(proxy)
            if published:
                await entry.accept()
    finally:
        entry.close()
        proxy.withdrawn()
        if published:
            proxies.events.emit(ProxyWithdrawn(proxies.registration.name, proxy.name))


@attrs.define(eq=False)
class Proxies:
    """What a client wants published, and what all of it shares.

    Args:
      registration: of the session whose they are.
      rules: what the client may publish now.
      quota: where the visitors of its identity are counted.
      registry, directory, admission, events: the server's.
      link: the way to the client.
      say: tells the client something.
    """

    registration: Registration
    rules: Rules
    quota: Quota
    registry: Registry
    directory: Directory
    admission: Admission
    events: EventStream
    link: Link
    say: Callable[[Message], None]
    #: What the client wants published now, by id.
    by_id: dict[int, Proxy] = attrs.field(factory=dict, init=False)
    _next_id: int = attrs.field(default=0, init=False)
    #: Of the tasks that serve them.
    _nursery: trio.Nursery = attrs.field(init=False)
    #: Of the tasks that change them; None before the session has begun, and when the server drains.
    _changes: trio.Nursery | None = attrs.field(default=None, init=False)
    #: Sessions that have shown a sign of life: asked once, not for every port.
    _alive: set[Registration] = attrs.field(factory=set, init=False)
    _changing: bool = attrs.field(default=False, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def request(self, requests: Iterable[ProxyRequest]) -> None:
        """What the client asks for when it connects; numbered from 0."""
        for number, request in enumerate(requests):
            self._add(number, request)

    def _add(self, number: int, request: ProxyRequest) -> Proxy:
        admission = ProxyAdmission(
            self.admission, request.name, self.registration.name, quota=self.quota
        )
        proxy = self.by_id[number] = Proxy(number, request, admission)
        self._next_id = max(self._next_id, number + 1)
        return proxy

    async def attend(
        self, nursery: trio.Nursery, draining: trio.Event, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Make the changes that are wanted, until the server drains; then withdraw every proxy.

        It has started when changes can be asked for. What is asked for later is ignored.

        Args:
          nursery: the session's, which owns the tasks that serve proxies.
          draining: set when the server drains.
        """
        async with trio.open_nursery() as changes:
            self._nursery, self._changes = nursery, changes
            task_status.started()
            try:
                await draining.wait()
            finally:
                self._changes = None
            changes.cancel_scope.cancel()
        await _withdraw(self)

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Proxy]:
        return iter(tuple(self.by_id.values()))

    def answers(self) -> tuple[Bound | Rejected, ...]:
        """What became of each, by id, once all were tried."""
        return tuple(self._answer(number) for number in self.by_id)

    def _answer(self, number: int) -> Bound | Rejected:
        answer = self.by_id[number].answer
        assert answer is not None  # every proxy is tried when it is added  # noqa: S101
        return answer

    # --- For `serve_proxy` -------------------------------------------------------------------

    def entry(self, proxy: Proxy) -> Entry:
        """The entry that a proxy asks for, not opened yet."""
        return make_entry(
            Member(proxy, self.registration, self.link), self.registry, self.directory
        )

    def forbidden(self, entry: Entry) -> Rejection | None:
        """Why a proxy cannot be published as things are; None if it can be tried."""
        if (forbidden := entry.forbidden(self.rules)) is not None:
            return forbidden
        for other in self:
            # Of two that ask for the same, the one that was tried first may have it.
            if other is not entry.proxy and other.answer is not None and entry.duplicates(other):
                text = f"another of your proxies has port {other.port}"
                return Rejection(RejectionCode.DUPLICATE, text)
        return None

    async def end_silent(self, sessions: Iterable[Registration]) -> bool:
        """True if one of these was a silent session with the same key, and has nothing any more.

        A client that has lost its state (a container that was made anew) comes with another
        `client_id`: its former session is not taken over, but must not stand in its way either.
        """
        for session in sessions:
            if session is self.registration or session in self._alive:
                continue
            if session.owner.identity != self.registration.owner.identity:
                continue
            if not await session.probe():
                await self.registry.replace(session, self.registration)
                return True
            self._alive.add(session)
        return False

    def answer(self, proxy: Proxy, reason: Rejection | None) -> None:
        """Note, and tell the server's subscribers, that a proxy is published, or why it is not."""
        client = self.registration.name
        if reason is None:
            proxy.answer = Bound(proxy.proxy_id, proxy.addresses)
            self.events.emit(ProxyPublished(client, proxy.name, proxy.addresses))
        else:
            proxy.answer = Rejected(proxy.proxy_id, reason.code, reason.text)
            self.events.emit(
                ProxyRejected(client, proxy.name, proxy.port, reason.code, reason.text)
            )

    def tell(self, proxy: Proxy) -> None:
        """Tell the client what became of a proxy."""
        self.say(self._answer(proxy.proxy_id))

    # --- Changes -----------------------------------------------------------------------------

    def reconfigure(self, wanted: Reconfigure) -> None:
        """Begin to do what the client wants changed; it is told when that is done.

        Raises:
          RemoteProtocolError: it may not ask for that, or not yet.
        """
        if self._changing:
            raise RemoteProtocolError("reconfigure came before the answer to the last one")
        self._check(wanted)
        if self._changes is not None:
            self._changing = True
            self._changes.start_soon(self._reconfigure, wanted)

    def _check(self, wanted: Reconfigure) -> None:
        left = self.by_id.keys() - set(wanted.remove)
        if len(left) != len(self.by_id) - len(wanted.remove):
            raise RemoteProtocolError("reconfigure removes what is not there")
        names = {number: self.by_id[number].name for number in left}
        for number, request in wanted.proxies:
            if number < self._next_id and not self._fits(number, left, request):
                raise RemoteProtocolError("reconfigure has an id that was used before")
            names[number] = request.name
        if len(set(names.values())) != len(names):
            raise RemoteProtocolError("reconfigure has a name that another proxy has")
        if len(names) > limits.MAX_PROXIES:
            raise RemoteProtocolError(f"more than {limits.MAX_PROXIES} proxies")

    def _fits(self, number: int, left: set[int], request: ProxyRequest) -> bool:
        """True if a proxy is there that can be updated to this one and keep its entry."""
        return number in left and _place(self.by_id[number].request) == _place(request)

    async def _reconfigure(self, wanted: Reconfigure) -> None:
        async with self._turn:
            removed = [self.by_id.pop(number) for number in wanted.remove]
            added = self._enter(wanted)
            # What only gets another name or address must not lose its port in between.
            with self.registry.reserved(self.registration, [proxy.port for proxy in added]):
                await _withdraw(removed)
                for proxy in in_order(added):
                    await self._nursery.start(serve_proxy, proxy, self)
            self._changing = False
            self.say(Reconfigured(tuple(self._answer(number) for number, _ in wanted.proxies)))

    def _enter(self, wanted: Reconfigure) -> list[Proxy]:
        """Update what stays where it is; returns what is new."""
        added = []
        for number, request in wanted.proxies:
            if number in self.by_id:
                self.by_id[number].update(request)
                self.directory.changed(request.name)
            else:
                added.append(self._add(number, request))
        return added

    def update(self, rules: Rules) -> None:
        """Begin to free what these rules no longer allow, and to publish what they now do."""
        if self._changes is not None:
            self._changes.start_soon(self._update, rules)

    async def _update(self, rules: Rules) -> None:
        async with self._turn:
            self.rules = rules
            for proxy in self:
                await self._review(proxy)

    async def _review(self, proxy: Proxy) -> None:
        reason = self.entry(proxy).forbidden(self.rules)
        if reason is not None and proxy.wanted:
            await proxy.withdraw()
            self.answer(proxy, reason)
            self.tell(proxy)
        elif reason is None and (
            (isinstance(proxy.answer, Rejected) and proxy.answer.code == RejectionCode.NOT_ALLOWED)
            # It takes any port, and has one that is not allowed any more.
            or not all(self.rules.allows(address.port) for address in proxy.addresses)
        ):
            await proxy.withdraw()
            await self._nursery.start(serve_proxy, proxy, self)
            self.tell(proxy)


def in_order(proxies: Iterable[Proxy]) -> list[Proxy]:
    """In which order to try them: those that take any port might take one that another asks for."""
    return sorted(proxies, key=lambda proxy: not proxy.port)


async def _withdraw(proxies: Iterable[Proxy]) -> None:
    async with trio.open_nursery() as nursery:
        for proxy in proxies:
            nursery.start_soon(proxy.withdraw)


def _place(request: ProxyRequest) -> tuple[object, ...]:
    """What cannot change while a proxy is published."""
    return (
        request.name,
        request.publish_addr,
        request.publish_port,
        request.visitors_only,
    )
