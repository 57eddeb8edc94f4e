"""A running server as plain values: what is shown of it over HTTP, at a moment."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

import trio

from tunnel.model import Address
from tunnel.net.observe import observe_connections, observe_link
from tunnel.server.certificate import CertificateKeeper
from tunnel.server.proxy import Proxy
from tunnel.server.state import Server, Session
from tunnel.stats import Counters
from tunnel.views import ConnectionsView, ProgramView, ProxyView, SessionView, Snapshots


def server_snapshots(
    server: Server, certificate: CertificateKeeper, addresses: tuple[Address, ...]
) -> Snapshots:
    """How to look at a server, at any moment.

    Args:
      server: what its sessions share.
      certificate: what it shows.
      addresses: where it listens for clients.
    """
    return Snapshots(
        "server",
        functools.partial(view, server, certificate, addresses),
        functools.partial(connections, server),
        functools.partial(counters, server),
    )


def view(
    server: Server, certificate: CertificateKeeper, addresses: tuple[Address, ...]
) -> ProgramView:
    """The server now; the arguments are those of `server_snapshots`."""
    draining = server.draining.is_set()
    return ProgramView(
        "draining" if draining else "running",
        "it stops" if draining else None,
        tuple(map(_session, server.sessions.values())),
        addresses=addresses,
        rejected={reason.value: count for reason, count in server.tally.statistics().items()},
        strangers=len(server.strangers),
        certificate_until=certificate.until.timestamp(),
    )


def counters(server: Server) -> Iterator[Counters]:
    """Those of all its proxies, published or not."""
    for session in server.sessions.values():
        yield from (proxy.counters for proxy in session.proxies)


def connections(server: Server) -> ConnectionsView:
    """Its visitors' connections now. This takes some time where there are thousands."""
    links = [(session.registration.name, session.link) for session in server.sessions.values()]
    return observe_connections(links, is_server=True)


def _session(session: Session) -> SessionView:
    return SessionView(
        session.registration.name,
        session.session_id[:8],
        str(session.registration.address),
        time.time() - (trio.current_time() - session.started),
        observe_link(session.link),
        tuple(map(_proxy, session.proxies)),
    )


def _proxy(proxy: Proxy) -> ProxyView:
    return ProxyView(
        proxy.name,
        proxy.host,
        proxy.port,
        proxy.addresses,
        "",
        proxy.request.local_port,
        proxy.start_time,
        proxy.counters,
        proxy.up,
    )
