"""A running client as plain values: what is shown of it over HTTP, at a moment."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from tunnel.client.dial import Dialler
from tunnel.client.proxy import LocalProxy
from tunnel.client.state import Client
from tunnel.net.observe import observe_connections, observe_link
from tunnel.stats import Counters
from tunnel.views import ConnectionsView, ProgramView, ProxyView, SessionView, Snapshots


def client_snapshots(client: Client) -> Snapshots:
    """How to look at a client, at any moment."""
    return Snapshots(
        "client",
        functools.partial(view, client),
        functools.partial(connections, client),
        functools.partial(counters, client),
    )


def view(client: Client) -> ProgramView:
    """The client now. It has one session, which is connected or not."""
    live, server = client.session, _servers(client)
    session = SessionView(
        client.settings.name,
        None,
        server,
        None if live is None else live.since,
        None if live is None else observe_link(live.link),
        tuple(map(_proxy, client.proxies)),
    )
    unready = _unready(client.proxies)
    if live is None:
        unready = "not connected to the server"
    return ProgramView(client.state.value.value, unready, (session,), server=server)


def counters(client: Client) -> Iterator[Counters]:
    """Those of all its proxies, published or not."""
    return (proxy.counters for proxy in client.proxies)


def connections(client: Client) -> ConnectionsView:
    """Its connections to local services now. This takes some time where there are thousands."""
    live = client.session
    links = [] if live is None else [(client.settings.name, live.link)]
    return observe_connections(links, is_server=False)


def _servers(client: Client) -> str | None:
    """What is dialled; None if something else than a `Dialler` dials."""
    dial = client.settings.dial
    return ", ".join(map(str, dial.servers)) if isinstance(dial, Dialler) else None


def _unready(proxies: Iterable[LocalProxy]) -> str | None:
    missing = [proxy.name for proxy in proxies if not proxy.up]
    return f"not published: {', '.join(missing)}" if missing else None


def _proxy(proxy: LocalProxy) -> ProxyView:
    return ProxyView(
        proxy.name,
        proxy.spec.publish_addr,
        proxy.spec.publish_port,
        proxy.addresses,
        proxy.spec.local_addr,
        proxy.spec.local_port,
        proxy.start_time,
        proxy.counters,
        proxy.up,
    )
