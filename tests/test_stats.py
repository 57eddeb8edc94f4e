"""Counters, their sums, and histograms."""

from __future__ import annotations

from tunnel.stats import Counters, CountersStatistics, Histogram, Meter, Totals


def carried(total, delivered, read, active=0):
    return Counters(active, total, delivered, read)


def test_totals_sum_what_lives():
    totals = Totals()
    totals.look([carried(1, 10, 100, active=1), carried(2, 20, 200)])
    assert totals.statistics() == CountersStatistics(1, 3, 30, 300)


def test_a_sum_moves_between_two_looks():
    totals, counters = Totals(), carried(1, 10, 100)
    totals.look([counters])
    counters.read += 5
    assert totals.statistics().read == 105


def test_what_is_gone_stays_in_the_sum():
    totals, gone = Totals(), carried(1, 10, 100)
    totals.look([gone])
    gone.delivered += 7  # after the last look at it
    totals.look([])
    totals.look([carried(1, 1, 1)])
    assert totals.statistics() == CountersStatistics(0, 2, 18, 101)


def test_it_is_counted_once_however_often_it_is_looked_at():
    totals, counters = Totals(), carried(1, 10, 100)
    for _ in range(3):
        totals.look([counters])
    for _ in range(3):
        totals.look([])
    assert totals.statistics() == CountersStatistics(0, 1, 10, 100)


def test_a_proxy_that_is_withdrawn_counts_while_its_connections_go_on():
    totals, counters = Totals(), carried(1, 10, 100, active=1)
    totals.look([counters])
    totals.look([])
    assert totals.statistics().active == 1
    counters.read += 50
    counters.closed()
    totals.look([])
    assert totals.statistics() == CountersStatistics(0, 1, 10, 150)


def test_a_histogram_counts_what_is_at_most_each_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.observe(value)
    assert histogram.cumulated() == [2, 3, 4]
    assert histogram.sum == 6.0


def metered(proxy):
    meter = Meter(proxy)
    meter.opened()
    return meter


def test_a_proxy_has_what_its_meters_count_while_they_count():
    proxy = Counters()
    one, other = metered(proxy), metered(proxy)
    one.delivered += 5
    one.read += 7
    other.delivered += 100
    assert (one.delivered, one.read, other.delivered, other.read) == (5, 7, 100, 0)
    assert proxy.statistics() == CountersStatistics(2, 2, 105, 7)
    one.delivered += 1
    assert proxy.statistics() == CountersStatistics(2, 2, 106, 7)
    one.closed()
    other.closed()
    assert proxy.statistics() == CountersStatistics(0, 2, 106, 7)


def test_a_meter_that_has_ended_is_kept_by_nobody():
    proxy = Counters()
    meter = metered(proxy)
    meter.read += 3
    meter.closed()
    assert not proxy.meters
    meter.read += 3  # too late
    assert proxy.statistics() == CountersStatistics(0, 1, 0, 3)


def test_a_ledger_sees_what_meters_have_counted_since_it_looked():
    totals, proxy = Totals(), Counters()
    meter = metered(proxy)
    meter.read += 1
    totals.look([proxy])
    assert proxy.read == 1
    meter.read += 3
    assert totals.statistics() == CountersStatistics(1, 1, 0, 4)
    meter.delivered += 2
    totals.look([])  # withdrawn, and the connection goes on
    meter.delivered += 3
    assert totals.statistics() == CountersStatistics(1, 1, 5, 4)
    meter.closed()
    totals.look([])
    assert totals.statistics() == CountersStatistics(0, 1, 5, 4)
