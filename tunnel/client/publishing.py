"""What a connected client has published: what the server says of it, and how it is changed."""

from __future__ import annotations

import logging
import time

import attrs
import trio

from tunnel.client.proxy import ASKED, LocalProxy
from tunnel.client.visitors import LocalVisitor
from tunnel.errors import RemoteProtocolError
from tunnel.net.control import Control
from tunnel.net.link import Link
from tunnel.protocol.handshake import ServerProved
from tunnel.protocol.messages import (
    RECONFIGURE,
    VISITORS,
    Bound,
    Message,
    ProxyRequest,
    Reconfigure,
    Reconfigured,
    Rejected,
    Stopping,
    Target,
    Unknown,
)

logger = logging.getLogger(__name__)


class Published:
    """The proxies of one session by the ids that the server knows them by.

    Args:
      nursery: the session's.
      proxies: what the handshake asked for.
      requests: as it did so; they may have changed meanwhile.
      visitors: the proxies of others that it asked for.
      answers: what the server said to each proxy.
      proved: what the server takes part in, and what it calls this client.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        proxies: tuple[LocalProxy, ...],
        requests: tuple[ProxyRequest, ...],
        visitors: tuple[LocalVisitor, ...],
        answers: tuple[Bound | Rejected, ...],
        proved: ServerProved,
    ) -> None:
        self.by_id: dict[int, LocalProxy] = {}
        self._visitors = dict(enumerate(visitors))
        self._features = proved.capabilities.features
        self._name = proved.name
        #: When the session began, in Unix time.
        self.since = time.time()
        #: True once the server has said that it stops.
        self.stopping = False
        self._nursery = nursery
        #: What the server was asked for.
        self._asked: dict[int, ProxyRequest] = {}
        for proxy, request, answer in zip(proxies, requests, answers, strict=True):
            self.by_id[answer.proxy_id] = proxy
            self._asked[answer.proxy_id] = _plain(request)
            proxy.guard.renewed = self._ask_again
            tell(proxy, answer)
        self._next_id = max(self.by_id, default=-1) + 1
        self._wanted = proxies
        #: True while a task is at work to get what is wanted.
        self._working = False
        #: The ids that the server's next answer is about, while one is waited for.
        self._due: tuple[int, ...] | None = None
        self._answered = trio.Event()
        self.link: Link
        self._control: Control

    def open_control(self, link: Link) -> None:
        """Open the control stream; the session ends with it."""
        self.link = link
        stream_id = link.open_stream()
        self._control = Control(link, stream_id, self._heard)
        link.attach(stream_id, self._control)

    def _heard(self, notice: Message | Unknown) -> None:
        match notice:
            case Bound() | Rejected() if notice.proxy_id in self.by_id:
                tell(self.by_id[notice.proxy_id], notice)
            case Reconfigured(answers):
                self._take(answers)
            case Target() if notice.visitor_id in self._visitors:
                self._visitors[notice.visitor_id].told(notice)
            case Stopping():
                logger.info("Server stops", extra={"visitors": self.link.carrier.count})
                self.stopping = True
            case _:
                logger.debug("Notice ignored", extra={"notice": notice.kind})

    # --- Changes -----------------------------------------------------------------------------

    def want(self, proxies: tuple[LocalProxy, ...]) -> None:
        """Begin to have exactly these published; what is published already stays as it is.

        Before that is done it may be called again: the newest counts.
        """
        self._wanted = proxies
        if not (self._working or self.settled):
            self._working = True
            self._nursery.start_soon(self._work)

    def _ask_again(self) -> None:
        """What is wanted is to be asked for in another way."""
        self.want(self._wanted)

    @property
    def settled(self) -> bool:
        """True if the server knows all that is wanted."""
        return not self._difference()

    async def _work(self) -> None:
        while not self.settled:
            if not self._changeable():
                logger.warning(
                    "Server cannot change a session",
                    extra={"consequence": "connecting anew; update the server"},
                )
                self.link.end("the configuration has changed")
                return
            await self._change()
        self._working = False

    def _changeable(self) -> bool:
        """True if the server can be asked for what is wanted.

        One that knows no visits would publish for everybody what is for visitors only.
        """
        private = any(proxy.spec.visitors_only for proxy in self._wanted)
        return RECONFIGURE in self._features and not (private and VISITORS not in self._features)

    def _difference(self) -> tuple[int | LocalProxy, ...]:
        """The ids to remove, and the proxies that the server does not know as they are now."""
        known = {proxy: self._asked[number] for number, proxy in self.by_id.items()}
        removed = (number for number, proxy in self.by_id.items() if proxy not in self._wanted)
        news = (it for it in self._wanted if known.get(it) != _plain(it.request()))
        return *removed, *news

    async def _change(self) -> None:
        """Tell the server what is different, and wait until it is done."""
        numbers = {proxy: number for number, proxy in self.by_id.items()}
        removed, requests = [], []
        for item in self._difference():
            if isinstance(item, int):
                removed.append(item)
                continue
            number = numbers.get(item)
            if number is None:
                # Before the server is asked: visitors may come before its answer.
                number = await self._enter(item)
            request = item.request()
            self._asked[number] = _plain(request)
            requests.append((number, request))
        self._due, self._answered = tuple(number for number, _ in requests), trio.Event()
        self._control.say(Reconfigure(tuple(removed), tuple(requests)))
        self.link.flush()
        await self._answered.wait()
        for number in removed:
            self._leave(number)

    async def _enter(self, proxy: LocalProxy) -> int:
        number, self._next_id = self._next_id, self._next_id + 1
        await self._nursery.start(proxy.serve)
        self.by_id[number] = proxy
        proxy.guard.begin(self._name)
        proxy.guard.renewed = self._ask_again
        proxy.status.value = ASKED
        return number

    def _leave(self, number: int) -> None:
        proxy = self.by_id.pop(number)
        del self._asked[number]
        proxy.retire()
        proxy.guard.end()
        proxy.status.value = None
        logger.info("Proxy removed", extra={"proxy": proxy.name})

    def _take(self, answers: tuple[Bound | Rejected, ...]) -> None:
        if self._due != tuple(answer.proxy_id for answer in answers):
            raise RemoteProtocolError("reconfigured does not answer what was asked")
        self._due = None
        for answer in answers:
            tell(self.by_id[answer.proxy_id], answer)
        self._answered.set()


def _plain(request: ProxyRequest) -> ProxyRequest:
    """What is asked for, without what only helps to find a port."""
    return attrs.evolve(request, preferred_port=0)


def tell(proxy: LocalProxy, answer: Bound | Rejected) -> None:
    """Tell a proxy, and the log, what became of it.

    Raises:
      RemoteProtocolError: it was published without an address, or one for visitors only with one.
    """
    if isinstance(answer, Bound) and bool(answer.addresses) is proxy.spec.visitors_only:
        fault = "no address" if not answer.addresses else "an address, and is for visitors only"
        raise RemoteProtocolError(f"the server says that {proxy.name} has {fault}")
    proxy.status.value = answer
    if isinstance(answer, Bound):
        if proxy.addresses != answer.addresses or proxy.spec.visitors_only:
            proxy.published(answer.addresses)
        return
    proxy.addresses = ()
    logger.warning(
        "Proxy rejected",
        extra={
            "proxy": proxy.name,
            "port": proxy.spec.publish_port,
            "code": answer.code.value,
            "reason": answer.text,
            "again": "the server keeps trying" if answer.code.passes else "no",
        },
    )
