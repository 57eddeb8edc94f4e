"""One session on the client: from dialling to its end, with everything released."""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
from collections.abc import Awaitable, Callable

import attrs
import trio

from tunnel import limits
from tunnel.client.connect import certificate_advice, leaf_hash
from tunnel.client.dialling import accept_visitors
from tunnel.client.proxy import LocalProxy
from tunnel.errors import LinkLost, RemoteProtocolError
from tunnel.net.clock import SleepDetector, sleep_while_awake
from tunnel.net.control import Control
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
from tunnel.protocol.messages import (
    Bound,
    Capabilities,
    Message,
    Rejected,
    Stopping,
    Unknown,
)
from tunnel.yamux import Role

logger = logging.getLogger(__name__)

#: What this end can take.
OWN = Capabilities()


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
    #: Made once per process: tells a restart from a reconnect.
    instance_id: str = attrs.field(factory=lambda: secrets.token_hex(16), init=False)


@attrs.frozen
class Ended:
    """How a session came to its end.

    Args:
      reason: for a log line.
      stopping: the server had said that it stops.
    """

    reason: str
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
        try:
            proved, configured, early = await _introduce(tls, client, attempt)
            patience.deadline = math.inf
            async with trio.open_nursery() as nursery:
                for proxy in client.proxies:
                    await nursery.start(proxy.serve)
                by_id = _publish(client.proxies, configured.answers)
                link = _link(tls, client, by_id, proved, early)
                stopping = _open_control(link, by_id)
                nursery.start_soon(_probe_after_sleep, link)
                connected()
                reason = await link.run()
                nursery.cancel_scope.cancel()
            return Ended(reason, stopping.is_set())
        finally:
            tls.abort()


async def _introduce(
    tls: TlsStream, client: Client, attempt: int
) -> tuple[ServerProved, ConfiguredReceived, bytes]:
    """The handshake; the bytes are the link's first."""
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
        if (advice := certificate_advice(error)) is None:
            raise
        raise LinkLost(advice) from error
    assert isinstance(challenge, ChallengeReceived)  # the handshake's table  # noqa: S101
    await _send(tls, handshake.authenticate())
    proved = await next_event(handshake, tls)
    assert isinstance(proved, ServerProved)  # the same  # noqa: S101
    await _send(tls, handshake.configure(tuple(proxy.request() for proxy in client.proxies)))
    configured = await next_event(handshake, tls)
    assert isinstance(configured, ConfiguredReceived)  # the same  # noqa: S101
    if len(configured.answers) != len(client.proxies):
        raise RemoteProtocolError("the server did not answer for every proxy")
    logger.debug(
        "Server proved",
        extra={
            "session": proved.session[:8],
            "client": proved.name,
            "version": proved.server_version,
        },
    )
    return proved, configured, handshake.trailing_data


async def _send(tls: TlsStream, data: bytes) -> None:
    """Send, and leave a failure to the next read: the server may have said why before it went."""
    with contextlib.suppress(trio.BrokenResourceError):
        await tls.send_all(data)


def _publish(
    proxies: tuple[LocalProxy, ...], answers: tuple[Bound | Rejected, ...]
) -> dict[int, LocalProxy]:
    """Tell what became of each proxy; the result finds them by the ids that the server gave."""
    for proxy, answer in zip(proxies, answers, strict=True):
        if isinstance(answer, Bound):
            proxy.published(answer.addresses)
        else:
            logger.warning(
                "Proxy rejected",
                extra={
                    "proxy": proxy.name,
                    "port": proxy.publish_port,
                    "code": answer.code.value,
                    "reason": answer.text,
                    "again": "the server keeps trying" if answer.code.passes else "no",
                },
            )
    return {answer.proxy_id: proxy for proxy, answer in zip(proxies, answers, strict=True)}


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
    accept = accept_visitors(by_id)
    return Link(tls, Role.CLIENT, settings, accept, carrier=client.carrier, early=early)


async def _probe_after_sleep(link: Link) -> None:
    """Ask for a sign of life when this machine has slept: the server gave up on it, most likely."""
    detector = SleepDetector()
    while True:
        await sleep_while_awake(math.inf, detector)
        if not await link.answers():
            link.lose("no sign of life since this machine slept")


def _open_control(link: Link, by_id: dict[int, LocalProxy]) -> trio.Event:
    """Open the control stream, on which the server says what changes; the session ends with it.

    The event is set when the server says that it stops.
    """
    stopping = trio.Event()

    def heard(notice: Message | Unknown) -> None:
        match notice:
            case Bound(proxy_id, addresses) if proxy_id in by_id:
                by_id[proxy_id].published(addresses)
            case Stopping():
                logger.info("Server stops", extra={"visitors": link.carrier.count})
                stopping.set()
            case _:
                logger.debug("Notice ignored", extra={"notice": notice.kind})

    stream_id = link.open_stream()
    link.attach(stream_id, Control(link, stream_id, heard))
    return stopping
