"""The bucket that lets strangers in, and the cap on how many try at once."""

import pytest

from tunnel.server.admission import TokenBucket


def test_a_burst_and_then_one_by_one():
    bucket = TokenBucket(per_second=2, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert not bucket.take(100.4)
    assert bucket.take(100.5)
    assert not bucket.take(100.5)


def test_what_is_saved_up_is_never_more_than_a_burst():
    bucket = TokenBucket(per_second=1000, burst=2)
    assert bucket.take(0.0)
    assert [bucket.take(1e6) for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("per_second", [0.5, 1, 8, 256])
def test_in_the_long_run_the_rate_is_kept(per_second):
    bucket = TokenBucket(per_second=per_second, burst=1)
    taken = sum(bucket.take(step / 1024) for step in range(20 * 1024))
    assert taken == pytest.approx(20 * per_second, abs=1.5)


def test_a_refusal_costs_nothing():
    bucket = TokenBucket(per_second=1, burst=1)
    assert bucket.take(0.0)
    for step in range(100):
        assert not bucket.take(step / 101)
    assert bucket.take(1.0)
