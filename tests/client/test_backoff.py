"""How long a client waits before it comes back."""

import random

import pytest

from tunnel.client.backoff import Backoff as Growth


class Backoff:
    """The same with delays that stay as they are."""

    def __init__(self, first, largest, vary):
        self.first, self.largest = first, largest
        self._growth = Growth(vary)
        self.reset = self._growth.reset
        self.expect_restart = self._growth.expect_restart
        self.server_is_back = self._growth.server_is_back

    def delay(self, now):
        return self._growth.delay(now, self.first, self.largest)


def test_a_fixed_delay_is_the_same_for_ever():
    backoff = Backoff(5.0, 5.0, lambda: pytest.fail("a fixed delay does not vary"))
    assert [backoff.delay(0.0) for _ in range(50)] == [5.0] * 50


def test_a_maximum_below_the_delay_does_not_shorten_it():
    backoff = Backoff(5.0, 1.0, lambda: 1.0)
    assert [backoff.delay(0.0) for _ in range(3)] == [5.0] * 3


def test_with_a_larger_maximum_it_doubles_up_to_it():
    backoff = Backoff(5.0, 60.0, lambda: 1.0)
    assert [backoff.delay(0.0) for _ in range(6)] == [5, 10, 20, 40, 60, 60]


def test_after_a_good_session_it_starts_anew():
    backoff = Backoff(5.0, 60.0, lambda: 1.0)
    for _ in range(9):
        backoff.delay(0.0)
    backoff.reset()
    assert [backoff.delay(0.0) for _ in range(2)] == [5, 10]


def test_a_growing_delay_varies_between_half_and_all_of_it():
    assert [Backoff(8.0, 60.0, lambda share=share: share).delay(0.0) for share in (0, 0.5, 1)] == [
        4,
        6,
        8,
    ]
    vary = random.Random(3).random
    backoff = Backoff(1.0, 64.0, vary)
    delays = [backoff.delay(0.0) for _ in range(200)]
    assert all(32 <= delay <= 64 for delay in delays[6:])
    assert len(set(delays)) == len(delays)


def test_a_server_that_is_being_restarted_is_asked_again_soon_and_not_in_step():
    vary = random.Random(3).random
    backoff = Backoff(60.0, 600.0, vary)
    backoff.delay(99.0)
    backoff.expect_restart(100.0)
    delays = [backoff.delay(100.0 + second) for second in range(60)]
    assert all(0.5 <= delay <= 1.5 for delay in delays)
    assert max(delays) - min(delays) > 0.8
    assert len(set(delays)) == len(delays)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_it_comes_back_within_two_seconds_of_the_server(share):
    backoff = Backoff(5.0, 5.0, lambda: share)
    backoff.expect_restart(100.0)
    assert 0.5 <= backoff.delay(100.0) <= 1.5


def test_a_shorter_delay_that_is_configured_stays():
    backoff = Backoff(0.25, 0.25, lambda: 0.0)
    backoff.expect_restart(100.0)
    assert backoff.delay(100.0) == 0.25


def test_a_server_that_does_not_come_back_gets_the_usual_delays():
    backoff = Backoff(5.0, 60.0, lambda: 1.0)
    for _ in range(5):
        backoff.delay(0.0)
    backoff.expect_restart(100.0)
    assert backoff.delay(159.9) == 1.5
    assert [backoff.delay(160.0) for _ in range(3)] == [5, 10, 20]


def test_a_server_that_is_back_is_not_being_restarted():
    backoff = Backoff(5.0, 60.0, lambda: 1.0)
    backoff.expect_restart(100.0)
    backoff.server_is_back()
    assert backoff.delay(101.0) == 5


def test_delays_that_change_are_taken_at_once():
    backoff = Backoff(5.0, 60.0, lambda: 1.0)
    assert [backoff.delay(0.0) for _ in range(2)] == [5, 10]
    backoff.first, backoff.largest = 1.0, 7.0
    assert [backoff.delay(0.0) for _ in range(3)] == [4, 7, 7]
    backoff.first = backoff.largest = 3.0
    assert backoff.delay(0.0) == 3


def test_no_delay_at_all_stays_none():
    backoff = Backoff(0.0, 60.0, lambda: 1.0)
    assert [backoff.delay(0.0) for _ in range(2000)] == [0.0] * 2000
