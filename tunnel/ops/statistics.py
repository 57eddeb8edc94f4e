"""A program's statistics as JSON: what `/stats`, `/status` and `/events` answer."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import trio

from tunnel import limits
from tunnel._version import __version__
from tunnel.events import (
    ClientConnected,
    Connected,
    Event,
    EventStream,
    OwnProxyPublished,
    ProxyPublished,
)
from tunnel.ops.journal import Journal
from tunnel.stats import Histogram, Totals
from tunnel.views import (
    ConnectionsView,
    ConnectionView,
    LinkView,
    ProgramView,
    ProxyView,
    SessionView,
    Snapshots,
)

#: Round trips between two processes of one machine, across the earth, and by satellite and back.
RTT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LAG_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

#: Events after which there are counters that were not there before.
_WITH_NEW_COUNTERS = (ClientConnected, ProxyPublished, Connected, OwnProxyPublished)

Json = dict[str, Any]


@attrs.define(eq=False)
class Statistics:
    """Everything that can be asked of one running program.

    Args:
      snapshots: how to look at it.
    """

    snapshots: Snapshots
    journal: Journal = attrs.field(factory=Journal)
    totals: Totals = attrs.field(factory=Totals, init=False)
    rtt: Histogram = attrs.field(factory=lambda: Histogram(RTT_BOUNDS), init=False)
    lag: Histogram = attrs.field(factory=lambda: Histogram(LAG_BOUNDS), init=False)
    #: Event loop lag: the last one, and the longest of each of the last seconds.
    last_lag: float = attrs.field(default=0.0, init=False)
    _lags: list[float] = attrs.field(factory=list, init=False)
    started: float = attrs.field(factory=time.time, init=False)
    #: Tells this process from the one before it.
    process: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    _seen: ConnectionsView | None = attrs.field(default=None, init=False)
    _seen_at: float = attrs.field(default=-math.inf, init=False)

    @contextmanager
    def kept(self, events: EventStream) -> Iterator[None]:
        """Keep what happens during the block, and the sums of all that is published in it."""
        token = trio.lowlevel.current_trio_token()

        def look_for_counters(event: Event) -> None:
            # A session is gone when its end is told, and its counters with it: so they are looked
            # for when they are new, and `totals` has them from then on. A client may publish
            # thousands at once, for which one look is enough.
            if isinstance(event, _WITH_NEW_COUNTERS):
                token.run_sync_soon(self._settle, idempotent=True)

        with self.journal.kept(events), events.subscribed(look_for_counters):
            yield

    @property
    def role(self) -> Literal["server", "client"]:
        """Whose program it is."""
        return self.snapshots.role

    def _settle(self) -> None:
        self.totals.look(self.snapshots.counters())

    def look(self) -> ProgramView:
        """The program now; the sums include what it says."""
        self._settle()
        return self.snapshots.view()

    def look_at_connections(self) -> ConnectionsView:
        """Its connections, as they were at most `limits.CONNECTIONS_INTERVAL` seconds ago."""
        now = trio.current_time()
        if self._seen is None or now >= self._seen_at + limits.CONNECTIONS_INTERVAL:
            self._seen, self._seen_at = self.snapshots.connections(), now
        return self._seen

    async def sample(self) -> None:
        """Measure what can only be measured as time passes, until cancelled."""
        rtt_at = due = trio.current_time()
        while True:
            due += limits.LAG_INTERVAL
            await trio.sleep_until(due)
            now = trio.current_time()
            self._note_lag(now - due)
            view = self.look()
            if now >= rtt_at:
                rtt_at = now + limits.RTT_INTERVAL
                for session in view.sessions:
                    if session.link is not None and session.link.rtt is not None:
                        self.rtt.observe(session.link.rtt)
            due = now

    def _note_lag(self, lag: float) -> None:
        self.last_lag = lag
        self.lag.observe(lag)
        self._lags = [*self._lags[-59:], lag]

    # --- Answers -----------------------------------------------------------------------------

    def stats(self) -> list[Json]:
        """`/stats`: the proxies."""
        return list(self._proxies(self.look()))

    def status(self) -> Json:
        """`/status`: everything that a page shows."""
        view = self.look()
        totals = self.totals.statistics()
        sent, received = self.snapshots.sent_and_received(totals.delivered, totals.read)
        connected = [session for session in view.sessions if session.link is not None]
        return {
            "role": self.role,
            "version": __version__,
            "process": self.process,
            "started": self.started,
            "now": time.time(),
            "ready": view.unready is None,
            "state": view.state,
            "name": view.sessions[0].client if self.role == "client" else None,
            "server": view.server,
            "addresses": [str(address) for address in view.addresses],
            "loop_lag": self.last_lag,
            "loop_lag_max": max(self._lags, default=0.0),
            "certificate_expires": view.certificate_until,
            "totals": {
                "connections": totals.total,
                "active_connections": totals.active,
                "bytes_sent": sent,
                "bytes_received": received,
                "sessions": len(connected),
            },
            "rejected": dict(view.rejected),
            "sessions": [_session(session, session.link) for session in connected if session.link],
            "proxies": list(self._proxies(view)),
            "connections": self._connections(self.look_at_connections()),
        }

    def events(self, after: int) -> Json:
        """`/events`: what happened since the event of that number."""
        return {
            "process": self.process,
            "last": self.journal.last,
            "events": [
                {
                    "id": entry.number,
                    "time": entry.time,
                    "kind": entry.kind,
                    "text": entry.text,
                    "level": entry.level,
                    "details": entry.details,
                }
                for entry in self.journal.since(after)
            ],
        }

    def _proxies(self, view: ProgramView) -> Iterator[Json]:
        for session in view.sessions:
            for proxy in session.proxies:
                if self.role == "client":
                    yield self._client_proxy(session, proxy)
                elif proxy.addresses:
                    yield self._server_proxy(session, proxy)

    def _server_proxy(self, session: SessionView, proxy: ProxyView) -> Json:
        return {
            "name": proxy.name,
            "publish_addr": proxy.host,
            "publish_port": proxy.addresses[0].port,
            "local_port": proxy.local_port,
            **self._both(session, proxy),
        }

    def _client_proxy(self, session: SessionView, proxy: ProxyView) -> Json:
        return {
            "name": proxy.name,
            "proxy_type": "tcp",
            "bind_addr": proxy.host,
            "bind_port": proxy.addresses[0].port if proxy.addresses else proxy.port,
            "target_addr": proxy.target,
            "target_port": proxy.local_port,
            "status": "published" if proxy.up else "waiting",
            **self._both(session, proxy),
        }

    def _both(self, session: SessionView, proxy: ProxyView) -> Json:
        counters = proxy.counters
        sent, received = self.snapshots.sent_and_received(counters.delivered, counters.read)
        return {
            "total_connections": counters.total,
            "active_connections": counters.active,
            "bytes_sent": sent,
            "bytes_received": received,
            "start_time": proxy.start_time,
            "client": session.client,
            "session": session.session,
            "rtt": session.link.rtt if session.link else None,
            "addresses": [str(address) for address in proxy.addresses],
        }

    def _connections(self, view: ConnectionsView) -> Json:
        return {
            "total": view.total,
            "waits": {reason.value: count for reason, count in view.waits.items()},
            "shown": [self._connection(client, one) for client, one in view.shown],
        }

    def _connection(self, client: str, one: ConnectionView) -> Json:
        sent, received = self.snapshots.sent_and_received(one.delivered, one.read)
        return {
            "connection": one.connection,
            "proxy": one.proxy,
            "client": client,
            "visitor": one.visitor,
            "waits": one.waits,
            "parked": one.parked,
            "queued": one.queued,
            "sent": sent,
            "received": received,
        }


def _session(session: SessionView, link: LinkView) -> Json:
    return {
        "session": session.session,
        "client": session.client,
        "address": session.address,
        "since": session.since,
        "rtt": link.rtt,
        "connections": link.connections,
        "streams": link.streams,
        "queued": link.queued,
        "blocked": link.blocked,
        "proxies": sum(1 for proxy in session.proxies if proxy.up),
    }
