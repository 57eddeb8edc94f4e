"""One session on the client: from dialling to its end, with everything released."""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable

import attrs
import trio

from tunnel import limits
from tunnel.client.connect import certificate_remedy, leaf_hash
from tunnel.client.dialling import accept_visitors
from tunnel.client.proxy import ASKED, LocalProxy
from tunnel.client.publishing import Published
from tunnel.client.visitors import LocalVisitor
from tunnel.errors import LinkLost, RemoteProtocolError, TunnelError
from tunnel.eventlog import logged_events
from tunnel.events import End, EndReason, EventStream
from tunnel.net.clock import SleepDetector, sleep_while_awake
from tunnel.net.framed import next_event
from tunnel.net.link import Link
from tunnel.net.settings import link_settings
from tunnel.net.tls import TlsStream
from tunnel.protocol.handshake import (
    Binding,
    ChallengeReceived,
    ClientHandshake,
    ConfiguredReceived,
    ServerProved,
)
from tunnel.protocol.keys import ClientKeys
from tunnel.protocol.messages import RECONFIGURE, VISITORS, Capabilities, ProxyRequest
from tunnel.yamux import Role

logger = logging.getLogger(__name__)

#: What this end can take.
OWN = Capabilities(features=(RECONFIGURE, VISITORS))


@attrs.define(eq=False)
class Client:
    """What all sessions of a client share. Seconds throughout.

    Args:
      dial: connects to the server; see `Dialler`.
      keys: derived from the authentication key.
      name: how the server's logs call this client.
      client_id: made once per configuration.
      proxies: what to publish.
      connect_timeout: from dialling to configured.
      reconnect_delay, reconnect_max_delay: see `Backoff`.
      keepalive_interval: silence before a ping.
      keepalive_timeout: silence after it before the server counts as gone.
      carrier: what carries local sockets; None for the best there is.
    """

    dial: Callable[[], Awaitable[TlsStream]]
    keys: ClientKeys
    name: str
    client_id: str
    proxies: tuple[LocalProxy, ...]
    connect_timeout: float = limits.CONNECT_TIMEOUT
    reconnect_delay: float = limits.RECONNECT_DELAY
    reconnect_max_delay: float = limits.RECONNECT_DELAY
    keepalive_interval: float = limits.KEEPALIVE_INTERVAL
    keepalive_timeout: float = limits.KEEPALIVE_TIMEOUT
    carrier: str | None = None
    #: What other clients have and this one visits.
    visitors: tuple[LocalVisitor, ...] = attrs.field(default=(), kw_only=True)
    #: Told what happens.
    events: EventStream = attrs.field(factory=logged_events, kw_only=True)
    #: The server that answered last, as it was dialled.
    host: str | None = attrs.field(default=None, init=False)
    #: Asked after each attempt and each session why it ended; True ends the loop with that error.
    gives_up: Callable[[TunnelError], bool] = attrs.field(default=lambda _: False, kw_only=True)
    #: Made once per process: tells a restart from a reconnect.
    instance_id: str = attrs.field(factory=lambda: secrets.token_hex(16), init=False)
    #: What the session that lives has published; None while there is none.
    published: Published | None = attrs.field(default=None, init=False)
    #: Cancelled to try at once, and not after a delay.
    pause: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    #: True if the next session is to begin at once.
    anew: bool = attrs.field(default=False, init=False)

    def become(self, other: Client, *, anew: bool) -> None:
        """Be as the other one, which was never run; returns at once, while it is being done.

        Args:
          other: what to be, but for its ids. Proxies that it has in the same place stay published.
          anew: in a session of its own; else the one that lives is changed.
        """
        former = {proxy.place: proxy for proxy in self.proxies}
        for proxy in other.proxies:
            if proxy.place in former:
                former[proxy.place].become(proxy)
        self.proxies = tuple(former.get(proxy.place, proxy) for proxy in other.proxies)
        anew = anew or self._secrets() != other._secrets()
        self.dial, self.keys, self.name = other.dial, other.keys, other.name
        self.visitors, self.connect_timeout = other.visitors, other.connect_timeout
        self.reconnect_delay = other.reconnect_delay
        self.reconnect_max_delay = other.reconnect_max_delay
        self.keepalive_interval = other.keepalive_interval
        self.keepalive_timeout = other.keepalive_timeout
        if anew:
            self.anew = True
            self.pause.cancel()
        if self.published is not None:
            if anew:
                self.published.link.end("the configuration has changed")
            else:
                self.published.want(self.proxies)

    def _secrets(self) -> tuple[object, ...]:
        """What a session begins with, and a file elsewhere may have another of."""
        return self.keys, *(visitor.visit_key for visitor in self.visitors)


@attrs.frozen
class Ended:
    """How a session came to its end.

    Args:
      end: why.
      stopping: the server had said that it stops.
    """

    end: End
    stopping: bool = False


