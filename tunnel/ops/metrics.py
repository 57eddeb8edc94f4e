"""A program's statistics for Prometheus: read when they are asked for, from the same view.

Names follow https://prometheus.io/docs/practices/naming/. Labels have few values: those of clients
and proxies are of what lives now, and of these only so many; what has gone is in the sums without a
label, which only grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs
import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tunnel import limits
from tunnel._version import __version__
from tunnel.ops.statistics import Statistics
from tunnel.stats import Counters, Histogram
from tunnel.views import ProgramView, ProxyView

_PREFIX: Final = "tls_tunnel_"
#: See `Snapshots.sent_and_received`.
_Directed: TypeAlias = Callable[[int, int], tuple[int, int]]
#: What all proxies beyond `limits.METRIC_PROXIES` are counted under.
_OTHERS: Final = ("", "")

#: Counters of the journal: its kind, the metric, its label, and what it says.
_COUNTED: Final = (
    ("handshakes", "handshakes", "result", "Handshakes with clients, by what came of them."),
    ("refused", "refusals", "code", "Clients that a server refused, by the code that says why."),
    ("disconnected", "sessions_ended", "reason", "Sessions that ended, by reason."),
    ("taken over", "takeovers", "", "Sessions whose place a new connection of the client took."),
    ("published", "publications", "", "Ports that were bound for a client."),
    ("rejected", "proxies_rejected", "code", "Proxies that the server did not publish."),
    ("connecting", "connect_attempts", "", "Attempts of the client to connect."),
    ("connected", "connects", "", "Attempts that succeeded."),
    ("lost", "disconnects", "reason", "Connections to the server that were lost, or not made."),
)
_OF_SERVER: Final = {
    "handshakes",
    "refused",
    "disconnected",
    "taken over",
    "published",
    "rejected",
}
_OF_CLIENT: Final = {"connecting", "connected", "lost", "refused", "published", "rejected"}
#: Metrics of each proxy, in the order of the numbers in `_proxy_families`.
_OF_PROXIES: Final = (
    (GaugeMetricFamily, "proxy_published", "1 if the proxy is published."),
    (GaugeMetricFamily, "proxy_connections", "Connections of the proxy, now."),
    (CounterMetricFamily, "proxy_connections_opened", "Connections of the proxy."),
    (CounterMetricFamily, "proxy_sent_bytes", "Bytes towards its visitors."),
    (CounterMetricFamily, "proxy_received_bytes", "Bytes from its visitors."),
)


class Metrics:
    """What Prometheus may scrape of one program."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """The text, and what kind of text it is.

        The numbers are of one moment. To write the text takes thirty milliseconds for a thousand
        proxies, and to read what the system says of this process some more: a thread does that.

        Args:
          accept: the kinds that the client understands, as in HTTP's `Accept`.
        """
        encoder, content_type = choose_encoder(accept)
        registry = CollectorRegistry()
        registry.register(_Collected(tuple(self._metrics())))
        ProcessCollector(registry=registry)
        text = await trio.to_thread.run_sync(encoder, registry)
        return text, content_type

    def _metrics(self) -> Iterator[Metric]:
        view = self._statistics.look()
        yield from self._program(view)
        yield from self._sums()
        yield from self._links(view)
        yield _round_trips(view)
        yield from _proxies(view, self._statistics.snapshots.sent_and_received)
        yield from self._happened()
        if self._statistics.role == "server":
            yield from _server(view)
        yield _histogram("rtt", "Round trips between client and server.", self._statistics.rtt)
        yield _histogram(
            "event_loop_lag", "How late the event loop wakes its tasks.", self._statistics.lag
        )

    def _program(self, view: ProgramView) -> Iterator[Metric]:
        statistics = self._statistics
        info = GaugeMetricFamily(f"{_PREFIX}build_info", "The program.", labels=["version", "role"])
        info.add_metric([__version__, statistics.role], 1)
        yield info
        yield _gauge("ready", "1 if visitors can be served.", view.unready is None)
        yield _gauge("start_time_seconds", "When it started, in Unix time.", statistics.started)
        yield _gauge("sessions", "Connected pairs of client and server.", _sessions(view))

    def _sums(self) -> Iterator[Metric]:
        sums, snapshots = self._statistics.totals.statistics(), self._statistics.snapshots
        sent, received = snapshots.sent_and_received(sums.delivered, sums.read)
        yield _gauge("connections", "Visitors' connections, now.", sums.active)
        yield _counter("connections_opened", "Visitors' connections.", sums.total)
        yield _counter("sent_bytes", "Bytes towards visitors.", sent)
        yield _counter("received_bytes", "Bytes from visitors.", received)

    def _links(self, view: ProgramView) -> Iterator[Metric]:
        links = [session.link for session in view.sessions if session.link is not None]
        yield _gauge("streams", "Streams of all sessions.", sum(link.streams for link in links))
        yield _gauge(
            "queued_bytes",
            "Bytes of visitors and services that wait for the connection between the programs.",
            sum(link.queued for link in links),
        )
        yield _gauge(
            "blocked_sessions",
            "Sessions whose connection takes no more at this moment.",
            sum(link.blocked for link in links),
        )
        waits = self._statistics.look_at_connections().waits.items()
        text = "Connections by what they wait for."
        counts = ((reason.value, count) for reason, count in waits)
        yield _labelled(GaugeMetricFamily, "waiting_connections", text, "on", counts)

    def _happened(self) -> Iterator[Metric]:
        counts = self._statistics.journal.counts
        ours = _OF_SERVER if self._statistics.role == "server" else _OF_CLIENT
        for kind, name, label, text in _COUNTED:
            if kind not in ours:
                continue
            if not label:
                yield _counter(name, text, counts[kind, ""])
                continue
            found = [
                (value, n) for (counted, value), n in sorted(counts.items()) if counted == kind
            ]
            yield _labelled(CounterMetricFamily, name, text, label, found)


@attrs.frozen(eq=False)
class _Collected(Collector):
    """Metrics of one moment, as a registry wants them."""

    metrics: tuple[Metric, ...]

    def collect(self) -> tuple[Metric, ...]:
        return self.metrics

    def describe(self) -> tuple[Metric, ...]:
        return ()


def _server(view: ProgramView) -> Iterator[Metric]:
    rejected = ((str(reason), count) for reason, count in view.rejected.items())
    text = "Visitors and strangers turned away."
    yield _labelled(CounterMetricFamily, "turned_away", text, "reason", rejected)
    strangers = view.strangers or 0
    yield _gauge("strangers", "Connections that have not proved anything yet.", strangers)
    if view.certificate_until is not None:
        yield _gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate that is shown runs out, in Unix time.",
            view.certificate_until,
        )


@attrs.define
class _Sum:
    """The proxies of one label."""

    counters: Counters = attrs.Factory(Counters)
    published: int = 0

    def add(self, proxy: ProxyView) -> None:
        self.counters.add(proxy.counters)
        self.published += proxy.up


def _round_trips(view: ProgramView) -> Metric:
    """The last round trip of each client; two clients may have the same name."""
    rtts: dict[str, float] = {}
    for session in view.sessions:
        if session.link and session.link.rtt is not None and len(rtts) < limits.METRIC_PROXIES:
            rtts[session.client] = max(session.link.rtt, rtts.get(session.client, 0.0))
    text = "The last round trip of a client."
    return _labelled(GaugeMetricFamily, "session_rtt_seconds", text, "client", rtts.items())


def _proxies(view: ProgramView, directed: _Directed) -> Iterator[Metric]:
    """Each proxy by its client's name and its own; two clients may have the same name."""
    sums: dict[tuple[str, str], _Sum] = {}
    for session in view.sessions:
        for proxy in session.proxies:
            key = (session.client, proxy.name)
            if key not in sums and len(sums) >= limits.METRIC_PROXIES:
                key = _OTHERS
            sums.setdefault(key, _Sum()).add(proxy)
    yield from _proxy_families(sums, directed)


