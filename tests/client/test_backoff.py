"""How long a client waits before it comes back."""

import random

import pytest

from tunnel.client.backoff import Backoff


def test_a_fixed_delay_is_the_same_for_ever():
    backoff = Backoff(5.0, 5.0, lambda: pytest.fail("a fixed delay does not vary"))
    assert [backoff.delay() for _ in range(50)] == [5.0] * 50


def test_a_maximum_below_the_delay_does_not_shorten_it():
    backoff = Backoff(5.0, 1.0, lambda: 1.0)
    assert [backoff.delay() for _ in range(3)] == [5.0] * 3


def test_with_a_larger_maximum_it_doubles_up_to_it():
    backoff = Backoff(5.0, 60.0, lambda: 1.0)
    assert [backoff.delay() for _ in range(6)] == [5, 10, 20, 40, 60, 60]


def test_after_a_good_session_it_starts_anew():
    backoff = Backoff(5.0, 60.0, lambda: 1.0)
    for _ in range(9):
        backoff.delay()
    backoff.reset()
    assert [backoff.delay() for _ in range(2)] == [5, 10]


def test_a_growing_delay_varies_between_half_and_all_of_it():
    assert [Backoff(8.0, 60.0, lambda share=share: share).delay() for share in (0, 0.5, 1)] == [
        4,
        6,
        8,
    ]
    vary = random.Random(3).random
    backoff = Backoff(1.0, 64.0, vary)
    delays = [backoff.delay() for _ in range(200)]
    assert all(32 <= delay <= 64 for delay in delays[6:])
    assert len(set(delays)) == len(delays)
