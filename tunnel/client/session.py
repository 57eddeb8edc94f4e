"""One session on the client: from dialling to its end, with everything released."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable

import trio

from tunnel.client.dial import certificate_remedy, leaf_hash
from tunnel.client.state import OWN, Agreement, Client, ClientSession
from tunnel.errors import LinkLost
from tunnel.events import End, EndReason
from tunnel.net.framed import next_event
from tunnel.net.tls import TlsStream
from tunnel.protocol.handshake import (
    Binding,
    ChallengeReceived,
    ClientHandshake,
    ConfiguredReceived,
    ServerProved,
)
from tunnel.protocol.messages import VISITORS

logger = logging.getLogger(__name__)


async def hold_session(client: Client, attempt: int, connected: Callable[[], None]) -> End:
    """One connection: dial, prove, publish, serve; returns how it ended, when all is released.

    If cancelled, it says goodbye to the server; see `Link.run`.

    Args:
      client: what to do.
      attempt: counts the connections of this process from 1.
      connected: called when the proxies are published.

    Raises (also in an `ExceptionGroup`):
      LinkLost: the server could not be reached.
      Refused: it said no.
      RemoteProtocolError, BrokenResourceError: the connection ended before the session began, or
        the server broke the protocol while it did.
      TooSlowError: all that took longer than `connect_timeout`.
    """
    with contextlib.ExitStack() as released:
        with trio.fail_after(client.settings.connect_timeout):
            tls = await client.settings.dial()
            released.callback(tls.abort)
            client.host = tls.server_hostname
            agreement = await meet(tls, client, attempt)
        async with trio.open_nursery() as nursery:
            session = ClientSession(nursery, tls, client, agreement)
            released.callback(session.release)  # once the nursery has been left
            for proxy in session.proxies.values():
                await nursery.start(proxy.serve, client.events)
            session.on_answers(agreement.answers)
            with client.present(session):
                connected()
                nursery.start_soon(session.attend)
                nursery.start_soon(session.serve_visit_ports)
                end = await session.link.run()
            nursery.cancel_scope.cancel()
    # However the connection ended: if the server has said that it stops, that is the reason.
    return End(EndReason.STOPPED, end.text) if session.server_stopping else end


# --- Getting to know each other ---------------------------------------------------------------


async def meet(tls: TlsStream, client: Client, attempt: int) -> Agreement:
    """The handshake, up to the server's answers.

    Args:
      tls: where nothing was said yet.
      client: who connects. What it wants published and visited is taken at the moment in which the
        server is asked, and those proxies are `ASKED` from then on, unless this raises.
      attempt: counts the connections of this process from 1.

    Raises:
      LinkLost, Refused, RemoteProtocolError, BrokenResourceError: see `hold_session`.
    """
    handshake = ClientHandshake(
        keys=client.settings.keys,
        binding=Binding("certificate", leaf_hash(tls)),
        nonce=secrets.token_bytes(32),
        name=client.settings.name,
        client_id=client.client_id,
        instance_id=client.instance_id,
        attempt=attempt,
        capabilities=OWN,
    )
    server = await _prove(tls, handshake)
    logger.debug(
        "Server proved",
        extra={
            "session": server.session[:8],
            "client": server.name,
            "version": server.server_version,
        },
    )
    # From here to the request nothing is awaited: what is withdrawn later was asked for, and what
    # was withdrawn before was not.
    proxies, visit_ports = client.proxies, client.visit_ports
    if VISITORS not in server.capabilities.features and any(p.spec.visitors_only for p in proxies):
        # It would publish them for everybody.
        raise LinkLost("the server knows no visitors_only: update it, or publish those proxies")
    with contextlib.ExitStack() as unless_answered:
        for proxy in proxies:
            proxy.begin_session(server.name)
            unless_answered.callback(proxy.end_session)
        requests = tuple(proxy.request() for proxy in proxies)
        visits = tuple(port.request(number) for number, port in enumerate(visit_ports))
        await _send(tls, handshake.configure(requests, visits))
        configured = await next_event(handshake, tls)
        assert isinstance(configured, ConfiguredReceived)  # the handshake's table  # noqa: S101
        unless_answered.pop_all()
    wanted = tuple(zip(proxies, requests, strict=True))
    return Agreement(server, wanted, configured.answers, visit_ports, handshake.trailing_data)


async def _prove(tls: TlsStream, handshake: ClientHandshake) -> ServerProved:
    """The part of the handshake in which both ends prove that they know the key."""
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
    assert isinstance(proved, ServerProved)  # the handshake's table  # noqa: S101
    return proved


async def _send(tls: TlsStream, data: bytes) -> None:
    """Send, and leave a failure to the next read: the server may have said why before it went."""
    with contextlib.suppress(trio.BrokenResourceError):
        await tls.send_all(data)
