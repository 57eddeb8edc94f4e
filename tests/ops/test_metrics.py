"""What Prometheus scrapes."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.needs import needs
from tests.ops.views import connections, counters, program, proxy, session
from tunnel import limits
from tunnel.ops.metrics import Metrics
from tunnel.ops.statistics import Statistics
from tunnel.stats import Counters
from tunnel.views import Snapshots


class Watched:
    """A program whose view can be changed, and its metrics."""

    def __init__(self, role="server", view=None):
        self.view = view or program()
        self.statistics = Statistics(
            Snapshots(role, lambda: self.view, connections, lambda: counters(self.view))
        )
        self.metrics = Metrics(self.statistics)

    async def text(self):
        return (await self.metrics.scrape(""))[0].decode()

    async def samples(self):
        found = {}
        for family in text_string_to_metric_families(await self.text()):
            for sample in family.samples:
                key = (sample.name, *sorted(sample.labels.items()))
                assert key not in found, f"{key} is there twice"
                found[key] = sample.value
        return found

    async def value(self, name, **labels):
        return (await self.samples())[f"tls_tunnel_{name}", *sorted(labels.items())]


async def test_numbers_of_a_server():
    watched = Watched()
    assert await watched.value("sessions") == 1
    assert await watched.value("sent_bytes_total") == 100
    assert await watched.value("received_bytes_total") == 30
    assert await watched.value("connections") == 2
    assert await watched.value("connections_opened_total") == 7
    assert await watched.value("proxy_sent_bytes_total", client="office", proxy="web") == 100
    assert await watched.value("session_rtt_seconds", client="office") == 0.02
    assert await watched.value("queued_bytes") == 5
    assert await watched.value("waiting_connections", on="visitor") == 1
    assert await watched.value("turned_away_total", reason="wrong key") == 3
    assert await watched.value("certificate_expiry_timestamp_seconds") == 2e9
    assert await watched.value("ready") == 1


async def test_a_client_counts_towards_the_visitor_too():
    watched = Watched("client")
    assert await watched.value("sent_bytes_total") == 30
    assert await watched.value("proxy_received_bytes_total", client="office", proxy="web") == 100


async def test_what_happened_is_counted_by_reason():
    watched = Watched()
    counts = watched.statistics.journal.counts
    counts["handshakes", "too_slow"] += 2
    counts["disconnected", "silence"] += 1
    assert await watched.value("handshakes_total", result="too_slow") == 2
    assert await watched.value("sessions_ended_total", reason="silence") == 1
    assert await watched.value("takeovers_total") == 0


async def test_series_of_gone_clients_disappear_and_sums_do_not():
    ended = attrs.evolve(proxy(), counters=Counters(0, 7, 100, 30))
    watched = Watched(view=program(session(proxies=(ended,))))
    await watched.samples()
    watched.view = attrs.evolve(program(), sessions=())
    assert not any("office" in str(key) for key in await watched.samples())
    assert await watched.value("sent_bytes_total") == 100
    assert await watched.value("connections") == 0


async def test_two_clients_of_one_name_are_one_series():
    watched = Watched(view=program(session(), session()))
    assert await watched.value("proxy_sent_bytes_total", client="office", proxy="web") == 200


async def test_labels_are_bounded():
    many = tuple(
        attrs.evolve(proxy(f"proxy {number}"), counters=Counters(1, 1, 1, 1))
        for number in range(limits.METRIC_PROXIES + 50)
    )
    watched = Watched(view=program(session(proxies=many)))
    named = [key for key in await watched.samples() if key[0] == "tls_tunnel_proxy_connections"]
    assert len(named) == limits.METRIC_PROXIES + 1
    assert await watched.value("proxy_connections", client="", proxy="") == 50
    assert await watched.value("connections") == len(many)


async def test_round_trips_are_bounded_as_well():
    many = [session(f"client {n}", proxies=()) for n in range(limits.METRIC_PROXIES + 50)]
    watched = Watched(view=program(*many))
    named = [key for key in await watched.samples() if key[0] == "tls_tunnel_session_rtt_seconds"]
    assert len(named) == limits.METRIC_PROXIES


@pytest.mark.parametrize("name", ['a"b\\c', "<script>", "线路", "x\ny"])
async def test_any_name_is_a_label(name):
    watched = Watched(view=program(session(proxies=(proxy(name),))))
    assert await watched.value("proxy_sent_bytes_total", client="office", proxy=name) == 100


async def test_a_histogram_is_cumulative_and_has_its_sum():
    watched = Watched()
    for seconds in (0.0001, 0.02, 9.0):
        watched.statistics.rtt.observe(seconds)
    assert await watched.value("rtt_seconds_bucket", le="0.0005") == 1
    assert await watched.value("rtt_seconds_bucket", le="0.025") == 2
    assert await watched.value("rtt_seconds_bucket", le="+Inf") == 3
    assert await watched.value("rtt_seconds_count") == 3
    assert await watched.value("rtt_seconds_sum") == pytest.approx(9.0201)


async def test_whoever_understands_openmetrics_gets_that():
    body, kind = await Watched().metrics.scrape("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_two_programs_have_registries_of_their_own():
    assert (await Watched().text()).count("# HELP tls_tunnel_build_info") == 1
    assert (await Watched("client").text()).count("# HELP tls_tunnel_build_info") == 1


@pytest.mark.parametrize("role", ["server", "client"])
async def test_the_guide_names_every_metric(role):
    guide = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text("utf-8")
    text = await Watched(role).text()
    names = re.findall(r"^# TYPE tls_tunnel_(\w+)", text, flags=re.MULTILINE)
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in guide] == []


@needs("promtool", "prometheus")
@pytest.mark.parametrize("role", ["server", "client"])
async def test_promtool_has_nothing_to_say(role):
    watched = Watched(role)
    watched.statistics.journal.counts["refused", "busy"] += 1
    done = await trio.run_process(
        ["promtool", "check", "metrics"],
        stdin=(await watched.text()).encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