def _proxy_families(sums: dict[tuple[str, str], _Sum], directed: _Directed) -> Sequence[Metric]:
    families = [
        family(f"{_PREFIX}{name}", text, labels=["client", "proxy"])
        for family, name, text in _OF_PROXIES
    ]
    for labels, one in sums.items():
        counters = one.counters
        traffic = directed(counters.delivered, counters.read)
        numbers = (one.published, counters.active, counters.total, *traffic)
        for family, number in zip(families, numbers, strict=True):
            family.add_metric(labels, number)
    return families


def _sessions(view: ProgramView) -> int:
    return sum(session.link is not None for session in view.sessions)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{_PREFIX}{name}", text, value=value)


def _labelled(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    label: str,
    numbers: Iterable[tuple[str, float]],
) -> Metric:
    """A metric with a number for each value of its one label."""
    metric = family(f"{_PREFIX}{name}", text, labels=[label])
    for value, number in numbers:
        metric.add_metric([value], number)
    return metric


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    *counts, total = histogram.cumulated()
    buckets: list[tuple[str, float]] = [
        (str(bound), float(count)) for bound, count in zip(histogram.bounds, counts, strict=True)
    ]
    buckets.append(("+Inf", float(total)))
    return HistogramMetricFamily(
        f"{_PREFIX}{name}_seconds", text, buckets=buckets, sum_value=histogram.sum
    )