async def hold_session(client: Client, attempt: int, connected: Callable[[], None]) -> Ended:
    """One connection: dial, prove, publish, serve; returns how it ended.

    Args:
      client: what to do.
      attempt: counts the connections of this process from 1.
      connected: called when the proxies are published.

    Raises (also in an `ExceptionGroup`):
      LinkLost: the server could not be reached.
      Refused: it said no.
      RemoteProtocolError, BrokenResourceError, TooSlowError: it did not come to an end.
    """
    with trio.fail_after(client.connect_timeout) as patience:
        tls = await client.dial()
        client.host = tls.server_hostname
        proxies, visitors = client.proxies, client.visitors
        try:
            for proxy in proxies:
                proxy.standing.value = ASKED
            proved, requests, configured, early = await _introduce(
                tls, client, proxies, visitors, attempt
            )
            patience.deadline = math.inf
            async with trio.open_nursery() as nursery:
                for proxy in proxies:
                    await nursery.start(proxy.serve)
                published = Published(
                    nursery, proxies, requests, visitors, configured.answers, proved
                )
                link = _link(tls, client, published.by_id, proved, early)
                published.open_control(link)
                client.published = published
                connected()
                nursery.start_soon(_attend, client, published)
                nursery.start_soon(_visit, visitors, proved, link)
                end = await link.run()
                nursery.cancel_scope.cancel()
            return Ended(end, published.stopping)
        finally:
            last, client.published = client.published, None
            tls.abort()
            _forget({*proxies, *(last.by_id.values() if last else ())})


def _forget(proxies: Iterable[LocalProxy]) -> None:
    for proxy in proxies:
        proxy.standing.value = None
        proxy.guard.end()


async def _introduce(
    tls: TlsStream,
    client: Client,
    proxies: tuple[LocalProxy, ...],
    visitors: tuple[LocalVisitor, ...],
    attempt: int,
) -> tuple[ServerProved, tuple[ProxyRequest, ...], ConfiguredReceived, bytes]:
    """The handshake, and what it asked for; the bytes are the link's first."""
    handshake = ClientHandshake(
        keys=client.keys,
        binding=Binding("certificate", leaf_hash(tls)),
        nonce=secrets.token_bytes(32),
        name=client.name,
        client_id=client.client_id,
        instance_id=client.instance_id,
        attempt=attempt,
        capabilities=OWN,
    )
    try:
        challenge = await next_event(handshake, tls)
    except trio.BrokenResourceError as error:
        # With TLS 1.3 the server looks at the client's certificate when the client is through.
        if (remedy := certificate_remedy(error)) is None:
            raise
        raise LinkLost(remedy) from error
    assert isinstance(challenge, ChallengeReceived)  # the handshake's table  # noqa: S101
    await _send(tls, handshake.authenticate())
    proved = await next_event(handshake, tls)
    assert isinstance(proved, ServerProved)  # the same  # noqa: S101
    if VISITORS not in proved.capabilities.features and any(p.visitors_only for p in proxies):
        # It would publish them for everybody.
        raise LinkLost("the server knows no visitors_only: update it, or publish those proxies")
    for proxy in proxies:
        proxy.guard.begin(proved.name)
    requests = tuple(proxy.request() for proxy in proxies)
    visits = tuple(visitor.request(i) for i, visitor in enumerate(visitors))
    await _send(tls, handshake.configure(requests, visits))
    configured = await next_event(handshake, tls)
    assert isinstance(configured, ConfiguredReceived)  # the same  # noqa: S101
    if len(configured.answers) != len(proxies):
        raise RemoteProtocolError("the server did not answer for every proxy")
    logger.debug(
        "Server proved",
        extra={
            "session": proved.session[:8],
            "client": proved.name,
            "version": proved.server_version,
        },
    )
    return proved, requests, configured, handshake.trailing_data


async def _send(tls: TlsStream, data: bytes) -> None:
    """Send, and leave a failure to the next read: the server may have said why before it went."""
    with contextlib.suppress(trio.BrokenResourceError):
        await tls.send_all(data)


def _link(
    tls: TlsStream,
    client: Client,
    by_id: dict[int, LocalProxy],
    proved: ServerProved,
    early: bytes,
) -> Link:
    settings = link_settings(
        OWN,
        proved.capabilities,
        keepalive_interval=client.keepalive_interval,
        keepalive_timeout=client.keepalive_timeout,
    )
    accept = accept_visitors(by_id, client.events)
    return Link(tls, Role.CLIENT, settings, accept, carrier=client.carrier, early=early)


async def _visit(visitors: tuple[LocalVisitor, ...], proved: ServerProved, link: Link) -> None:
    """Own the local ports that lead to other clients' proxies, until cancelled."""
    if visitors and VISITORS not in proved.capabilities.features:
        logger.warning("Server knows no visits", extra={"remedy": "update the server"})
        return
    async with trio.open_nursery() as nursery:
        for number, visitor in enumerate(visitors):
            nursery.start_soon(visitor.serve, number, link, proved.name)


async def _attend(client: Client, published: Published) -> None:
    """See to what may change meanwhile: the configuration, and whether the server is there.

    When this machine has slept the server is asked for a sign of life: most likely it gave up.
    """
    link = published.link
    await link.running.wait()
    if client.anew:
        link.end("the configuration has changed")
    published.want(client.proxies)
    detector = SleepDetector()
    while True:
        await sleep_while_awake(math.inf, detector)
        if not await link.answers():
            link.lose("no sign of life since this machine slept", EndReason.SILENCE)
