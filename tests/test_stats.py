"""Counters, their sums, and histograms."""

from __future__ import annotations

from tunnel.stats import Counters, CountersStatistics, Histogram, Ledger


def carried(total, delivered, read, active=0):
    return Counters(active, total, delivered, read)


def test_a_ledger_sums_what_lives():
    ledger = Ledger()
    ledger.look([carried(1, 10, 100, active=1), carried(2, 20, 200)])
    assert ledger.statistics() == CountersStatistics(1, 3, 30, 300)


def test_a_sum_moves_between_two_looks():
    ledger, counters = Ledger(), carried(1, 10, 100)
    ledger.look([counters])
    counters.read += 5
    assert ledger.statistics().read == 105


def test_what_is_gone_stays_in_the_sum():
    ledger, gone = Ledger(), carried(1, 10, 100)
    ledger.look([gone])
    gone.delivered += 7  # after the last look at it
    ledger.look([])
    ledger.look([carried(1, 1, 1)])
    assert ledger.statistics() == CountersStatistics(0, 2, 18, 101)


def test_it_is_counted_once_however_often_it_is_looked_at():
    ledger, counters = Ledger(), carried(1, 10, 100)
    for _ in range(3):
        ledger.look([counters])
    for _ in range(3):
        ledger.look([])
    assert ledger.statistics() == CountersStatistics(0, 1, 10, 100)


def test_a_proxy_that_is_withdrawn_counts_while_its_connections_go_on():
    ledger, counters = Ledger(), carried(1, 10, 100, active=1)
    ledger.look([counters])
    ledger.look([])
    assert ledger.statistics().active == 1
    counters.read += 50
    counters.closed()
    ledger.look([])
    assert ledger.statistics() == CountersStatistics(0, 1, 10, 150)


def test_a_histogram_counts_what_is_at_most_each_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.observe(value)
    assert histogram.cumulated() == [2, 3, 4]
    assert histogram.sum == 6.0
