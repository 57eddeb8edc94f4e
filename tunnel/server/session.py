"""One client's whole life on the server."""

from __future__ import annotations

import contextlib
import secrets
import ssl

import trio

from tunnel import limits
from tunnel._version import __version__
from tunnel.errors import Refused, RemoteProtocolError
from tunnel.events import ClientRefused, End, EndReason, HandshakeFailed
from tunnel.model import Address, RefusalCode
from tunnel.net.contexts import ALPN
from tunnel.net.framed import next_event
from tunnel.net.settings import link_settings
from tunnel.net.tls import TlsStream
from tunnel.net.transport import Transport
from tunnel.protocol.handshake import Binding, ClientProved, ConfigureReceived, ServerHandshake
from tunnel.protocol.messages import RECONFIGURE, VISITORS, Capabilities, Stopping
from tunnel.server.identity import certificate_names
from tunnel.server.proxies import in_order, serve_proxy
from tunnel.server.registry import Owner
from tunnel.server.state import Proved, Server, Session
from tunnel.server.strangers import Stranger

#: What this end can take.
OWN = Capabilities(features=(RECONFIGURE, VISITORS))


class SetupEnded(Exception):
    """A session came to its end before its client was told that it is connected."""

    def __init__(self, reason: EndReason, text: str) -> None:
        super().__init__(text)
        self.end = End(reason, text)


async def serve_client(transport: Transport, server: Server, stranger: Stranger) -> None:
    """One client's whole life: TLS, proofs, its ghost gone, ports up, traffic, ports down.

    Nothing that a peer can cause is raised: each such end is an event. Cancelled, it says goodbye
    to the client, and everything is released when it returns.

    Args:
      transport: the connection; closed here.
      server: what all sessions share.
      stranger: its place among those that have proved nothing.
    """
    tls = TlsStream(transport, server.tls.context, server_side=True)
    handshake = _handshake(server)
    deadline = trio.current_time() + server.policy.handshake_timeout
    try:
        with trio.fail_at(deadline):
            session = await _meet(tls, handshake, stranger, server)
        deadline += limits.PROBE_LONGEST  # asking a silent session takes time of its own
        async with server.registry.registered(session.registration, deadline):
            async with trio.open_nursery() as nursery:
                with trio.fail_at(deadline), session.setup:
                    for proxy in in_order(session.proxies):
                        await nursery.start(serve_proxy, proxy, session.proxies)
                    # Not before: what withdraws a proxy must not come while it is started.
                    await nursery.start(_attend, session, server, nursery)
                    await tls.send_all(handshake.configured(session.proxies.answers()))
                if session.evicted is not None:
                    raise SetupEnded(session.evicted.reason, session.evicted.text)
                with server.present(session), session.visits.living():
                    end = await session.link.run()
                nursery.cancel_scope.cancel()
        server.events.emit(session.disconnected(end))
    except* (Refused, RemoteProtocolError) as group:
        await _refuse(tls, handshake, server, stranger.address, group.exceptions[0])
    except* SetupEnded as group:
        _tell_failed(server, stranger.address, _first(group).end)
    except* (OSError, trio.BrokenResourceError) as group:
        failed = End(EndReason.OTHER, str(group.exceptions[0]))
        _tell_failed(server, stranger.address, failed)
    except* trio.TooSlowError:
        _tell_failed(server, stranger.address, End(EndReason.TOO_SLOW, "too slow"))
    finally:
        tls.abort()


# --- Getting to know each other ---------------------------------------------------------------


def _handshake(server: Server) -> ServerHandshake:
    return ServerHandshake(
        lookup=server.identities.verifier,
        dummy=server.dummy,
        binding=Binding("certificate", server.tls.leaf_hash),
        nonce=secrets.token_bytes(32),
        session_id=secrets.token_hex(16),
        capabilities=OWN,
        server_version=__version__,
    )


async def _meet(
    tls: TlsStream, handshake: ServerHandshake, stranger: Stranger, server: Server
) -> Session:
    """TLS, then the handshake up to what the client wants published."""
    await _shake_hands(tls)
    if tls.alpn != ALPN:
        text = f"not a client: it does not speak {ALPN}"
        raise SetupEnded(EndReason.NOT_A_CLIENT, text)
    await tls.send_all(handshake.challenge())
    try:
        proved = await next_event(handshake, tls)
    except Refused as error:
        if error.code == RefusalCode.AUTHENTICATION:
            error.retry_after = server.strangers.failed(stranger)
        raise
    assert isinstance(proved, ClientProved)  # the handshake's table  # noqa: S101
    server.strangers.proved(stranger)
    client = _identify(tls, proved, stranger.address, server)
    await tls.send_all(handshake.accept(name=client.name))
    wanted = await next_event(handshake, tls)
    assert isinstance(wanted, ConfigureReceived)  # the handshake's table  # noqa: S101
    settings = link_settings(
        OWN,
        proved.capabilities,
        keepalive_interval=server.policy.keepalive_interval,
        keepalive_timeout=server.policy.keepalive_timeout,
    )
    session = Session(handshake.session_id, client, server, tls, settings)
    session.proxies.request(wanted.proxies)
    session.visits.want(wanted.visitors)
    return session


async def _shake_hands(tls: TlsStream) -> None:
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            await tls.refuse()  # or the alert, which says why, would be overtaken by a reset
        raise


def _identify(tls: TlsStream, proved: ClientProved, address: Address, server: Server) -> Proved:
    """Who the client is; raises Refused if its key or its certificate does not allow that."""
    if (identity := server.identities.find(proved.key_id)) is None:
        raise Refused(RefusalCode.AUTHENTICATION, "the key was taken out of the configuration")
    if (certificate := tls.peer_certificate()) is not None:
        identity.check_certificate(certificate_names(certificate))
    return Proved(
        Owner(proved.key_id.hex(), proved.client_id),
        identity,
        server.identities.name(proved.key_id, proved.name),
        proved.instance_id,
        proved.attempt,
        address,
    )


async def _refuse(
    tls: TlsStream,
    handshake: ServerHandshake,
    server: Server,
    address: Address,
    error: BaseException,
) -> None:
    """Say no so that it arrives, and tell of it once."""
    if not isinstance(error, Refused):
        error = Refused(RefusalCode.PROTOCOL, str(error))
    refused = error
    server.limited.emit(
        f"refused/{refused.code}",
        lambda left_out: ClientRefused(address, refused.code, refused.text, left_out),
    )
    with trio.move_on_after(limits.REFUSAL_DRAIN_TIMEOUT):
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await tls.send_all(handshake.refuse(refused.code, refused.text, refused.retry_after))
            await tls.refuse()


def _tell_failed(server: Server, address: Address, end: End) -> None:
    server.limited.emit("handshake", lambda left_out: HandshakeFailed(address, end, left_out))


def _first(group: BaseExceptionGroup[SetupEnded]) -> SetupEnded:
    error = group.exceptions[0]
    assert isinstance(error, SetupEnded)  # groups here have one level  # noqa: S101
    return error


async def _attend(
    session: Session,
    server: Server,
    nursery: trio.Nursery,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """See to changes while the session lives; when the server drains, let what lives finish.

    Live connections get the policy's `shutdown_grace`, in seconds.
    """
    await session.proxies.attend(nursery, server.draining, task_status=task_status)
    session.say(Stopping())
    with trio.move_on_after(server.policy.shutdown_grace):
        await session.reachable.wait()
        await session.link.carrier.wait_idle()
    session.link.end("the server stops", EndReason.STOPPED)
