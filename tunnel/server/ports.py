"""The ports of one session: published when it begins, changed while it lives."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import attrs
import trio

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import RejectionCode
from tunnel.protocol.messages import (
    Bound,
    Message,
    ProxyRequest,
    Reconfigure,
    Reconfigured,
    Rejected,
)
from tunnel.server.listener import Proxy
from tunnel.server.publish import Publisher, Rules
from tunnel.server.visitors import Lobby, Room


@attrs.define(eq=False)
class Ports:
    """What a client wants published, and what becomes of it.

    Args:
      lobby: where the visitors of all clients come in.
      owner: what the client is called.
      room: where its visitors are counted.
      say: tells the client something.
    """

    lobby: Lobby
    owner: str
    room: Room
    say: Callable[[Message], None]
    #: What the client wants published now, by id.
    proxies: dict[int, Proxy] = attrs.field(factory=dict, init=False)
    _next_id: int = attrs.field(default=0, init=False)
    #: None before the session has begun, and when the server drains.
    _publisher: Publisher | None = attrs.field(default=None, init=False)
    _changing: bool = attrs.field(default=False, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def want(self, requests: Iterable[ProxyRequest]) -> None:
        """What the client asks for when it connects; numbered from 0."""
        for number, request in enumerate(requests):
            self.proxies[number] = self._make(number, request)
        self._next_id = len(self.proxies)

    def _make(self, number: int, request: ProxyRequest) -> Proxy:
        networks = tuple(map(ipaddress.ip_network, request.allow_from))
        return Proxy(
            number,
            request.name,
            request.publish_addr,
            request.publish_port,
            request.preferred_port,
            request.local_port,
            self.lobby.visitors(
                request.name, owner=self.owner, allow_from=networks, client=self.room
            ),
            request.visitors_only,
            request.allow_visitors,
            request.visit_nonce,
        )

    async def publish(self, publisher: Publisher) -> tuple[Bound | Rejected, ...]:
        """Bind what can be bound now, and keep trying where that may help; an answer for each."""
        answers = await self._publish(publisher, self.proxies.values())
        self._publisher = publisher
        return answers

    def close(self) -> None:
        """What the client wants from now on comes too late."""
        self._publisher = None

    # --- Changes -----------------------------------------------------------------------------

    def change(self, wanted: Reconfigure) -> None:
        """Begin to do what the client wants changed; it is told when that is done.

        Raises:
          RemoteProtocolError: it may not ask for that, or not yet.
        """
        if self._changing:
            raise RemoteProtocolError("reconfigure came before the answer to the last one")
        self._check(wanted)
        if self._publisher is not None:
            self._changing = True
            self._publisher.nursery.start_soon(self._change, self._publisher, wanted)

    def _check(self, wanted: Reconfigure) -> None:
        left = self.proxies.keys() - set(wanted.remove)
        if len(left) != len(self.proxies) - len(wanted.remove):
            raise RemoteProtocolError("reconfigure removes what is not there")
        names = {number: self.proxies[number].name for number in left}
        for number, request in wanted.proxies:
            if number < self._next_id and not self._fits(number, left, request):
                raise RemoteProtocolError("reconfigure has an id that was used before")
            names[number] = request.name
        if len(set(names.values())) != len(names):
            raise RemoteProtocolError("reconfigure has a name that another proxy has")
        if len(names) > limits.MAX_PROXIES:
            raise RemoteProtocolError(f"more than {limits.MAX_PROXIES} proxies")

    def _fits(self, number: int, left: set[int], request: ProxyRequest) -> bool:
        """True if a proxy is there that can become this one and keep its port."""
        if number not in left:
            return False
        proxy = self.proxies[number]
        place = (
            request.name,
            request.publish_addr,
            request.publish_port,
            request.visitors_only,
        )
        return (proxy.name, proxy.host, proxy.port, proxy.visitors_only) == place

    async def _change(self, publisher: Publisher, wanted: Reconfigure) -> None:
        async with self._turn:
            removed = [self.proxies.pop(number) for number in wanted.remove]
            beside = tuple(self.proxies.values())
            added = self._enter(wanted)
            # What only gets another name or address must not lose its port in between.
            with publisher.registry.keep(publisher.seat, [proxy.port for proxy in added]):
                await _withdraw(removed)
                await self._publish(publisher, added, beside)
            self._changing = False
            answers = (self.proxies[number].answer() for number, _ in wanted.proxies)
            self.say(Reconfigured(tuple(answers)))

    def _enter(self, wanted: Reconfigure) -> list[Proxy]:
        """Change what stays where it is; returns what is new."""
        added = []
        for number, request in wanted.proxies:
            proxy = self._make(number, request)
            if number in self.proxies:
                self.proxies[number].become(proxy)
                if self._publisher is not None:
                    self._publisher.targets.changed(proxy.name)
            else:
                self.proxies[number] = proxy
                self._next_id = max(self._next_id, number + 1)
                added.append(proxy)
        return added

    def obey(self, rules: Rules) -> None:
        """Begin to free what these rules no longer allow, and to publish what they now do."""
        if self._publisher is not None:
            self._publisher.nursery.start_soon(self._obey, self._publisher, rules)

    async def _obey(self, publisher: Publisher, rules: Rules) -> None:
        async with self._turn:
            publisher.rules = rules
            for proxy in tuple(self.proxies.values()):
                await self._judge(publisher, proxy)

    async def _judge(self, publisher: Publisher, proxy: Proxy) -> None:
        before, now = proxy.rejection, publisher.forbidden(proxy)
        if now is not None and proxy.wanted:
            publisher.log_rejected(proxy, now)
            proxy.rejection = now
            await proxy.withdraw()
            self.say(now)
        elif now is None and (
            (before is not None and before.code == RejectionCode.NOT_ALLOWED)
            # It takes any port, and has one that is not to be had any more.
            or not all(publisher.rules.allows(address.port) for address in proxy.addresses)
        ):
            await proxy.withdraw()
            others = [other for other in self.proxies.values() if other is not proxy]
            [answer] = await self._publish(publisher, [proxy], others)
            self.say(answer)

    async def _publish(
        self, publisher: Publisher, proxies: Iterable[Proxy], beside: Iterable[Proxy] = ()
    ) -> tuple[Bound | Rejected, ...]:
        proxies = tuple(proxies)
        answers = await publisher.publish_all(proxies, beside=beside)
        for proxy, answer in zip(proxies, answers, strict=True):
            if isinstance(answer, Rejected) and answer.code.passes:
                await publisher.nursery.start(self._publish_later, publisher, proxy)
        return tuple(answers)

    async def _publish_later(
        self,
        publisher: Publisher,
        proxy: Proxy,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with proxy.held():
            task_status.started()
            self.say(await publisher.keep_trying(proxy))


async def _withdraw(proxies: Iterable[Proxy]) -> None:
    async with trio.open_nursery() as nursery:
        for proxy in proxies:
            nursery.start_soon(proxy.withdraw)
