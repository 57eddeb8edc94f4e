"""The figures and pictures of `bench_scale`, from numbers that are known."""

from __future__ import annotations

import os
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks.scale import meter, plot, report
from tests.benchmarks.scale.worker import shares


def look(clients, connections, *, server, cpu=1.0):
    return report.Look(
        clients=clients,
        ports=4 * clients,
        connections=connections,
        descriptors=10 + clients + connections,
        server=server,
        client=2 * server,
        server_cpu=cpu,
        client_cpu=2 * cpu,
        visits=[1.0, 2.0, 3.0] if clients else [],
    )


@pytest.fixture
def scale():
    """70 KiB a client; a connection costs 1 KiB while there are few, and 3 later."""
    growing = [look(n, 0, server=40_000 + 70 * n, cpu=n / 100) for n in (0, 100, 200, 300, 400)]
    sizes = {0: 0, 1000: 1000, 2000: 2000, 3000: 5000, 4000: 8000}
    crowding = [look(400, n, server=68_000 + size) for n, size in sizes.items()]
    return report.Scale(
        growing,
        crowding,
        report.Rush(1000.0, [5.0] * 99 + [50.0], 250.0),
        report.Rush(900.0, [6.0] * 100, 260.0),
        {"all idle": [7.5, 0.5]},
    )


def test_slopes_of_both_halves():
    slopes = meter.slopes([0, 1, 2, 3, 4], [10, 11, 12, 15, 18])
    assert (slopes.first, slopes.last, slopes.ratio) == pytest.approx((1, 3, 3))
    assert slopes.all == pytest.approx(2)


def test_slopes_of_what_costs_nothing():
    assert meter.slopes([0, 1, 2], [5, 5, 5]).ratio != meter.slopes([0, 1, 2], [5, 6, 7]).ratio == 1


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantiles(share, value):
    assert meter.quantile(list(range(100, 0, -1)), share) == value


def test_what_this_process_uses():
    assert meter.memory(os.getpid()) > 1 << 20
    assert meter.cpu(os.getpid()) > 0
    assert meter.descriptors(os.getpid()) >= 3


@pytest.mark.parametrize(
    ("largest", "steps"),
    [
        (10_000, [0, 2000, 4000, 6000, 8000, 10_000]),
        (500, [0, 100, 200, 300, 400, 500]),
        (0.9, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (137, [0, 50, 100, 150]),
        (0, [0, 1]),
    ],
)
def test_axes_have_round_numbers(largest, steps):
    assert plot.steps(largest) == pytest.approx(steps)


def test_the_table_tells_flat_from_dear(scale):
    lines = report.table(scale).splitlines()
    [client] = [line for line in lines if line.startswith("| memory of a client, server")]
    assert client == "| memory of a client, server side, KiB | 70.00 | 70.00 | 70.00 | 1.00 |"
    [connection] = [line for line in lines if line.startswith("| memory of a connection, server")]
    assert connection == "| memory of a connection, server side, KiB | 2.00 | 1.00 | 3.00 | 3.00 |"
    [cpu] = [line for line in lines if line.startswith("| CPU of a client, server")]
    assert cpu == "| CPU of a client, server side, µs/s | 100.00 | 100.00 | 100.00 | |"
    assert "| connect to answer, p50 / p99, ms | 5.00 / 5.00 | 6.00 / 6.00 |" in lines
    assert "| all idle | 7.5 | 0.5 |" in lines


def test_every_line_of_a_table_has_as_many_cells_as_its_head(scale):
    head = 0
    for line in report.table(scale).splitlines():
        if not line.startswith("|"):
            head = 0
            continue
        head = head or line.count("|")
        assert line.count("|") == head, line


def test_the_plot_is_a_picture_with_every_point(scale):
    root = ET.fromstring(plot.page(report.charts(scale)))
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 8  # memory and CPU, over clients and connections, of both sides
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        assert len(points) == 5
        assert all(0 <= x <= plot.WIDTH and plot.TOP <= y <= plot.HEIGHT for x, y in points)
        assert points == sorted(points)


def test_names_are_escaped_in_the_plot():
    chart = plot.Chart("a < b & c", "x", {"<y>": [(0, 0), (1, 1)]})
    ET.fromstring(plot.page([chart]))


def test_shares_add_up():
    assert shares(10, 4) == [3, 3, 2, 2]
    assert shares(0, 2) == [0, 0]
